"""How good a trained network is: accuracy with its uncertainty, on data that chose nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rapdarts import config
from rapdarts.blueprint import Blueprint, of_card
from rapdarts.config import Experiment
from rapdarts.errors import DamagedError, InputError
from rapdarts.space import SearchSpace, named_space


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` images, and the mean cross-entropy in nats."""

    correct: int
    n: int
    loss: float

    @property
    def share(self) -> float:
        """Accuracy, 0 to 1."""
        return self.correct / self.n

    @property
    def standard_error(self) -> float:
        """Binomial standard error of `share`: how far it would scatter over test sets of this size."""
        return math.sqrt(self.share * (1 - self.share) / self.n)

    def __str__(self) -> str:
        return f"{100 * self.share:.2f} % +- {100 * self.standard_error:.2f} % (standard error, n = {self.n})"


@torch.no_grad()
def accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Accuracy:
    """Accuracy of `network`, in eval mode, over batches of images (n, c, h, w) and labels (n,)."""
    training = network.training
    network.eval()
    correct, n, loss = torch.zeros(()), 0, torch.zeros(())
    for images, labels in batches:
        logits = network(images)
        correct = correct.to(logits.device) + (logits.argmax(1) == labels).sum()
        loss = loss.to(logits.device) + nn.functional.cross_entropy(logits, labels, reduction="sum")
        n += len(labels)
    network.train(training)
    return Accuracy(int(correct), n, loss.item() / n)


CARD = "rapdarts"
"""The one metadata entry of our .safetensors files: the format writes several in an order that changes from call to call."""


@dataclass(frozen=True)
class TrainedFile:
    """What a .safetensors file of ours says about itself; `mean` and `std` normalise images of 0..1 by channel."""

    path: Path
    blueprint: Blueprint
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


def read_trained(path: Path, space_named: Callable[[str], SearchSpace] = named_space) -> TrainedFile:
    """The metadata of a trained network; `space_named` gives the space of a genotype.

    Raises InputError if there is none, DamagedError if it cannot be read.
    """
    if not path.is_file():
        raise InputError(
            f"there is no trained network {path}; give a run folder of rapdarts retrain, or its network.safetensors."
        )
    try:
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {})[CARD])
        blueprint, data = of_card(card, str(path), space_named), card["data"]
        return TrainedFile(path, blueprint, tuple(data["mean"]), tuple(data["std"]), tuple(data["classes"]))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{path} is not a network that rapdarts retrain wrote, or is damaged ({error}).") from None


def load_network(trained: TrainedFile) -> nn.Module:
    """The trained network, in eval mode on the CPU. Raises DamagedError if the weights do not fit it."""
    with torch.device("meta"):  # whatever size a file asks for, memory is taken for the weights that it holds
        network = trained.blueprint.build()
    try:
        with safe_open(trained.path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        network.load_state_dict(weights, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise DamagedError(f"{trained.path}: the weights do not fit ({' '.join(str(error).split())[:300]}).") from None
    return network.eval().float()


def experiment_of(path: Path, name: str = "") -> Experiment:
    """The experiment on whose data a trained network is tested: the one of that name, or that of the run it lies in.

    A network lies in the folder of its run, those of a random baseline in trained/NUMBER there. Raises InputError
    where nothing says which data.
    """
    if name:
        return config.experiment(name, [])
    folders = [path.parent]
    if path.absolute().parent.parent.name == "trained":
        folders.append(path.absolute().parents[2])
    for folder in folders:
        if (folder / "config.yaml").is_file():
            return config.of_run(folder)
    raise InputError(
        f"there is no config.yaml beside {path} that says on which data to test; name an experiment behind it, such as digits."
    )

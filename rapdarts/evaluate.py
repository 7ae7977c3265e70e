"""How good a trained network is: accuracy with its uncertainty, on data that chose nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rapdarts import config
from rapdarts.config import Experiment
from rapdarts.errors import InputError


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

    @property
    def plain(self) -> dict[str, float]:
        """Share, its error and n, by name."""
        return {"test_accuracy": self.share, "standard_error": self.standard_error, "n": self.n}

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

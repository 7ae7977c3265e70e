"""How good a trained network is: accuracy with its uncertainty, confusions and calibration, on data that chose nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.config import experiment as config
from rapdarts.config.commands import OtherDataConfig
from rapdarts.config.experiment import DataConfig, Experiment
from rapdarts.data.dataset import DataSet
from rapdarts.errors import DivergedError, InputError
from rapdarts.files.yaml import shorten


@dataclass(frozen=True)
class Evaluation:
    """`correct` of `n` images, and the mean cross-entropy in nats."""

    correct: int
    n: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Accuracy, 0 to 1."""
        return self.correct / self.n

    @property
    def standard_error(self) -> float:
        """Binomial standard error of `share`: how far it would scatter over test sets of this size."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.n)

    @property
    def plain(self) -> dict[str, float]:
        """Share, its error, n and the loss, by name."""
        facts = {"test_accuracy": self.accuracy, "standard_error": self.standard_error, "n": self.n}
        return {**facts, "test_loss": self.loss}

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.2f} % +- {100 * self.standard_error:.2f} % (standard error, n = {self.n})"


@torch.no_grad()
def predict(run: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) float64 and labels (n,), on the CPU, of what `run` makes of batches of images and labels.

    Raises DivergedError for logits that are not finite.
    """
    logits, labels = zip(*((run(images).cpu().double(), truth.cpu()) for images, truth in batches), strict=True)
    every = torch.cat(logits)
    if not torch.isfinite(every).all():
        image = int((~torch.isfinite(every).all(1)).nonzero()[0])
        raise DivergedError(f"the network gives numbers that are not finite for image {image}; train it anew.")
    return every, torch.cat(labels)


def topk_correct(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Whether the label of each image (n,) is among the k largest logits (n, classes), of equals the first classes; bool (n,)."""
    own = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1])
    before = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return before.sum(1) < k


def evaluate_logits(logits: Tensor, labels: Tensor) -> Evaluation:
    """Of logits (n, classes) for images with labels (n,)."""
    loss = nn.functional.cross_entropy(logits, labels).item()
    return Evaluation(int(topk_correct(logits, labels).sum()), len(labels), loss)


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """How many images of each class (rows) were taken for each class (columns): (classes, classes) int64."""
    classes = logits.shape[1]
    return torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy lie apart; in each bin of confidence the images, their mean confidence and accuracy.

    `error` is the expected calibration error (Guo et al. 2017, Eq. 3): sum over bins of n_bin / n * |accuracy - confidence|.
    """

    error: float
    n: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def calibration(logits: Tensor, labels: Tensor, bins: int = 15) -> Calibration:
    """Of logits (n, classes) and labels (n,). Bin m of M equal ones holds the images whose largest probability is in ((m-1)/M, m/M]."""
    confidence = torch.softmax(logits.double(), 1).amax(1)
    where = (confidence * bins).ceil().long().clamp(1, bins) - 1
    n = torch.bincount(where, minlength=bins)
    right = torch.bincount(where, topk_correct(logits, labels).double(), minlength=bins)
    sure = torch.bincount(where, confidence, minlength=bins)
    error = (right - sure).abs().sum().item() / len(labels)
    means = (tuple((total / n.clamp(min=1)).tolist()) for total in (sure, right))
    return Calibration(error, tuple(n.tolist()), *means)


FEW = 5
"""Among so many best classes the right one is looked for, where there are more."""


def measures(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """What the logits (n, classes) for images with labels (n,) say of a network, as plain values.

    `test_loss` is the negative log-likelihood: the mean cross-entropy in nats. There is no `top5_accuracy` for five classes.
    """
    found = evaluate_logits(logits, labels)
    values: dict[str, Any] = found.plain
    if logits.shape[1] > FEW:
        few = Evaluation(int(topk_correct(logits, labels, FEW).sum()), len(labels), found.loss)
        values |= {"top5_accuracy": few.accuracy, "top5_standard_error": few.standard_error}
    trust = calibration(logits, labels)
    bins = zip(trust.n, trust.confidence, trust.accuracy, strict=True)
    return {
        **values,
        "calibration_error": trust.error,
        "bins": [{"n": n, "confidence": sure, "accuracy": right} for n, sure, right in bins],
        "classes": list(class_names),
        "confusion": confusion(logits, labels).tolist(),
    }


def data_asked(own: DataConfig, asked: OtherDataConfig, image: tuple[int, int, int]) -> DataConfig:
    """The data that a command line asks for, over those of a run or an experiment, for a network that takes `image`."""
    if asked.name:
        own = DataConfig(asked.name, size=image[1] if asked.name == "folder" else 0)
    return replace(own, path=asked.path or own.path, size=asked.size or own.size)


def check_data(what: Path, image: tuple[int, int, int], class_names: tuple[str, ...], data: DataSet) -> None:
    """Raises InputError for data of other images or classes than the network `what` was trained on."""
    known, found = (image, class_names), (data.image, data.class_names)
    if known != found:
        raise InputError(
            f"{what} was trained on images {known[0]} of the classes {shorten(', '.join(known[1]))}, but these are"
            f" {found[0]} of {shorten(', '.join(found[1]))}; name other data with data.path=PATH, or another experiment."
        )


def run_of(path: Path) -> Path | None:
    """The folder of the run that a trained network lies in, those of a baseline or a ranking in trained/NUMBER there; None if in none."""
    folders = [path.parent]
    if path.absolute().parent.parent.name == "trained":
        folders.append(path.absolute().parents[2])
    return next((folder for folder in folders if (folder / "config.yaml").is_file()), None)


def experiment_of(path: Path, name: str = "", *, needed: bool = True) -> Experiment:
    """The experiment on whose data a trained network is tested: the one of that name, or that of the run it lies in.

    Where nothing says which data, and it is not `needed`, the defaults. Raises InputError where it is.
    """
    if name:
        return config.experiment(name, [])
    folder = run_of(path)
    if folder is not None:
        return config.of_run(folder)
    if not needed:
        return Experiment()
    raise InputError(
        f"there is no config.yaml beside {path} that says on which data to test; name an experiment behind it, such as digits."
    )

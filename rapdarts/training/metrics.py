"""Quality of a trained network on held-out data: accuracy with its 95 % interval, confusion matrix and calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.errors import DivergedError
from rapdarts.training.intervals import Interval, mean_of_shares, percent, wilson


@dataclass(frozen=True)
class Evaluation:
    """Number of correctly classified images out of `n`, and the mean cross-entropy in nats."""

    correct: int
    n: int
    loss: float
    balanced: tuple[float, float, float, float] | None = None
    """Mean recall over the classes, its standard error and the limits of its 95 % interval, if the sizes of the classes differ."""

    @property
    def accuracy(self) -> float:
        """Accuracy, 0 to 1."""
        return self.correct / self.n

    @property
    def standard_error(self) -> float:
        """Binomial standard error of `accuracy`: its variation between test sets of this size."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.n)

    @property
    def interval(self) -> Interval:
        """Limits of the 95 % interval of `accuracy`, for its variation between test sets of this size."""
        return wilson(self.accuracy, self.n)

    @property
    def plain(self) -> dict[str, Any]:
        """Accuracy, its standard error and 95 % interval, n, the loss, and the balanced accuracy if there is one, by name."""
        facts = {"test_accuracy": self.accuracy, "standard_error": self.standard_error, "interval": [*self.interval]}
        facts["n"] = self.n
        if self.balanced:
            mean, error, *interval = self.balanced
            facts |= {"balanced_accuracy": mean, "balanced_standard_error": error, "balanced_interval": interval}
        return {**facts, "test_loss": self.loss}

    def __str__(self) -> str:
        found = percent(self.accuracy, self.interval, f", n = {self.n}")
        if self.balanced:
            mean, _, *interval = self.balanced
            found += f", balanced accuracy {percent(mean, (interval[0], interval[1]), ', mean over classes')}"
        return found


UNEQUAL = 1.5
"""Smallest ratio between the sizes of the largest and the smallest class for which balanced accuracy is also reported."""


@torch.no_grad()
def predict(run: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the logits (n, classes) float64 that `run` computes for batches of images, and the labels (n,), on the CPU.

    `batches` are (images (b, c, h, w), labels (b,)). Raises DivergedError if a logit is not finite.
    """
    logits, labels = zip(*((run(images).cpu().double(), truth.cpu()) for images, truth in batches), strict=True)
    every = torch.cat(logits)
    if not torch.isfinite(every).all():
        image = int((~torch.isfinite(every).all(1)).nonzero()[0])
        raise DivergedError(
            f"the network's outputs are not finite for image {image}; train the network again with a lower learning rate."
        )
    return every, torch.cat(labels)


def topk_correct(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """Return the boolean mask (n,) of the images whose label (n,) is among their k largest logits (n, classes).

    In a tie, the class with the lower index counts as larger.
    """
    own = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1])
    before = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return before.sum(1) < k


def evaluate_logits(logits: Tensor, labels: Tensor) -> Evaluation:
    """Evaluate logits (n, classes) for images with labels (n,)."""
    loss, correct = nn.functional.cross_entropy(logits, labels).item(), topk_correct(logits, labels)
    return Evaluation(int(correct.sum()), len(labels), loss, balanced_accuracy(correct, labels))


def balanced_accuracy(correct: Tensor, labels: Tensor) -> tuple[float, float, float, float] | None:
    """Return the mean recall over the classes, its standard error and 95 % interval; None if the classes differ little in size.

    `correct` (n,) is True for each correctly classified image, and `labels` are (n,). The error and the interval assume
    independent binomial recalls.
    """
    classes, sizes = labels.unique(return_counts=True)
    recall = torch.bincount(labels, correct.double())[classes] / sizes
    if sizes.max() < UNEQUAL * sizes.min():
        return None
    variance = (recall * (1 - recall) / sizes).sum() / len(sizes) ** 2
    return recall.mean().item(), variance.sqrt().item(), *mean_of_shares(recall.tolist(), sizes.tolist())


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the confusion matrix (classes, classes) int64 of logits (n, classes) for images with labels (n,).

    Rows are true classes and columns are predicted classes.
    """
    classes = logits.shape[1]
    return torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class Calibration:
    """Calibration of a network: the number of images, the mean confidence and the accuracy in each bin of confidence.

    `error` is the expected calibration error (Guo et al. 2017, Eq. 3): sum over bins of n_bin / n * |accuracy - confidence|.
    """

    error: float
    n: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]


def calibration(logits: Tensor, labels: Tensor, bins: int = 15) -> Calibration:
    """Return the calibration of logits (n, classes) for images with labels (n,).

    Bin m of M equal bins holds the images whose largest probability is in ((m-1)/M, m/M].
    """
    confidence = torch.softmax(logits.double(), 1).amax(1)
    where = (confidence * bins).ceil().long().clamp(1, bins) - 1
    n = torch.bincount(where, minlength=bins)
    right = torch.bincount(where, topk_correct(logits, labels).double(), minlength=bins)
    sure = torch.bincount(where, confidence, minlength=bins)
    error = (right - sure).abs().sum().item() / len(labels)
    means = (tuple((total / n.clamp(min=1)).tolist()) for total in (sure, right))
    return Calibration(error, tuple(n.tolist()), *means)


FEW = 5
"""The k of the top-k accuracy, which is reported if there are more than k classes."""


def measures(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Return all measures of logits (n, classes) for images with labels (n,), as plain values.

    `test_loss` is the negative log-likelihood: the mean cross-entropy in nats. There is no `top5_accuracy` for five classes
    or fewer.
    """
    found = evaluate_logits(logits, labels)
    values = found.plain
    if logits.shape[1] > FEW:
        few = Evaluation(int(topk_correct(logits, labels, FEW).sum()), len(labels), found.loss)
        values |= {"top5_accuracy": few.accuracy, "top5_standard_error": few.standard_error}
        values["top5_interval"] = [*few.interval]
    trust = calibration(logits, labels)
    bins = zip(trust.n, trust.confidence, trust.accuracy, strict=True)
    return {
        **values,
        "calibration_error": trust.error,
        "bins": [{"n": n, "confidence": sure, "accuracy": right} for n, sure, right in bins],
        "classes": list(class_names),
        "confusion": confusion(logits, labels).tolist(),
    }

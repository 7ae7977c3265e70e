"""95 % confidence intervals of an accuracy, over test images or over a few trainings, and of the difference between two networks,
with McNemar's test.

Two standard errors would be too narrow an interval: the standard error of an accuracy is 0 if every image is classified correctly,
and an interval over three trainings must be wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float]
"""Lower and upper limit."""

NORMAL = 1.959963984540054
"""Half the width of the 95 % interval of a normal distribution, in standard deviations."""


def wilson(share: float, n: int) -> Interval:
    """Return the interval of a share of `n` independent images (Wilson 1927). Raises ValueError for an impossible share."""
    if not (n >= 1 and 0 <= share <= 1):
        raise ValueError(f"a share of {share} of {n} images is impossible")
    square = NORMAL**2 / n
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)


def mean_of_shares(shares: Sequence[float], sizes: Sequence[int]) -> Interval:
    """Return the interval of the mean share over separate sets of images, such as the classes, from the Wilson intervals of the sets.

    The distances to the limits are added in quadrature and divided by the number of sets (Zou and Donner 2008).
    """
    limits = [wilson(share, size) for share, size in zip(shares, sizes, strict=True)]
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, limits, strict=True)))
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, limits, strict=True)))
    mean = sum(shares) / len(shares)
    return mean - below / len(shares), mean + above / len(shares)


def student(values: Sequence[float]) -> float:
    """Return half the width of the interval of the mean of a few independent values (Student 1908); 0 for a single value."""
    if len(values) < 2:
        return 0.0
    from scipy.special import stdtrit

    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(stdtrit(len(values) - 1, 0.975)) * error


def mean_interval(accuracies: Sequence[float]) -> Interval:
    """Return Student's interval of the mean accuracy of several genotypes, clipped to 0..1."""
    mean, half = float(np.mean(accuracies)), student(accuracies)
    return max(0.0, mean - half), min(1.0, mean + half)


def accuracy_interval(accuracies: Sequence[float], n: int) -> Interval:
    """Return the interval of the mean accuracy of one or several trainings on the same `n` images.

    The result is Wilson's interval over the images. With several trainings, Student's interval over trainings is added in
    quadrature. The sum is slightly too wide, because both intervals include part of the variation between trainings.
    """
    mean, seeds = float(np.mean(accuracies)), student(accuracies)
    low, high = wilson(mean, n)
    return max(0.0, mean - math.hypot(mean - low, seeds)), min(1.0, mean + math.hypot(high - mean, seeds))


def paired_interval(differences: np.ndarray) -> Interval:
    """Return the interval of the mean difference between two networks on the same images, `differences` (seeds, images).

    Two images are added, one that only the first network classifies correctly and one that only the second does (Bonett
    and Price 2012). Without them, the interval would be too narrow if the networks differ on few images. With them, it agrees
    with McNemar's exact test more often than the score interval (Tango 1998) or Newcombe's (1998, method 10), and is narrower
    at the same coverage; docs/decisions.md has the figures. With several seeds, Student's interval over seeds is
    added in quadrature.
    """
    each = np.append(differences.mean(0), [1.0, -1.0])
    over_images = NORMAL * float(each.std()) / math.sqrt(len(each))
    half = math.hypot(over_images, student(differences.mean(1).tolist()))
    return max(-1.0, float(each.mean()) - half), min(1.0, float(each.mean()) + half)


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947); the hypothesis is that two networks are equally good.

    The arguments are the numbers of images that only the first and only the second network classifies correctly. If the
    networks are equally good, each is equally likely to be the correct one on these images. Raises ValueError for a negative
    number.
    """
    from scipy.special import bdtr

    fewer, both = min(first_only, second_only), first_only + second_only
    if fewer < 0:
        raise ValueError(f"{fewer} images are impossible")
    return min(1.0, 2 * float(bdtr(fewer, both, 0.5)))


@dataclass(frozen=True)
class Comparison:
    """Comparison of two networks on the same `n` images.

    `difference` is the accuracy of the first minus that of the second, with its 95 % interval (`paired_interval`), and `p`
    the p-value of McNemar's exact test. `first_only` and `second_only` are the numbers of images that only the first and only
    the second network classifies correctly.
    """

    n: int
    first_only: int
    second_only: int
    difference: float
    interval: Interval
    p: float


def compare(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Compare two networks by the images that they classify correctly, given as boolean masks (n,) in the same order.

    Raises ValueError if the shapes differ or there are no images.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"results on images of shapes {first.shape} and {second.shape} cannot be compared")
    first, second = first.astype(bool), second.astype(bool)
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    interval = paired_interval(first[None].astype(float) - second[None])
    return Comparison(len(first), *alone, (alone[0] - alone[1]) / len(first), interval, mcnemar(*alone))


def percent(share: float, interval: Interval, more: str = "") -> str:
    """Return a share and its interval as text; `more` follows the interval."""
    return f"{100 * share:.2f} % (95 % interval {limits(interval)}{more})"


def limits(interval: Interval) -> str:
    """Return the limits of an interval of shares as text."""
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %"


def mean_in_words(accuracies: Sequence[float]) -> str:
    """Return the mean accuracy of several genotypes, with its interval and the standard deviation, as text."""
    mean = float(np.mean(accuracies))
    if len(accuracies) == 1:
        return f"{100 * mean:.2f} % (a single genotype)"
    deviation = f"standard deviation {100 * float(np.std(accuracies, ddof=1)):.2f} %"
    return percent(mean, mean_interval(accuracies), f", mean of {len(accuracies)} genotypes, {deviation}")

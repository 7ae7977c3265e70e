"""Means with their 95 % intervals, percentiles, and rank correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """A mean over `n` values with its standard error, which is None for a single value.

    `degrees` are the degrees of freedom of the error, by default n - 1.
    """

    value: float
    error: float | None
    n: int
    degrees: float | None = None

    def __str__(self) -> str:
        return self.text()

    def text(self, places: int = 1, sign: bool = False) -> str:
        """Return the mean ± half its 95 % interval, rounded to `places` decimals; `sign` adds a plus sign to positive means."""
        value = f"{self.value:{'+' if sign else ''}.{places}f}"
        return value if self.half is None else f"{value} ± {self.half:.{places}f}"

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval (Student 1908), or None for a single value."""
        from scipy.special import stdtrit

        degrees = self.n - 1 if self.degrees is None else self.degrees
        return None if self.error is None else float(stdtrit(degrees, 0.975)) * self.error

    @property
    def positive(self) -> bool:
        """True if the whole 95 % interval is above 0."""
        return self.half is not None and self.value > self.half

    def minus(self, other: Mean) -> Mean:
        """Return the difference from the mean of independent values; a mean without a standard error counts as a constant.

        The degrees of freedom are those of Welch (1947).
        """
        if self.error is None or not other.error:
            return Mean(self.value - other.value, self.error, self.n, self.degrees)
        parts = [(one.error or 0.0) ** 2 for one in (self, other)]
        degrees = [one.n - 1 if one.degrees is None else one.degrees for one in (self, other)]
        joint = sum(parts) ** 2 / sum(part**2 / each for part, each in zip(parts, degrees, strict=True))
        return Mean(self.value - other.value, float(np.sqrt(sum(parts))), self.n, joint)


def mean(values: Sequence[float]) -> Mean:
    """Return the mean of values and its standard error."""
    n = len(values)
    return Mean(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None, n)


def paired_gain(values: Sequence[float], plain: Sequence[float]) -> Mean:
    """Return the mean of the paired differences `values - plain`."""
    return mean((np.array(values) - np.array(plain)).tolist())


def percentile(value: float, others: np.ndarray) -> float:
    """Return the percentage of `others` (n,) below a value; equal values count half."""
    return float(100 * ((others < value).mean() + (others == value).mean() / 2))


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two arrays of values, (n,) each; equal values share their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)

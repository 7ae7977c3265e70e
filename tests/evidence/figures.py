"""Means with their standard errors, percentiles, and rank correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """A mean over `n` values with its standard error, which is None for a single value."""

    value: float
    error: float | None
    n: int

    def __str__(self) -> str:
        return self.text()

    def text(self, places: int = 1, sign: bool = False) -> str:
        """Return the mean with its standard error, rounded to `places` decimals; `sign` adds a plus sign to positive means."""
        value = f"{self.value:{'+' if sign else ''}.{places}f}"
        return value if self.error is None else f"{value} ± {self.error:.{places}f}"

    @property
    def positive(self) -> bool:
        """True if the mean is above 0 by more than two standard errors."""
        return self.error is not None and self.value > 2 * self.error

    def minus(self, other: Mean) -> Mean:
        """Return the difference from the mean of independent values; a mean without a standard error counts as a constant."""
        error = None if self.error is None else float(np.hypot(self.error, other.error or 0.0))
        return Mean(self.value - other.value, error, self.n)


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

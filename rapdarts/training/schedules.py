"""Schedules as functions of the epoch, without state to save or restore."""

from __future__ import annotations

import math


def cosine(epoch: int, epochs: int, peak: float, floor: float = 0.0) -> float:
    """Learning rate falling from `peak` towards `floor` along half a cosine (Loshchilov and Hutter 2017, Eq. 5)."""
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * epoch / epochs))


def linear(epoch: int, epochs: int, peak: float, floor: float = 0.0) -> float:
    """Learning rate falling linearly from `peak` towards `floor`."""
    return floor + (peak - floor) * (1 - epoch / epochs)


SCHEDULES = {"cosine": cosine, "linear": linear}
"""Learning rate schedules, by their names in `retrain.schedule`."""


def warmup(epoch: int, epochs: int) -> float:
    """Factor of the learning rate, rising linearly to 1 over the first `epochs` epochs (Goyal et al. 2017, section 2.2)."""
    return min(1.0, (epoch + 1) / epochs) if epochs else 1.0


def skip_dropout(epoch: int, epochs: int, warmup_epochs: int, rate: float) -> float:
    """Dropout rate after skips: linear decay during the warm-up, exponential decay afterwards (code of Chen et al. 2019)."""
    if epoch < warmup_epochs:
        return rate * (epochs - epoch - 1) / epochs
    return rate * math.exp(-0.2 * (epoch - warmup_epochs))


def drop_path(epoch: int, epochs: int, rate: float) -> float:
    """Drop path rate, rising linearly from 0 towards `rate` (Zoph et al. 2018, appendix A.4)."""
    return rate * epoch / epochs

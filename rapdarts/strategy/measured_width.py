"""The widest network that fits a budget on latency, which has to be measured anew at every width."""

from __future__ import annotations

import math
from collections.abc import Callable

from rapdarts.strategy.smaller_skeletons import NARROWEST

MOST_WIDTHS = 6
"""Largest number of widths that are measured."""
START, NEAR = 16, 64
"""Number of channels that is measured first, unless other budgets bound the width to at most NEAR channels."""
ENOUGH = 0.97
"""Used share of the budget above which a wider network is not looked for; the error of a latency table is about as large."""


def first_width(top: int | None) -> int:
    """Return the width that is measured first; `top` is the largest width within the other budgets, None if there are none."""
    return START if top is None or top > NEAR else top


def widest_measured(used: Callable[[int], float], top: int | None) -> int:
    """Return the largest of a few widths, each at most `top`, at which the average cell fits; NARROWEST if it fits at none.

    `used` measures a width, and returns the share of the budget that the average cell uses. It is called at most MOST_WIDTHS times,
    once for each width, and always for the width that is returned. Between two widths, latency is interpolated as a power of the
    width.
    """
    shares: dict[int, float] = {}
    low, high = NARROWEST - 1, math.inf if top is None else top + 1
    width = first_width(top)
    while True:
        shares[width] = share = used(width)
        low, high = (width, high) if share <= 1 else (low, width)
        if ENOUGH <= share <= 1 or high - low <= 1 or len(shares) == MOST_WIDTHS:
            return max(low, NARROWEST)
        last_chance = low not in shares and len(shares) == MOST_WIDTHS - 1
        width = NARROWEST if last_chance else round(min(max(_next(low, high, shares), low + 1), high - 1))


def _next(low: int, high: float, shares: dict[int, float]) -> int:
    """Return the width to measure next, between the widest that fits and the narrowest that does not; either may not be known yet."""
    if low not in shares:
        share = shares[round(high)]
        return math.floor(high / max(2.0, share if math.isfinite(share) else 0.0))
    if high not in shares:
        reserve = 1 / shares[low]  # the square root does not overshoot, because latency grows at most quadratically
        return math.floor(low * max(2.0, min(reserve, 4.0), math.sqrt(reserve)))
    wider = round(high)
    growth = math.log(shares[wider] / shares[low]) / math.log(wider / low)
    if not 0 < growth < math.inf:
        return round(math.sqrt(low * wider))
    return math.floor(low * (1 / shares[low]) ** (1 / growth))

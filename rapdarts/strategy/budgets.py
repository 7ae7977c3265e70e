"""Budgets on a price table: as the arrays that strategies work on, whether they can be met, and how wide a network they allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import SearchConfig, budget_limits
from rapdarts.cost.count import COUNTED
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import uniform_mixing
from rapdarts.cost.prices import prices
from rapdarts.errors import InputError
from rapdarts.strategy.exact import Budgets, Infeasible, discretize_exactly, feasible

MOST_CHANNELS = 65_536


def budgets_on(table: PriceTable, limits: Mapping[str, float]) -> Budgets | None:
    """The budgets as the plain arrays that a strategy works on; None where there are none."""
    if not limits:
        return None
    if "latency" in limits and "latency" not in table.resources:
        raise InputError("a budget on latency needs a table that rapdarts measure writes; name it with latency=FILE.")
    rows = [table.row(name) for name in limits]
    # What is not counted in whole numbers is a sum whose last digit depends on its order: it stays below by more than that.
    tops = [limit if name in COUNTED else limit * (1 - 1e-12) for name, limit in limits.items()]
    return Budgets(tuple(limits), table.fixed[rows], table.prices[rows], np.array(tops))


def skip_cap(settings: SearchConfig) -> int | None:
    """The most skips in the normal cell; None where the rule has no cap."""
    return None if settings.rule == "darts" else settings.max_skips


def check_budgets(settings: SearchConfig, table: PriceTable) -> None:
    """Raises InputError where no genotype meets the budgets at a table's skeleton: how far off they are, and what would fit."""
    limits, cap, space, skeleton = budget_limits(settings.budget), skip_cap(settings), table.space, table.skeleton
    try:
        discretize_exactly(space, uniform_mixing(space.mask).weights.numpy(), budgets_on(table, limits), cap)
    except Infeasible as error:
        if not error.floors:  # it is the cap on skips that cannot be met
            raise
        # Time was measured at this skeleton only: what would fit is what the other budgets leave.
        counted = {name: limit for name, limit in limits.items() if name != "latency"}
        if counted != limits and feasible(space, budgets_on(table, counted), cap):
            raise

        def fits(smaller: Skeleton) -> bool:
            there = prices(replace(settings, latency=""), space, smaller)
            return feasible(space, budgets_on(there, counted), cap)

        sizes = {
            "channels": largest(lambda channels: fits(replace(skeleton, channels=channels)), 2, skeleton.channels - 1),
            "layers": largest(
                lambda layers: fits(replace(skeleton, layers=layers)), space.fewest_layers, skeleton.layers - 1
            ),
        }
        would = " or ".join(f"skeleton.{name}={size}" for name, size in sizes.items() if size)
        remedy = f"raise the budget, or take {would}" if would else "raise the budget; no smaller network fits either"
        raise InputError(f"{str(error).rstrip('.')}; {remedy}.") from None


def widest(settings: SearchConfig, space: SearchSpace, skeleton: Skeleton) -> int:
    """The most channels at which the mean network of the space, that of uniform mixing, is within every budget; 2 if none are.

    At the width where only the cheapest cell fits there would be nothing left to search.
    """
    limits, mixture = budget_limits(settings.budget), uniform_mixing(space.mask)

    def fits(channels: int) -> bool:
        table = prices(settings, space, replace(skeleton, channels=channels))
        mean = dict(zip(table.resources, table.expected(mixture).tolist(), strict=True))
        within = all(mean[name] <= limit for name, limit in limits.items())
        return within and feasible(space, budgets_on(table, limits), skip_cap(settings))

    if settings.latency:
        raise InputError(
            "skeleton.channels=auto cannot be priced by a latency table, which holds for one width; give a number."
        )
    return largest(fits, 2, MOST_CHANNELS) or 2


def largest(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest number from `low` to `high` that fits, where all smaller ones do; None if not even `low` does."""
    if high < low or not fits(low):
        return None
    step = low
    while low + step <= high and fits(low + step):
        low, step = low + step, 2 * step
    over = min(low + step, high + 1)
    while over - low > 1:
        middle = (low + over) // 2
        low, over = (middle, over) if fits(middle) else (low, middle)
    return low

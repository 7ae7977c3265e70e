"""Budgets on a price table: as the arrays that strategies work on, how much of one is used, and how wide a network they allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from rapdarts.architecture.genotype import one_hot
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import SearchConfig
from rapdarts.config.resources import within as within_limits
from rapdarts.cost.count import COUNTED
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import uniform_mixing
from rapdarts.cost.prices import prices
from rapdarts.errors import InputError
from rapdarts.strategy.exact import Budgets, Infeasible, discretize_exactly, exists, feasible
from rapdarts.strategy.rule import Rule, rule_of

MOST_CHANNELS = 65_536


def budgets_on(
    table: PriceTable, limits: Mapping[str, float], floors: Mapping[str, float] | None = None
) -> Budgets | None:
    """Return upper bounds, and lower ones for some, as the plain arrays that a strategy works on; None where there are none."""
    if not limits:
        return None
    if "latency" in limits and "latency" not in table.resources:
        raise InputError("a budget on latency needs a table that rapdarts measure writes; name it with latency=FILE.")
    rows = [table.row(name) for name in limits]
    # What is not counted in whole numbers is a sum whose last digit depends on its order: it stays below by more than that.
    tops = [limit if name in COUNTED else limit * (1 - 1e-12) for name, limit in limits.items()]
    lows = np.array([(floors or {}).get(name, -np.inf) for name in limits])
    return Budgets(tuple(limits), table.fixed[rows], table.prices[rows], np.array(tops), lows)


STEP = 0.05
"""How much less of a budget is asked for at a time where no genotype uses the share asked for."""


def spent(space: SearchSpace, weights: np.ndarray, budgets: Budgets | None, rule: Rule) -> tuple[Budgets | None, str]:
    """Return the budgets with a lower bound on the one that binds first, and a remark where less of it is asked for than `rule` does.

    The budget that binds first is the one of which the strongest genotype by mixing `weights` (kinds, edges,
    primitives) uses the largest share, of those that any genotype within the others exceeds. All candidates that there
    were count here: those that are left after a stage may cost less because of the budget. If none exceeds any, there
    is no lower bound. Raises Infeasible if no genotype is within the budgets.
    """
    if budgets is None or not rule.spend:
        return budgets, ""
    strongest = one_hot(space, discretize_exactly(space, weights, budgets, rule.max_skips)[0].genotype)
    costs = budgets.costs(strongest)
    by_share = sorted(rule.spend, key=lambda name: -costs[name] / rule.limits[name])
    name = next((name for name in by_share if _can_bind(space, budgets, name, rule)), None)
    if name is None:
        asked_of = within_limits({name: rule.limits[name] for name in by_share})
        return budgets, f"even the most expensive cell has {asked_of}: there is no lower bound (search.spend)."
    share, asked, limit = rule.spend[name], rule.spend[name], rule.limits[name]
    while not (within := _using(share, budgets, name, limit)).met_by(strongest):
        if exists(space, within, rule.max_skips):
            break
        share = max(round(share - STEP, 10), 0.0)
    if share == asked:
        return within, ""
    return (
        within,
        f"no cell was found that uses at least {100 * asked:.0f} % of the budget on {name}; the lower bound is now"
        f" {100 * share:.0f} %.",
    )


def _can_bind(space: SearchSpace, budgets: Budgets, name: str, rule: Rule) -> bool:
    """Return whether a genotype within the other budgets may exceed one, with any skip-only paths.

    The most expensive genotype itself may take minutes to find; whether any is over the budget does not.
    """
    limit = rule.limits[name]
    over = np.floor(limit) + 1 if name in COUNTED else limit * (1 + 1e-6)
    unbounded = replace(budgets, bounds=np.where(np.array(budgets.names) == name, np.inf, budgets.bounds))
    anything = replace(space, candidates=(), skip_paths="any")
    found = exists(anything, unbounded.with_floor(name, over), rule.max_skips)
    return found is not False


def _using(share: float, budgets: Budgets, name: str, limit: float) -> Budgets:
    """The budgets, of one of which at least a share is used; the least whole number that is so where the resource is counted."""
    floor = share * limit
    return budgets.with_floor(name, np.ceil(round(floor, 6)) if name in COUNTED else floor)


def check_budgets(settings: SearchConfig, table: PriceTable) -> None:
    """Raises InputError where no genotype meets the budgets at a table's skeleton: how far off they are, and what would fit."""
    space, skeleton = table.space, table.skeleton
    rule = rule_of(settings, space)
    limits, cap = rule.limits, rule.max_skips
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
    rule, mixture = rule_of(settings, space), uniform_mixing(space.mask)

    def fits(channels: int) -> bool:
        table = prices(settings, space, replace(skeleton, channels=channels))
        mean = dict(zip(table.resources, table.expected(mixture).tolist(), strict=True))
        within = all(mean[name] <= limit for name, limit in rule.limits.items())
        return within and feasible(space, budgets_on(table, rule.limits), rule.max_skips)

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

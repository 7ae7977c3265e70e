"""Budgets with the prices of a table, lower bounds on their use, and the widest network that meets them."""

from __future__ import annotations

from collections.abc import Mapping
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
from rapdarts.strategy.smaller_skeletons import largest, remedy

MOST_CHANNELS = 65_536


def budgets_on(
    table: PriceTable, limits: Mapping[str, float], floors: Mapping[str, float] | None = None
) -> Budgets | None:
    """Return budgets with `limits` as upper bounds, `floors` as lower bounds and prices from `table`; None if there are no limits.

    Raises InputError for a budget on latency without a latency table.
    """
    if not limits:
        return None
    if "latency" in limits and "latency" not in table.resources:
        raise InputError("a budget on latency needs a table from rapdarts measure; pass it with latency=FILE.")
    rows = [table.row(name) for name in limits]
    # The rounding error of a sum of fractions depends on the order of its terms; these limits are lowered by more than this error.
    tops = [limit if name in table.whole else limit * (1 - 1e-12) for name, limit in limits.items()]
    lows = np.array([(floors or {}).get(name, -np.inf) for name in limits])
    return Budgets(tuple(limits), table.fixed[rows], table.prices[rows], np.array(tops), lows)


STEP = 0.05
"""Step by which the required share of a budget is lowered until a genotype is found that uses at least this share."""


def spent(space: SearchSpace, weights: np.ndarray, budgets: Budgets | None, rule: Rule) -> tuple[Budgets | None, str]:
    """Return the budgets with a lower bound on the one that binds first, and a remark if the bound is below the share in `rule`.

    A budget can bind if some genotype within the other budgets exceeds it. The first of these budgets to bind is the one with
    the largest share used by the strongest genotype, according to the mixing `weights` (kinds, edges, primitives). If no
    budget can bind, there is no lower bound. Whether a budget can bind is checked with all candidates, because those left
    after a stage may be cheap only due to the budget. Raises Infeasible if no genotype is within the budgets.
    """
    if budgets is None or not rule.spend:
        return budgets, ""
    strongest = one_hot(space, discretize_exactly(space, weights, budgets, rule.max_skips)[0].genotype)
    costs = budgets.costs(strongest)
    by_share = sorted(rule.spend, key=lambda name: -costs[name] / rule.limits[name])
    name = next((name for name in by_share if _can_bind(space, budgets, name, rule)), None)
    if name is None:
        asked_of = within_limits({name: rule.limits[name] for name in by_share})
        return budgets, f"even the most expensive cell meets {asked_of}, so there is no lower bound (search.spend)."
    share, asked, limit = rule.spend[name], rule.spend[name], rule.limits[name]
    while not (within := _using(share, budgets, name, limit)).met_by(strongest):
        if exists(space, within, rule.max_skips):
            break
        share = max(round(share - STEP, 10), 0.0)
    if share == asked:
        return within, ""
    return (
        within,
        f"no cell was found that uses at least {100 * asked:.0f} % of the {name} budget; the lower bound is now"
        f" {100 * share:.0f} %.",
    )


def _can_bind(space: SearchSpace, budgets: Budgets, name: str, rule: Rule) -> bool:
    """Return whether a genotype within the other budgets may exceed the budget `name`, regardless of its skip-only paths.

    The check looks for any genotype over the budget, because finding the most expensive genotype may take minutes.
    """
    limit = rule.limits[name]
    over = np.floor(limit) + 1 if name in COUNTED else limit * (1 + 1e-6)
    unbounded = replace(budgets, bounds=np.where(np.array(budgets.names) == name, np.inf, budgets.bounds))
    anything = replace(space, candidates=(), skip_paths="any")
    found = exists(anything, unbounded.with_floor(name, over), rule.max_skips)
    return found is not False


def _using(share: float, budgets: Budgets, name: str, limit: float) -> Budgets:
    """Return the budgets with `share` of the limit as a lower bound on `name`, rounded up to an integer for a counted resource."""
    floor = share * limit
    return budgets.with_floor(name, np.ceil(round(floor, 6)) if name in COUNTED else floor)


def check_budgets(settings: SearchConfig, table: PriceTable) -> None:
    """Raise InputError if no genotype meets the budgets at the table's skeleton.

    The message gives the cost of the cheapest genotype and the smallest changes to the skeleton that would suffice.
    """
    space, skeleton = table.space, table.skeleton
    rule = rule_of(settings, space)
    limits, cap = rule.limits, rule.max_skips
    try:
        discretize_exactly(space, uniform_mixing(space.mask).weights.numpy(), budgets_on(table, limits), cap)
    except Infeasible as error:
        if not error.floors:  # the cap on skips cannot be met, even without budgets
            raise
        # Latency was measured at this skeleton only, so smaller skeletons are checked against the other budgets.
        counted = {name: limit for name, limit in limits.items() if name != "latency"}
        if counted != limits and feasible(space, budgets_on(table, counted), cap):
            raise

        def fits(smaller: Skeleton) -> bool:
            there = prices(replace(settings, latency=""), space, smaller)
            return feasible(space, budgets_on(there, counted), cap)

        raise InputError(f"{str(error).rstrip('.')}; {remedy(skeleton, space, fits)}.") from None


def widest(settings: SearchConfig, space: SearchSpace, skeleton: Skeleton) -> int:
    """Return the largest number of channels for which the space's mean network (uniform mixing) meets every budget, but at least 2.

    The cheapest cell would allow a larger width, but would leave the search no choice.
    Raises InputError if the settings have a latency table.
    """
    rule = rule_of(settings, space)

    def fits(channels: int) -> bool:
        return fits_on_average(prices(settings, space, replace(skeleton, channels=channels)), rule)

    if settings.latency:
        raise InputError(
            "skeleton.channels=auto cannot be used with a latency table, which is valid for only one width; set a number, such as"
            " skeleton.channels=16."
        )
    return largest(fits, 2, MOST_CHANNELS) or 2


def fits_on_average(table: PriceTable, rule: Rule) -> bool:
    """Return whether the mean network of the table's space (uniform mixing) meets every budget, and some genotype all of them."""
    mean = average_costs(table)
    within = all(mean[name] <= limit for name, limit in rule.limits.items())
    return within and feasible(table.space, budgets_on(table, rule.limits), rule.max_skips)


def average_costs(table: PriceTable) -> dict[str, float]:
    """Return the costs of the mean network of the table's space (uniform mixing), by resource."""
    costs = table.expected(uniform_mixing(table.space.mask)).tolist()
    return dict(zip(table.resources, costs, strict=True))

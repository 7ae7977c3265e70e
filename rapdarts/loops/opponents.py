"""The opponents in a proof of `rapdarts find`: random cells of the same cost, and a reference network of the same cost."""

from __future__ import annotations

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import Experiment, budget_limits
from rapdarts.cost.count import resources
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.own_resources import own_counters
from rapdarts.cost.prices import read_hardware
from rapdarts.data.dataset import DataSet
from rapdarts.data.randomness import key
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.scaled_reference import scaled_to
from rapdarts.errors import InputError, plural
from rapdarts.loops.random_baseline import conditions, distinct_genotypes
from rapdarts.strategy.exact import Budgets
from rapdarts.strategy.rule import bounds_in_words, rule_of

REFERENCE = "resnet20"
"""Reference network of a proof, scaled in width to the budget."""


def reference_opponent(config: Experiment, space: SearchSpace, data: DataSet) -> tuple[ReferenceBlueprint, str]:
    """Return the reference network of a proof, as wide as the budgets allow, and a remark on budgets that do not apply to it.

    Its costs are counted like those of the cells. Raises InputError if no width meets the budgets.
    """
    search = config.search
    counters = {**resources(search.precision, read_hardware(search.hardware)), **own_counters(space)}
    try:
        return scaled_to(REFERENCE, data.image, data.classes, budget_limits(search.budget), counters)
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}, or leave out find.proof.") from None


def random_opponents(config: Experiment, space: SearchSpace, within: Budgets | None, count: int) -> list[Genotype]:
    """Draw the first `count` random cells within cost bounds; there may be fewer.

    Both the plan and the proof draw them here: equal arguments give equal cells, and a smaller `count` gives the first of them.
    """
    rule = rule_of(config.search, space)
    return distinct_genotypes(space, count, key(config.seed, "random genotypes"), within, rule.max_skips)


def planned_bounds(config: Experiment, space: SearchSpace, table: PriceTable) -> Budgets | None:
    """Return the cost bounds for which random cells are planned. The derived cell usually has the same bounds.

    Its lower bound may differ if there are several budgets, or if the candidates that are left after a search do not reach it.
    """
    budgets, _ = conditions(space, table, rule_of(config.search, space), 0.0, 0.0)
    return budgets


def differences_from_plan(
    config: Experiment, space: SearchSpace, table: PriceTable, within: Budgets | None, drawn: int, planned: int
) -> list[str]:
    """Return remarks for a proof with other random cells than planned: on their cost bounds `within`, and on their number `drawn`."""
    rule, remarks = rule_of(config.search, space), []
    ours, expected = (bounds_in_words(rule, one) for one in (within, planned_bounds(config, space, table)))
    if ours != expected:
        remarks.append(
            f"the random cells have the cost bounds of the derived cell ({ours.strip(', ')}), which differ from those of the plan"
            f" ({expected.strip(', ')})"
        )
    if drawn < planned:
        remarks.append(
            f"{plural(drawn, 'random cell')} instead of {planned} meet these bounds, so they get less compute than the search"
        )
    return remarks

"""The rule by which a genotype is derived: which one, and what its genotype must meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import SearchConfig, budget_limits
from rapdarts.config.resources import show
from rapdarts.errors import InputError
from rapdarts.strategy.exact import Budgets

SPEND = 0.9
"""Default share of a budget that a genotype uses at least."""


@dataclass(frozen=True)
class Rule:
    """How a genotype is derived from mixing weights.

    `name` is pdarts, darts or exact. `max_skips` caps the skips of the normal cell (None: no cap). `limits` are the
    budgets by resource; `spend` is the share, above 0 and at most 1, of a resource's budget that must be used, for the
    resources that may be held to it.
    """

    name: str
    max_skips: int | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    spend: Mapping[str, float] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """True if the best genotype of all that meet the limits is taken; always so with budgets."""
        return self.name == "exact" or bool(self.limits)


def rule_of(settings: SearchConfig, space: SearchSpace) -> Rule:
    """Return the rule that a search's settings describe in a space.

    `rule=auto` is `exact` where there is a budget, else the rule of the strategy's authors: only `rule=darts` lifts the
    cap on skips where there are budgets.
    """
    limits, name = budget_limits(settings.budget), rule_name(settings)
    cap = space.max_skips if settings.max_skips < 0 else settings.max_skips
    return Rule(name, None if name == "darts" else cap, limits, spending(settings, limits))


def derivable(settings: SearchConfig, space: SearchSpace) -> SearchSpace:
    """Return the space as a search with such settings derives from it: edges without anything, and paths of skips alone.

    Only the rule `exact`, and `pdarts` with a budget, can keep a condition on paths. Raises InputError where it is asked
    for beside another rule, or where the space cannot have it.
    """
    rule, asked = rule_of(settings, space), settings.skip_paths
    exact = rule.exact and rule.name != "darts"
    if asked == "one" and not exact:
        raise InputError("search.skip_paths=one is kept by the rule exact only; add rule=exact.")
    return space.deriving_none(settings.derive_none).with_skip_paths(asked if exact else "any")


def rule_name(settings: SearchConfig) -> str:
    """Return the name of the rule, which `rule=auto` leaves to the budgets and the strategy."""
    if settings.rule != "auto":
        return settings.rule
    return "exact" if budget_limits(settings.budget) else "darts" if settings.strategy == "darts" else "pdarts"


def spending(settings: SearchConfig, limits: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each budget that may have to be used, by resource.

    By default none of a budget on latency, which is measured with an error, and none of a resource that has a
    coefficient: whoever prices it wants it cheap.
    """
    if settings.spend >= 0:
        return {name: settings.spend for name in limits if settings.spend > 0}
    return {name: SPEND for name in limits if name != "latency" and getattr(settings.cost, name) == 0}


def words_of(rule: Rule, space: SearchSpace, budgets: Budgets | None) -> str:
    """Return a rule in words, with the lower bound that `budgets` may have."""
    cap = cap_in_words(rule)
    if rule.exact:
        path = ", one path of skips alone from input to output" if space.skip_paths == "one" else ""
        return f"the cells of the largest product of mixing weights{bounds_in_words(rule, budgets)}{cap}{path}"
    but_none = "" if space.derive_none else " but none"
    return f"on each edge the strongest primitive{but_none}, each node's strongest edges{cap or ', no cap on skips'}"


def cap_in_words(rule: Rule) -> str:
    """Return the cap on skips in words after a comma, nothing where there is none."""
    if rule.max_skips is None:
        return ""
    return f", at most {rule.max_skips} skip{'' if rule.max_skips == 1 else 's'} in the normal cell"


def bounds_in_words(rule: Rule, budgets: Budgets | None) -> str:
    """Return the bounds that genotypes keep in words, each after a comma."""
    bounds = ""
    for row, (name, limit) in enumerate(rule.limits.items()):
        floor = -math.inf if budgets is None else budgets.floors[row]
        least = f"at least {show(floor, name)} and " if floor > -math.inf else ""
        bounds += f", {name} {least}at most {show(limit, name)}"
    return bounds

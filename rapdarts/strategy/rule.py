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
from rapdarts.strategy.paths import ONE_SKIP_PATH

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
    """Return the space as a search with such settings derives from it: edges without anything, and skip-only paths.

    By a rule that cannot keep a condition on paths there is none. Raises InputError where the space cannot have it.
    """
    asked = settings.skip_paths if keeps_paths(rule_of(settings, space)) else "any"
    return space.deriving_none(settings.derive_none).with_skip_paths(asked)


def keeps_paths(rule: Rule) -> bool:
    """Return whether a rule can keep a condition on skip-only paths; `darts` keeps none, as it has no cap on skips."""
    return rule.exact and rule.name != "darts"


def check_skip_paths(settings: SearchConfig, space: SearchSpace) -> None:
    """Raise InputError for one skip-only path beside a rule that cannot keep it."""
    if settings.skip_paths == "one" and not keeps_paths(rule_of(settings, space)):
        raise InputError("skip_paths=one needs the rule exact; add rule=exact, or leave skip_paths out.")


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
    cap = cap_in_words(rule, space)
    if rule.exact:
        return f"the cells of the largest product of mixing weights{bounds_in_words(rule, budgets)}{cap}"
    but_none = "" if space.derive_none else " but none"
    return f"on each edge the strongest primitive{but_none}, each node's strongest edges{cap or ', no cap on skips'}"


def cap_in_words(rule: Rule, space: SearchSpace) -> str:
    """Return what a rule asks of skips in words, each after a comma; nothing where it asks nothing."""
    cap = rule.max_skips
    skips = "" if cap is None else f", at most {cap} skip{'' if cap == 1 else 's'} in the normal cell"
    one = rule.exact and space.skip_paths == "one"
    return f"{skips}{f', {ONE_SKIP_PATH}' if one else ''}"


def bounds_in_words(rule: Rule, budgets: Budgets | None) -> str:
    """Return the bounds that genotypes keep in words, each after a comma."""
    bounds = ""
    for row, (name, limit) in enumerate(rule.limits.items()):
        floor = -math.inf if budgets is None else budgets.floors[row]
        least = f"at least {show(floor, name)} and " if floor > -math.inf else ""
        bounds += f", {name} {least}at most {show(limit, name)}"
    return bounds

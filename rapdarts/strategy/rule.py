"""The rule that derives a genotype, and the conditions that the genotype must meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import SearchConfig, budget_limits
from rapdarts.config.resources import show
from rapdarts.errors import InputError, plural
from rapdarts.strategy.exact import Budgets
from rapdarts.strategy.paths import ONE_SKIP_PATH

SPEND = 0.9
"""Default for the smallest share of a budget that a genotype must use."""


@dataclass(frozen=True)
class Rule:
    """A rule that derives a genotype from mixing weights.

    `name` is pdarts, darts or exact. `max_skips` caps the skips of the normal cell (None: no cap). `limits` maps
    resources to their budgets. `spend` maps each resource that may have a lower bound to the share of its budget that must be
    used, above 0 and at most 1.
    """

    name: str
    max_skips: int | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    spend: Mapping[str, float] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """True if the rule derives the best of all genotypes that meet the limits. Always true if there are budgets."""
        return self.name == "exact" or bool(self.limits)


def rule_of(settings: SearchConfig, space: SearchSpace) -> Rule:
    """Return the rule that the settings of a search define for a space.

    With `rule=auto`, the rule is `exact` if there is a budget; otherwise, it is the rule in the paper on the strategy. With
    budgets, only `rule=darts` removes the cap on skips.
    """
    limits, name = budget_limits(settings.budget), rule_name(settings)
    cap = space.max_skips if settings.max_skips < 0 else settings.max_skips
    return Rule(name, None if name == "darts" else cap, limits, spending(settings, limits))


def derivable(settings: SearchConfig, space: SearchSpace) -> SearchSpace:
    """Return the space with the settings `derive_none` and `skip_paths` of a search applied.

    If the rule cannot enforce a condition on skip-only paths, the space has none. Raises InputError if the space does not
    support the condition.
    """
    asked = settings.skip_paths if keeps_paths(rule_of(settings, space)) else "any"
    return space.deriving_none(settings.derive_none).with_skip_paths(asked)


def keeps_paths(rule: Rule) -> bool:
    """Return whether a rule can enforce a condition on skip-only paths; `darts` has neither such a condition nor a cap on skips."""
    return rule.exact and rule.name != "darts"


def check_skip_paths(settings: SearchConfig, space: SearchSpace) -> None:
    """Raise InputError for skip_paths=one with a rule that cannot enforce it."""
    if settings.skip_paths == "one" and not keeps_paths(rule_of(settings, space)):
        raise InputError("skip_paths=one needs rule=exact; add rule=exact, or leave out skip_paths.")


def rule_name(settings: SearchConfig) -> str:
    """Return the name of the rule; for `rule=auto`, it depends on the budgets and the strategy."""
    if settings.rule != "auto":
        return settings.rule
    return "exact" if budget_limits(settings.budget) else "darts" if settings.strategy == "darts" else "pdarts"


def spending(settings: SearchConfig, limits: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each budget that must be used if the budget binds, by resource.

    The default excludes latency, because its measurement has an error, and resources with a price in `settings.cost`,
    because their cost is meant to be low.
    """
    if settings.spend >= 0:
        return {name: settings.spend for name in limits if settings.spend > 0}
    return {name: SPEND for name in limits if name != "latency" and getattr(settings.cost, name) == 0}


def words_of(rule: Rule, space: SearchSpace, budgets: Budgets | None) -> str:
    """Return a description of a rule, including the lower bound if `budgets` has one."""
    cap = cap_in_words(rule, space)
    if rule.exact:
        return f"the cells with the largest product of mixing weights{bounds_in_words(rule, budgets)}{cap}"
    primitive = "the strongest primitive" if space.derive_none else "the strongest primitive except none"
    return f"{primitive} on each edge, the strongest edges of each node{cap or ', no cap on skips'}"


def cap_in_words(rule: Rule, space: SearchSpace) -> str:
    """Return a rule's conditions on skips as text, with a comma before each, or "" if there are none."""
    cap = rule.max_skips
    skips = "" if cap is None else f", at most {plural(cap, 'skip')} in the normal cell"
    one = rule.exact and space.skip_paths == "one"
    return f"{skips}{f', {ONE_SKIP_PATH}' if one else ''}"


def bounds_in_words(rule: Rule, budgets: Budgets | None) -> str:
    """Return the bounds on the costs of a genotype as text, with a comma before each."""
    bounds = ""
    for row, (name, limit) in enumerate(rule.limits.items()):
        floor = -math.inf if budgets is None else budgets.floors[row]
        least = f"at least {show(floor, name)} and " if floor > -math.inf else ""
        bounds += f", {name} {least}at most {show(limit, name)}"
    return bounds

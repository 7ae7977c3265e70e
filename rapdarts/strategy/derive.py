"""Derivation of a genotype and its exact costs from mixing weights, at the end of a search and in `rapdarts derive`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rapdarts.architecture.genotype import Genotype, one_hot
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.resources import costs_line, in_words, used_line, within
from rapdarts.cost.count import COUNTERS, count_derived
from rapdarts.cost.expected import PriceTable
from rapdarts.errors import InputError
from rapdarts.interruptions import during
from rapdarts.strategy.agreement import Agreement, agreement, entropy, margin
from rapdarts.strategy.budgets import budgets_on, spent
from rapdarts.strategy.discretize import Candidate, candidates, discretize, score
from rapdarts.strategy.exact import (
    Budgets,
    Infeasible,
    cheapest,
    conditions_in_words,
    discretize_exactly,
)
from rapdarts.strategy.paths import connected
from rapdarts.strategy.replicas import mean_weights
from rapdarts.strategy.rule import Rule, words_of


@dataclass(frozen=True, repr=False)
class Derivation:
    """A derived genotype with its exact costs at the skeleton, the other candidates, and a description of the rule.

    With the rule `exact`, `candidates` holds the best genotypes, best first. With other rules, it holds the genotypes for
    all caps on skips, the loosest cap first. `budgets` maps resources to their upper bounds, and `within` also includes the
    lower bound. `remark` explains a lower bound that is below the requested share. `entropy` and `margin` describe the mixing
    weights. `builds` is the space with the primitives of the derived network. With several replicas, `agreement` is their
    agreement, and `epochs` is the number of epochs per stage of the search.
    """

    genotype: Genotype
    skeleton: Skeleton
    candidates: list[Candidate]
    rule: str
    budgets: Mapping[str, float]
    within: Budgets | None
    remark: str
    entropy: float
    margin: float
    builds: SearchSpace
    agreement: Agreement | None = None
    epochs: int = 0

    def candidates_json(self) -> list[dict[str, Any]]:
        """Return the candidates as plain values, for candidates.json."""
        return [
            {
                "max_skips": candidate.max_skips,
                "chosen": candidate.genotype.cells == self.genotype.cells,
                "score": candidate.score if np.isfinite(candidate.score) else None,
                "costs": dict(candidate.genotype.costs),
                "genotype": json.loads(candidate.genotype.to_json()),
            }
            for candidate in self.candidates
        ]

    def best_first(self) -> list[dict[str, Any]]:
        """Return the chosen candidate, then the others by score; candidates without a score (a weight of 0) come last."""
        return best_first(self.candidates_json())

    def describe(self, count: int = 1) -> str:
        """Return a report with the rule, the `count` best candidates with their costs, the share used of each budget, and the remarks.

        The peak memory, which takes longer to count than the other costs, is included for the derived genotype only.
        """
        lines = [f"rule: {self.rule}", self.genotype.line, costs_line(self.costs | self._peak_memory)]
        if count > 1:
            lines[1] = f"1. score {self.candidates[0].score:.4f}: {lines[1]}"
            lines[2] = f"   {lines[2]}"
        for number, other in enumerate(self.candidates[1:count], 2):
            lines.append(
                f"{number}. score {other.score:.4f}: {other.genotype.line}\n   {costs_line(other.genotype.costs)}"
            )
        lines += [used_line(name, share, self.budgets[name]) for name, share in self.used.items()]
        return "\n".join([*lines, *self.remarks])

    @property
    def remarks(self) -> list[str]:
        """Remarks for the user, as sentences: on a lower bound that was not met, and on the agreement of the replicas."""
        agreement = self.agreement.words(self.epochs) if self.agreement else ""
        return [*filter(None, [self.remark, agreement])]

    @cached_property
    def _peak_memory(self) -> dict[str, float]:
        return count_derived(self.genotype, self.builds, self.skeleton, {"peak_memory": COUNTERS["peak_memory"]})

    def __repr__(self) -> str:
        return self.describe()

    @property
    def costs(self) -> dict[str, float]:
        """Cost of the derived network in each additive resource."""
        return dict(self.genotype.costs)

    @property
    def used(self) -> dict[str, float]:
        """Share of each budget that the genotype uses, 0 to 1."""
        return {name: self.genotype.costs[name] / budget for name, budget in self.budgets.items()}


def best_first(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the chosen candidate, then the others by score; candidates without a score (a weight of 0) come last."""
    return sorted(candidates, key=lambda one: (not one["chosen"], one["score"] is None, -(one["score"] or 0)))


def derive(
    space: SearchSpace,
    weights: np.ndarray,
    table: PriceTable,
    rule: Rule,
    provenance: Mapping[str, Any],
    count: int = 1,
) -> Derivation:
    """Derive a genotype by `rule` from the mixing `weights` (kinds, edges, primitives), with all candidates and exact costs.

    The rule `exact` is used if there are budgets, if `count` is above 1, or if the given rule would leave an output
    without a path from the inputs. Raises DivergedError if a weight is not finite, InputError if no
    cell meets the cap on skips, and Infeasible if no genotype is within the budgets.
    """
    exact = rule.exact or count > 1
    if not exact:
        strongest = discretize(space, weights, rule.max_skips)
        exact = not connected(space, one_hot(space, strongest) > 0)
    rule = replace(rule, name="exact") if exact else rule
    budgets, remark = spent(space, weights, budgets_on(table, rule.limits), rule)
    words = words_of(rule, space, budgets)

    def complete(candidate: Candidate) -> Candidate:
        genotype = candidate.genotype
        facts = {**provenance, "rule": words}
        genotype = replace(genotype, skeleton=table.skeleton, costs=table.exact(genotype), provenance=facts)
        return replace(candidate, genotype=genotype)

    if exact:
        found = discretize_exactly(space, weights, budgets, rule.max_skips, count)
        chosen, few = found[0], len(found) < count
        only = f"only {len(found)} genotype{' meets' if len(found) == 1 else 's meet'} these conditions." if few else ""
        remark = " ".join(filter(None, [remark, only]))
    else:
        found = [one for one in candidates(space, weights) if connected(space, one_hot(space, one.genotype) > 0)]
        chosen = Candidate(strongest, rule.max_skips, score(space, weights, strongest))
    return Derivation(
        complete(chosen).genotype,
        table.skeleton,
        [complete(one) for one in found],
        words,
        rule.limits,
        budgets,
        remark,
        entropy(space, weights),
        margin(space, weights),
        table.space,
    )


@during("deriving the genotype")
def derive_jointly(
    space: SearchSpace,
    weights: Sequence[np.ndarray],
    table: PriceTable,
    rule: Rule,
    provenance: Mapping[str, Any],
    count: int,
    epochs: int,
) -> Derivation:
    """Derive a genotype from the mean of the `weights` of several replicas, each (kinds, edges, primitives), and add their agreement.

    With one replica, the result is that of `derive`. `epochs` is the number of epochs per stage. Raises the errors of `derive`.
    """
    found = derive(space, mean_weights(weights), table, rule, provenance, count)
    if len(weights) == 1:
        return found
    # The genotypes of the individual replicas and the random genotypes meet the same conditions as the joint genotype.
    alone = [discretize_exactly(space, one, found.within, rule.max_skips)[0].genotype for one in weights]
    return replace(found, agreement=agreement(space, weights, alone, found.within, rule.max_skips), epochs=epochs)


@contextmanager
def where_infeasible(full: SearchSpace, left: SearchSpace, table: PriceTable, rule: Rule) -> Iterator[None]:
    """Turn Infeasible into an InputError that gives the lowest cost with the remaining candidates and in the full space."""
    limits, max_skips = rule.limits, rule.max_skips
    try:
        yield
    except Infeasible as error:
        budgets = budgets_on(table, limits)
        if budgets is None or not error.floors:  # the cap on skips cannot be met, even without budgets
            raise
        floors = [
            {name: table.exact(cheapest(space, budgets, name, max_skips))[name] for name in limits}
            for space in (left, full)
        ]
        of_left, of_full = (" or ".join(in_words(name, cost) for name, cost in found.items()) for found in floors)
        capped = conditions_in_words(full, max_skips)
        again = (
            ", or run a new search with this budget" if all(floors[1][name] <= limits[name] for name in limits) else ""
        )
        alone = ", each resource minimised alone" if len(limits) > 1 else ""
        raise InputError(
            f"no genotype of the remaining candidates meets {within(limits)}{capped}: the lowest cost is"
            f" {of_left} ({of_full} in the full space){alone}; raise the budget{again}."
        ) from None

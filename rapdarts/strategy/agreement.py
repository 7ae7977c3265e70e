"""Certainty of a search: the entropy and margin of its mixing weights, and the agreement of its replicas compared with chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rapdarts.architecture.genotype import Genotype, one_hot
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.finding import MOST_EFFORT
from rapdarts.strategy.exact import Budgets
from rapdarts.strategy.random_cells import random_cells

DRAWS = 60
"""Number of random genotypes that are drawn to estimate the agreement by chance."""

MOST_REPLICAS = 100
"""Largest number of replicas that a search accepts."""


def entropy(space: SearchSpace, weights: np.ndarray) -> float:
    """Return the mean entropy of the edges' mixing weights (kinds, edges, primitives), as a fraction of its maximum.

    Uniform weights have an entropy of 1. Edges with a single candidate are ignored; if there are no other edges, the result is 0.
    """
    candidates = space.mask.sum(-1)
    shares = weights / weights.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = -np.where(shares > 0, shares * np.log(shares), 0.0).sum(-1)
    several = candidates > 1
    return float((nats[several] / np.log(candidates[several])).mean()) if several.any() else 0.0


def margin(space: SearchSpace, weights: np.ndarray) -> float:
    """Return the mean difference between the two largest weights of an edge, as a fraction of the total weight of the edge.

    `weights` are mixing weights (kinds, edges, primitives). Edges with a single candidate are ignored; if there are no
    other edges, the margin is 1.
    """
    shares = np.sort(np.where(space.mask, weights, 0.0) / weights.sum(-1, keepdims=True), -1)
    several = space.mask.sum(-1) > 1
    return float((shares[several, -1] - shares[several, -2]).mean()) if several.any() else 1.0


@dataclass(frozen=True)
class Agreement:
    """Agreement of several replicas, averaged over all pairs of replicas.

    Every genotype has `choices` (edge, primitive) pairs. The genotypes of two replicas have `same` of these pairs in common;
    two random genotypes under the same conditions have `chance` in common. `correlation` is Spearman's rank correlation of
    the `contrasts` of the mixing weights.
    """

    replicas: int
    choices: int
    same: float
    chance: float
    correlation: float

    @property
    def reliability(self) -> float:
        """Expected correlation between the mean of these replicas and the mean of equally many new replicas, at least 0.

        It is computed by the Spearman-Brown formula for the reliability of a test with several parts (Spearman 1910; Brown 1910).
        """
        r = max(0.0, self.correlation)
        return self.replicas * r / (1 + (self.replicas - 1) * r)

    @property
    def mostly_noise(self) -> bool:
        """True if the reliability is below 0.5."""
        return self.reliability < 0.5

    def words(self, epochs: int, effort: float = 0.0) -> str:
        """Return a sentence about the agreement; `epochs` is the number of epochs per stage of the search.

        If `rapdarts find` runs the search, `effort` is its effort, and the advice names the keys of that command.
        """
        number = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}.get(self.replicas, str(self.replicas))
        words = (
            f"the {number} replicas agree on {self.same:.3g} of {self.choices} choices (chance: {self.chance:.3g}); the rank"
            f" correlation of their weights is {self.correlation:.2f}, so the mean of {number} other replicas would"
            f" have a correlation of {self.reliability:.2f} with the mean of these"
        )
        if not self.mostly_noise:
            return words
        enough, longer, section = self._enough, f"more epochs (search.epochs={3 * epochs})", "search"
        if effort:
            longer = f"more effort (find.effort={3 * effort:.3g})" if 3 * effort <= MOST_EFFORT else "more effort"
            section = "find"
        help_too = "may help" if enough is None else f"or replicas ({section}.replicas={enough}) help"
        return f"{words}. This is mostly noise; {longer} {help_too}"

    @property
    def _enough(self) -> int | None:
        """Number of replicas whose mean reaches a reliability of 0.5; None if it exceeds `MOST_REPLICAS`."""
        r = self.correlation
        needed = math.ceil((1 - r) / r) if r > 0 else MOST_REPLICAS + 1
        return needed if needed <= MOST_REPLICAS else None

    def facts(self) -> dict[str, Any]:
        """Return the agreement as plain values, for result.json."""
        return {**vars(self), "reliability": self.reliability, "mostly_noise": self.mostly_noise}


def agreement(
    space: SearchSpace,
    weights: Sequence[np.ndarray],
    genotypes: Sequence[Genotype],
    budgets: Budgets | None = None,
    max_skips: int | None = None,
) -> Agreement:
    """Return the agreement of replicas, given their mixing weights and the genotype that each replica alone would derive.

    Each of `weights` is (kinds, edges, primitives). The genotypes must meet the budgets and the cap on skips. The agreement
    by chance is estimated from random genotypes that also meet them and are drawn with a fixed seed.
    """
    drawn = random_cells(space, np.random.default_rng(0), DRAWS, budgets, max_skips, one_hot(space, genotypes[0]) > 0)
    random = np.stack([one_hot(space, genotype) > 0 for genotype in drawn]).reshape(DRAWS, -1)
    common = (random[:, None] & random[None]).sum(-1)

    chosen = np.stack([one_hot(space, genotype) > 0 for genotype in genotypes]).reshape(len(genotypes), -1)
    same = _mean_over_pairs((chosen[:, None] & chosen[None]).sum(-1))
    scores = [_ranks(contrasts(space, one)) for one in weights]
    correlations = [
        float(np.corrcoef(first, second)[0, 1]) if first.std() and second.std() else 0.0
        for first, second in itertools.combinations(scores, 2)
    ]
    return Agreement(
        replicas=len(genotypes),
        choices=int(chosen[0].sum()),
        same=same,
        chance=_mean_over_pairs(common),
        correlation=float(np.mean(correlations)),
    )


def contrasts(space: SearchSpace, weights: np.ndarray) -> np.ndarray:
    """Return the log weight of every candidate minus the mean log weight of its edge, (n,).

    `weights` are mixing weights (kinds, edges, primitives). Edges with a single candidate are left out. Subtracting the
    mean removes differences between edges that occur in every search: weights are larger on edges with fewer candidates,
    and on edges into nodes with fewer edges.
    """
    usable = space.mask & space.choosable
    logs = np.where(usable, np.log(np.maximum(weights, np.finfo(np.float64).tiny)), 0.0)
    means = logs.sum(-1, keepdims=True) / np.maximum(usable.sum(-1, keepdims=True), 1)
    return np.asarray((logs - means)[usable & (usable.sum(-1, keepdims=True) > 1)])


def _mean_over_pairs(common: np.ndarray) -> float:
    """Return the mean of the off-diagonal entries of a symmetric matrix (n, n)."""
    n = len(common)
    return float((common.sum() - np.trace(common)) / (n * (n - 1)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values (n,); equal values get the mean of their ranks."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[where]

"""Pruning between two stages: every edge drops its weakest candidates (Chen et al. 2019, section 3.2)."""

from __future__ import annotations

import numpy as np

from rapdarts.architecture.genotype import one_hot
from rapdarts.architecture.space import SKIP, SearchSpace
from rapdarts.errors import DivergedError
from rapdarts.strategy.exact import Budgets, discretize_exactly, exists


def prune(
    space: SearchSpace,
    weights: np.ndarray,
    keep: int,
    budgets: Budgets | None = None,
    max_skips: int | None = None,
) -> SearchSpace:
    """Return the space with the `keep` candidates of every edge that have the largest `weights` (kinds, edges, primitives).

    Ties go to the lowest primitive. If an edge has candidates that may be derived and are not skips, it keeps at least one of
    them, so that any cap on skips can still be met. If necessary, this candidate replaces the weakest one that would be kept.

    With `budgets` or a condition on skip-only paths, the result contains a genotype that meets them and has at most
    `max_skips` skips in the normal cell. If the strongest candidates allow no such genotype, or if the check takes
    too long, the choices of the best such genotype are kept. Each replaces the weakest candidate of its edge.

    Raises DivergedError if a weight is not finite, and Infeasible if no genotype of `space` itself is within the budgets.
    """
    if not np.isfinite(weights).all():
        raise DivergedError("the mixing weights are not finite, so candidates cannot be pruned. Lower search.alpha_lr.")
    mask = np.zeros_like(space.mask)
    safe = space.choosable & np.array([name != SKIP for name in space.primitives])
    strength = np.where(space.mask, weights, -1.0)
    for kind, edge in np.ndindex(*mask.shape[:2]):
        order = np.argsort(-strength[kind, edge], kind="stable")
        kept = order[:keep]
        if not safe[kept].any():
            others = [column for column in order if safe[column] and space.mask[kind, edge, column]]
            kept = np.append(kept[:-1], others[0]) if others else kept
        mask[kind, edge, kept] = True
    pruned = space.narrowed(mask & space.mask)
    unconditional = budgets is None and space.skip_paths == "any"
    if unconditional or exists(pruned, budgets, max_skips):
        return pruned

    best = discretize_exactly(space, weights, budgets, max_skips)[0].genotype
    mask = pruned.mask
    for kind, edge, column in np.argwhere((one_hot(space, best) > 0) & ~mask):
        survivors = sorted(np.flatnonzero(mask[kind, edge]), key=lambda other: (strength[kind, edge, other], -other))
        # Drop the weakest candidate, but not the last one that is not a skip if another one can be dropped.
        leaving = (
            drop for drop in survivors if safe[column] or any(safe[other] for other in survivors if other != drop)
        )
        mask[kind, edge, next(leaving, survivors[0])] = False
        mask[kind, edge, column] = True
    return space.narrowed(mask)

"""Between two stages: on every edge the weakest candidates go (Chen et al. 2019, section 3.2)."""

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
    """The space with the `keep` strongest candidates of every edge by mixing `weights` (kinds, edges, primitives).

    Ties go to the lowest primitive. An edge always keeps one candidate that may be derived and is no skip, if it has
    one, in the place of its weakest: so any cap on skips can still be met. With `budgets`, or a condition of the space
    on skip-only paths, some genotype that stays meets them all and has at most `max_skips` skips in the normal cell:
    where none would, or where that takes too long to tell, the choices of the best one that does stay as well, each in
    the place of the weakest of its edge.

    Raises DivergedError if a weight is not a finite number, Infeasible if already `space` has nothing within the budgets.
    """
    if not np.isfinite(weights).all():
        raise DivergedError(
            "the mixing weights are not finite; candidates are not pruned by them. Lower search.alpha_lr."
        )
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
    anything_goes = budgets is None and space.skip_paths == "any"
    if anything_goes or exists(pruned, budgets, max_skips):
        return pruned

    best = discretize_exactly(space, weights, budgets, max_skips)[0].genotype
    mask = pruned.mask
    for kind, edge, column in np.argwhere((one_hot(space, best) > 0) & ~mask):
        survivors = sorted(np.flatnonzero(mask[kind, edge]), key=lambda other: (strength[kind, edge, other], -other))
        # The weakest goes, but not the way out of skips while another can.
        leaving = (
            goes for goes in survivors if safe[column] or any(safe[stays] for stays in survivors if stays != goes)
        )
        mask[kind, edge, next(leaving, survivors[0])] = False
        mask[kind, edge, column] = True
    return space.narrowed(mask)

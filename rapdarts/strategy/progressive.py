"""Between two stages: on every edge the weakest candidates go (Chen et al. 2019, section 3.2)."""

from __future__ import annotations

import numpy as np

from rapdarts.errors import DivergedError
from rapdarts.space import SKIP, SearchSpace


def prune(space: SearchSpace, weights: np.ndarray, keep: int) -> SearchSpace:
    """The space with the `keep` strongest candidates of every edge by mixing `weights` (kinds, edges, primitives).

    Ties go to the lowest primitive. An edge always keeps one candidate that may be derived and is no skip, if it has
    one, in the place of its weakest: so any cap on skips can still be met. Raises DivergedError if a weight is not a finite number.
    """
    if not np.isfinite(weights).all():
        raise DivergedError(
            "the mixing weights are not finite; candidates are not pruned by them. Lower search.alpha_lr."
        )
    mask = np.zeros_like(space.mask)
    safe = space.choosable & np.array([name != SKIP for name in space.primitives])
    for kind, edge in np.ndindex(*mask.shape[:2]):
        strength = np.where(space.mask[kind, edge], weights[kind, edge], -1.0)
        order = np.argsort(-strength, kind="stable")
        kept = order[:keep]
        if not safe[kept].any():
            others = [column for column in order if safe[column] and space.mask[kind, edge, column]]
            kept = np.append(kept[:-1], others[0]) if others else kept
        mask[kind, edge, kept] = True
    return space.narrowed(mask & space.mask)

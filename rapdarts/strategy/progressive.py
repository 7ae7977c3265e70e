"""Between two stages: on every edge the weakest candidates go (Chen et al. 2019, section 3.2)."""

from __future__ import annotations

import numpy as np

from rapdarts.errors import DivergedError
from rapdarts.space import SearchSpace


def prune(space: SearchSpace, weights: np.ndarray, keep: int) -> SearchSpace:
    """The space with the `keep` strongest candidates of every edge by mixing `weights` (kinds, edges, primitives).

    Ties go to the lowest primitive. An edge never keeps `none` alone where nothing could then be derived from it.
    Raises DivergedError if a weight is not a finite number.
    """
    if not np.isfinite(weights).all():
        raise DivergedError(
            "the mixing weights are not finite; candidates are not pruned by them. Lower search.alpha_lr."
        )
    mask = np.zeros_like(space.mask)
    for kind, edge in np.ndindex(*mask.shape[:2]):
        strength = np.where(space.mask[kind, edge], weights[kind, edge], -1.0)
        order = np.argsort(-strength, kind="stable")
        kept = order[:keep]
        if not space.choosable[kept].any():
            kept = np.append(kept[:-1], next(column for column in order if space.choosable[column]))
        mask[kind, edge, kept] = True
    return space.narrowed(mask & space.mask)

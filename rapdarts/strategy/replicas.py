"""Replicas of a search: their seeds, their common candidates, and the mean of their mixing weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rapdarts.architecture.space import SearchSpace
from rapdarts.data.randomness import key


def replica_seeds(seed: int, replicas: int) -> list[int]:
    """Return the seeds of all replicas of a search; the first is the seed of the search itself."""
    return [seed, *(key(seed, "replica", number) % 2**32 for number in range(1, replicas))]


def on_common_candidates(
    spaces: Sequence[SearchSpace], weights: Sequence[np.ndarray]
) -> tuple[SearchSpace, list[np.ndarray]]:
    """Return the space with the candidates that at least one replica still has, and the mixing weights of each replica in this space.

    The weights of each replica are (kinds, edges, primitives). A candidate that a replica has dropped gets that replica's
    smallest weight on this edge.
    """
    common = np.any([space.mask for space in spaces], axis=0)
    filled = []
    for space, one in zip(spaces, weights, strict=True):
        smallest = np.where(space.mask, one, np.inf).min(-1, keepdims=True)
        filled.append(np.where(space.mask, one, np.where(common, smallest, 0.0)))
    return spaces[0].narrowed(common), filled


def mean_weights(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the geometric mean of several arrays of mixing weights; all arrays are (kinds, edges, primitives).

    With the geometric mean, the score of a genotype is the mean of its scores under the individual weights.
    """
    if len(weights) == 1:
        return weights[0]
    with np.errstate(divide="ignore"):
        return np.exp(np.log(weights).mean(0))

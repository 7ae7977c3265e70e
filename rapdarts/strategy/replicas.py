"""Several searches as one: what their replicas learned, brought to the same candidates and averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rapdarts.architecture.space import SearchSpace
from rapdarts.data.randomness import key


def replica_seeds(seed: int, replicas: int) -> list[int]:
    """Return the seeds of all replicas of a search, of which the first is its own."""
    return [seed, *(key(seed, "replica", number) % 2**32 for number in range(1, replicas))]


def on_common_candidates(
    spaces: Sequence[SearchSpace], weights: Sequence[np.ndarray]
) -> tuple[SearchSpace, list[np.ndarray]]:
    """Return the candidates that any replica has left, and the mixing weights (kinds, edges, primitives) of each on them.

    A candidate that a replica has dropped counts with that replica's smallest weight on the edge.
    """
    common = np.any([space.mask for space in spaces], axis=0)
    filled = []
    for space, one in zip(spaces, weights, strict=True):
        smallest = np.where(space.mask, one, np.inf).min(-1, keepdims=True)
        filled.append(np.where(space.mask, one, np.where(common, smallest, 0.0)))
    return spaces[0].narrowed(common), filled


def mean_weights(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the geometric mean of mixing weights, of the same shape: its score of a genotype is the mean of their scores."""
    if len(weights) == 1:
        return weights[0]
    with np.errstate(divide="ignore"):
        return np.exp(np.log(weights).mean(0))

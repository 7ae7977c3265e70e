"""Replicas of a search: their seeds, their common candidates, and the mean of their mixing weights."""

from __future__ import annotations

import numpy as np
import pytest

from rapdarts.architecture.genotype import random_genotype
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy.discretize import score
from rapdarts.strategy.exact import discretize_exactly
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.replicas import mean_weights, on_common_candidates, replica_seeds

DARTS = named_space("darts")


def mixture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(8), DARTS.mask.shape[:2])


def test_the_first_seed_is_the_seed_of_the_search_and_all_differ() -> None:
    assert replica_seeds(7, 1) == [7]
    found = replica_seeds(7, 100)
    assert found[0] == 7 and len(set(found)) == 100 and found[:3] == replica_seeds(7, 3)
    assert all(0 <= seed < 2**32 for seed in found)
    assert not set(found[1:]) & set(replica_seeds(8, 100)[1:])


def test_the_mean_is_geometric() -> None:
    weights = [mixture(seed) for seed in range(3)]
    mean = mean_weights(weights)
    np.testing.assert_allclose(mean, np.prod(weights, 0) ** (1 / 3))
    assert mean_weights(weights[:1]) is weights[0]  # bit-identical
    np.testing.assert_allclose(mean_weights([weights[0]] * 4), weights[0])
    # The score of a genotype is the mean of its scores in the replicas.
    rng = np.random.default_rng(0)
    for _ in range(5):
        genotype = random_genotype(DARTS, rng)
        assert score(DARTS, mean, genotype) == pytest.approx(np.mean([score(DARTS, one, genotype) for one in weights]))


def test_a_weight_of_zero_in_one_replica_makes_the_mean_zero() -> None:
    one, other = mixture(0), mixture(1)
    one[0, 3, 5] = 0.0
    mean = mean_weights([one, other])
    assert mean[0, 3, 5] == 0 and np.isfinite(mean).all() and (mean > 0).sum() == mean.size - 1


def test_a_dropped_candidate_gets_the_smallest_weight_of_its_replica_on_the_edge() -> None:
    weights = [mixture(seed) for seed in range(3)]
    spaces = [prune(DARTS, one, 3) for one in weights]
    learned = [np.where(space.mask, one, 0.0) for space, one in zip(spaces, weights, strict=True)]
    left, filled = on_common_candidates(spaces, learned)
    np.testing.assert_array_equal(left.mask, spaces[0].mask | spaces[1].mask | spaces[2].mask)
    assert 3 < left.mask.sum(-1).mean() < 8
    for space, before, after in zip(spaces, learned, filled, strict=True):
        np.testing.assert_array_equal(after[space.mask], before[space.mask])
        for place in np.argwhere(left.mask & ~space.mask):
            kind, edge, _ = place
            assert after[tuple(place)] == before[kind, edge][space.mask[kind, edge]].min()
        assert (after[~left.mask] == 0).all()
    (best,) = discretize_exactly(left, mean_weights(filled), max_skips=2)
    assert np.isfinite(best.score)


def test_weights_of_replicas_with_the_same_candidates_are_not_changed() -> None:
    space, weights = (
        prune(DARTS, mixture(0), 3),
        [np.where(prune(DARTS, mixture(0), 3).mask, mixture(s), 0) for s in range(2)],
    )
    left, filled = on_common_candidates([space, space], weights)
    assert left.candidates == space.candidates
    np.testing.assert_array_equal(filled, weights)

"""Pruning between stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rapdarts.errors import DivergedError
from rapdarts.genotype import random_genotype, validate
from rapdarts.space import SearchSpace, named_space
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.progressive import prune

DARTS, FILTERS = named_space("darts"), named_space("filters")


def bare(*names: str, **facts: Any) -> SearchSpace:
    def nothing(channels: int, stride: int, affine: bool) -> torch.nn.Module:
        return torch.nn.Identity()

    return SearchSpace("bare", {name: nothing for name in names}, **facts)


def everywhere(space: SearchSpace, row: list[float]) -> np.ndarray:
    return np.broadcast_to(row, space.mask.shape).copy()


def test_the_strongest_stay_edge_by_edge() -> None:
    rng = np.random.default_rng(0)
    weights = rng.random(DARTS.mask.shape)
    pruned = prune(DARTS, weights, 5)
    for place in np.ndindex(2, 14):
        assert set(np.flatnonzero(pruned.mask[place])) == set(np.argsort(weights[place])[-5:])
    assert pruned.name == "darts" and list(pruned.primitives) == list(DARTS.primitives)
    assert DARTS.mask.all()  # the space that was given stays what it is


def test_candidates_keep_the_order_of_the_space() -> None:
    weights = everywhere(DARTS, [0.1, 0.0, 0.3, 0.0, 0.2, 0.0, 0.0, 0.4])
    names = ("none", "avg_pool_3x3", "sep_conv_3x3", "dil_conv_5x5")
    assert prune(DARTS, weights, 4).candidates == ((names,) * 14,) * 2


def test_ties_go_to_the_lowest_primitive() -> None:
    tied = everywhere(DARTS, [0.125] * 8)
    assert prune(DARTS, tied, 3).candidates[0][0] == ("none", "max_pool_3x3", "avg_pool_3x3")
    last = everywhere(DARTS, [0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.2])
    assert prune(DARTS, last, 3).candidates[1][13] == ("none", "sep_conv_5x5", "dil_conv_5x5")


def test_closed_candidates_do_not_come_back() -> None:
    first = prune(DARTS, everywhere(DARTS, [8, 7, 6, 5, 4, 3, 2, 1]), 5)
    second = prune(first, everywhere(DARTS, [1, 2, 3, 4, 5, 6, 7, 8]), 3)
    assert second.candidates[0][0] == ("avg_pool_3x3", "skip_connect", "sep_conv_3x3")
    # Even where they are all that has any weight, and where more could stay than is open.
    third = prune(second, everywhere(DARTS, [1, 1, 0, 0, 0, 1, 1, 1]), 2)
    assert third.candidates[0][0] == ("avg_pool_3x3", "skip_connect")
    assert prune(third, everywhere(DARTS, [1] * 8), 8).candidates == third.candidates


def test_none_never_stays_alone() -> None:
    weights = everywhere(DARTS, [0.9, 0.01, 0.02, 0.01, 0.03, 0.03, 0.0, 0.0])
    assert prune(DARTS, weights, 1).candidates == ((("sep_conv_3x3",),) * 14,) * 2
    assert prune(DARTS, weights, 2).candidates[0][0] == ("none", "sep_conv_3x3")
    # Where none may be derived, it may stay alone.
    deriving = bare("none", "conv", keep=None, derive_none=True)
    assert prune(deriving, everywhere(deriving, [0.9, 0.1]), 1).candidates[0][0] == ("none",)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    weights = everywhere(DARTS, [0.125] * 8)
    weights[1, 13, 7] = wrong
    with pytest.raises(DivergedError):
        prune(DARTS, weights, 5)


@settings(deadline=None, max_examples=20)
@given(st.data(), st.sampled_from([DARTS, FILTERS]), st.sampled_from([(5, 3), (3, 2), (4, 1), (2, 2)]))
def test_every_stage_is_a_smaller_space(data: st.DataObject, space: SearchSpace, keeps: tuple[int, int]) -> None:
    elements = st.one_of(st.sampled_from([0.0, 0.5]), st.floats(0, 1))
    stages, safe = [space], space.choosable & np.array([name != "skip_connect" for name in space.primitives])
    for keep in keeps:
        weights = data.draw(arrays.arrays(np.float64, space.mask.shape, elements=elements))
        stages.append(prune(stages[-1], weights, keep))
    for larger, smaller, keep in zip(stages, stages[1:], keeps, strict=False):
        assert (smaller.mask <= larger.mask).all()
        assert (smaller.mask.sum(-1) == keep).all()
        # There is always a cell to derive, and one within any cap on skips.
        assert (smaller.mask & safe).any(-1).all()
        validate(discretize(smaller, smaller.mask / keep, max_skips=0), space, "derived without skips")
        validate(discretize(smaller, smaller.mask / keep), space, "derived")
        validate(random_genotype(smaller, np.random.default_rng(0)), space, "drawn")
    # Every weight that stays is as strong as any that goes, but for the one that keeps the way out of skips open.
    for kind, edge in np.ndindex(*space.mask.shape[:2]):
        stays, goes = stages[2].mask[kind, edge], stages[1].mask[kind, edge] & ~stages[2].mask[kind, edge]
        if (stays & safe).sum() == 1:
            stays = stays & ~safe
        if stays.any() and goes.any():
            assert weights[kind, edge, stays].min() >= weights[kind, edge, goes].max()

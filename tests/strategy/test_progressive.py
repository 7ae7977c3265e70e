"""Pruning of candidates between stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rapdarts.architecture.genotype import one_hot, random_genotype, validate
from rapdarts.architecture.space import SearchSpace
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DivergedError
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.exact import Budgets, Infeasible, cheapest, discretize_exactly, feasible
from rapdarts.strategy.progressive import prune

DARTS, FILTERS = named_space("darts"), named_space("filters")


def bare(*names: str, **facts: Any) -> SearchSpace:
    def nothing(channels: int, stride: int, affine: bool) -> torch.nn.Module:
        return torch.nn.Identity()

    return SearchSpace("bare", {name: nothing for name in names}, **facts)


def everywhere(space: SearchSpace, row: list[float]) -> np.ndarray:
    return np.broadcast_to(row, space.mask.shape).copy()


def test_each_edge_keeps_its_strongest_candidates() -> None:
    rng = np.random.default_rng(0)
    weights = rng.random(DARTS.mask.shape)
    pruned = prune(DARTS, weights, 5)
    for place in np.ndindex(2, 14):
        assert set(np.flatnonzero(pruned.mask[place])) == set(np.argsort(weights[place])[-5:])
    assert pruned.name == "darts" and list(pruned.primitives) == list(DARTS.primitives)
    assert DARTS.mask.all()  # the given space is not changed


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
    # This holds even if only closed candidates have weight, or if fewer candidates are open than could be kept.
    third = prune(second, everywhere(DARTS, [1, 1, 0, 0, 0, 1, 1, 1]), 2)
    assert third.candidates[0][0] == ("avg_pool_3x3", "skip_connect")
    assert prune(third, everywhere(DARTS, [1] * 8), 8).candidates == third.candidates


def test_none_is_never_the_only_candidate_left() -> None:
    weights = everywhere(DARTS, [0.9, 0.01, 0.02, 0.01, 0.03, 0.03, 0.0, 0.0])
    assert prune(DARTS, weights, 1).candidates == ((("sep_conv_3x3",),) * 14,) * 2
    assert prune(DARTS, weights, 2).candidates[0][0] == ("none", "sep_conv_3x3")
    # If none may be derived, it may be the only candidate left.
    deriving = bare("none", "conv", keep=None, derive_none=True)
    assert prune(deriving, everywhere(deriving, [0.9, 0.1]), 1).candidates[0][0] == ("none",)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(wrong: float) -> None:
    weights = everywhere(DARTS, [0.125] * 8)
    weights[1, 13, 7] = wrong
    with pytest.raises(DivergedError):
        prune(DARTS, weights, 5)


def test_a_condition_on_skip_only_paths_can_still_be_met() -> None:
    """This holds without budgets too, even if skips are weakest on every edge; the best cell that meets the condition remains."""
    space = named_space("nasbench201").deriving_none(False)
    rng = np.random.default_rng(0)
    for _ in range(5):
        weights = rng.uniform(0.1, 1, space.mask.shape)
        weights[..., space.columns["skip_connect"]] /= 20
        pruned = prune(space, weights, 2)
        assert (pruned.mask.sum(-1) == 2).all() and feasible(pruned)
        assert discretize_exactly(pruned, weights)[0].genotype == discretize_exactly(space, weights)[0].genotype
        freely = prune(space.with_skip_paths("any"), weights, 2)
        assert not freely.mask[..., space.columns["skip_connect"]].any()


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
        # A cell can always be derived, with any cap on skips.
        assert (smaller.mask & safe).any(-1).all()
        validate(discretize(smaller, smaller.mask / keep, max_skips=0), space, "derived without skips")
        validate(discretize(smaller, smaller.mask / keep), space, "derived")
        validate(random_genotype(smaller, np.random.default_rng(0)), space, "drawn")
    # Every kept weight is at least as large as any dropped one, except for an edge's only candidate that is not a skip.
    for kind, edge in np.ndindex(*space.mask.shape[:2]):
        kept, dropped = stages[2].mask[kind, edge], stages[1].mask[kind, edge] & ~stages[2].mask[kind, edge]
        if (kept & safe).sum() == 1:
            kept = kept & ~safe
        if kept.any() and dropped.any():
            assert weights[kind, edge, kept].min() >= weights[kind, edge, dropped].max()


# --- within budgets ----------------------------------------------------------------------------------------------


def prices_of(space: SearchSpace, **prices: float) -> np.ndarray:
    """Return prices (1, kinds, edges, primitives) in which a primitive has the same price on every edge."""
    return everywhere(space, [prices.get(name, 0.0) for name in space.primitives])[None]


def within(prices: np.ndarray, bound: float) -> Budgets:
    return Budgets(("params",), np.zeros(1), prices, np.array([bound]))


def test_a_tight_budget_can_be_met_after_every_pruning() -> None:
    """The weights favour the most expensive primitive, and the bound is just above the cost of the cheapest genotype."""
    rng = np.random.default_rng(0)
    prices = np.round(rng.uniform(0, 10, (1, *DARTS.mask.shape)) * np.array([0, 0, 0, 0, 200, 500, 100, 250]))
    prices[..., 1:4] += np.round(rng.uniform(1, 9, prices[..., 1:4].shape))
    free = within(prices, np.inf)
    floor = free.costs(one_hot(DARTS, cheapest(DARTS, free, "params", max_skips=2)))["params"]
    budgets, space = within(prices, floor + 3), DARTS
    row = [0.3, 0.01, 0.01, 0.05, 0.1, 0.4, 0.03, 0.1]
    for keep in (8, 5, 3):
        weights = everywhere(DARTS, row) * rng.uniform(0.8, 1.2, DARTS.mask.shape)
        before = prune(space, weights, keep)
        assert keep == 8 or not feasible(before, budgets, max_skips=2)  # the plain rule alone is not enough
        space = prune(space, weights, keep, budgets, max_skips=2)
        assert feasible(space, budgets, max_skips=2)
        assert (space.mask.sum(-1) == keep).all()
    (best,) = discretize_exactly(space, weights, budgets, max_skips=2)
    assert budgets.met_by(one_hot(DARTS, best.genotype))


def test_a_candidate_kept_for_a_budget_replaces_the_weakest() -> None:
    prices = prices_of(DARTS, sep_conv_3x3=3, sep_conv_5x5=5, dil_conv_3x3=2, dil_conv_5x5=4)
    weights = everywhere(DARTS, [0.0, 0.01, 0.02, 0.03, 0.3, 0.4, 0.1, 0.14])
    weights[..., 13, :] = weights[..., 13, ::-1]
    plain = prune(DARTS, weights, 3)
    # With a loose budget, the result is that of the plain rule.
    assert prune(DARTS, weights, 3, within(prices, 72), max_skips=2) == plain
    budgets = within(prices, 18)
    best = one_hot(DARTS, discretize_exactly(DARTS, weights, budgets, 2)[0].genotype) > 0
    pruned = prune(DARTS, weights, 3, budgets, max_skips=2)
    assert feasible(pruned, budgets, max_skips=2) and not feasible(plain, budgets, max_skips=2)
    for place in np.ndindex(2, 14):
        came, went = pruned.mask[place] & ~plain.mask[place], plain.mask[place] & ~pruned.mask[place]
        assert (came == (best[place] & ~plain.mask[place])).all() and came.sum() == went.sum() <= 1
        if went.any():
            assert weights[place][went].item() == weights[place][plain.mask[place]].min()


def test_an_edge_keeps_a_candidate_that_is_not_a_skip_under_a_budget_too() -> None:
    space = bare("none", "skip_connect", "conv", "pool", nodes=1)
    # The best reduction cell within a budget of 0 has two skips, which the plain rule drops.
    prices = prices_of(space, conv=1, pool=1)
    prices[0, 0] = 0
    weights = everywhere(space, [0.6, 0.1, 0.15, 0.15])
    plain = prune(space, weights, 2)
    assert plain.candidates[1] == (("none", "conv"),) * 2
    pruned = prune(space, weights, 2, within(prices, 0))
    assert pruned.candidates == (plain.candidates[0], (("skip_connect", "conv"),) * 2)
    # With one candidate per edge, only the best genotype remains.
    alone = prune(space, weights, 1, within(prices, 0))
    assert alone.candidates == ((("conv",),) * 2, (("skip_connect",),) * 2)


def test_a_space_without_a_genotype_within_the_budgets_is_refused() -> None:
    prices = prices_of(DARTS, sep_conv_3x3=3, max_pool_3x3=1, avg_pool_3x3=1, skip_connect=1)
    weights = everywhere(DARTS, [0.125] * 8)
    convs = prune(DARTS, everywhere(DARTS, [0, 0, 0, 0, 1, 0, 0, 0]), 1)
    with pytest.raises(Infeasible, match="meets params <= 47: the cheapest has 48"):
        prune(convs, weights, 1, within(prices, 47))
    assert prune(convs, weights, 1, within(prices, 48)) == convs


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), cap=st.sampled_from([None, 0, 2]))
def test_every_stage_has_a_genotype_within_the_budgets(seed: int, cap: int | None) -> None:
    rng = np.random.default_rng(seed)
    prices = rng.integers(0, 1000, (2, *DARTS.mask.shape)).astype(np.float64)
    free = Budgets(("params", "macs"), np.zeros(2), prices, np.full(2, np.inf))
    drawn = discretize(DARTS, rng.random(DARTS.mask.shape) / (prices.sum(0) + rng.uniform(1, 4000)), max_skips=cap)
    bounds = np.array(list(free.costs(one_hot(DARTS, drawn)).values()))
    budgets, space = Budgets(free.names, free.fixed, prices, bounds), DARTS
    for keep in (5, 3, 1):
        space = prune(space, rng.random(DARTS.mask.shape), keep, budgets, cap)
        assert feasible(space, budgets, cap)
        assert (space.mask.sum(-1) == keep).all()

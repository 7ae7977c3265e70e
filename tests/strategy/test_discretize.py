"""Discretisation of mixing weights to genotypes: hand-made weights for every rule, and properties for arbitrary weights."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import search_spaces
from rapdarts.architecture.cell import Node
from rapdarts.architecture.genotype import Genotype, random_genotype, validate
from rapdarts.architecture.space import KINDS, SearchSpace
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DivergedError, InputError
from rapdarts.strategy.discretize import Candidate, candidates, discretize, score

SPACES = {module.name: named_space(module.name) for module in pkgutil.iter_modules(search_spaces.__path__)}
DARTS, BENCH = SPACES["darts"], SPACES["nasbench201"]


def bare(*names: str, **facts: Any) -> SearchSpace:
    def nothing(channels: int, stride: int, affine: bool) -> torch.nn.Module:
        return torch.nn.Identity()

    return SearchSpace("bare", {name: nothing for name in names}, **facts)


SHORT = bare("none", "skip_connect", "conv", nodes=2)
"""Two nodes, five edges: (0, 0) (0, 1) | (1, 0) (1, 1) (1, 2)."""


def weights_of(
    space: SearchSpace, normal: Mapping[int, Mapping[str, float]], reduce: Mapping[int, Mapping[str, float]] = {}
) -> np.ndarray:
    """Return weights with the given values by edge and primitive; the default is 0.1, and 0.5 for `none`."""
    weights = np.full(space.mask.shape, 0.1)
    names = list(space.primitives)
    weights[..., names.index("none")] = 0.5
    for kind, cell in enumerate((normal, reduce)):
        for edge, row in cell.items():
            for name, weight in row.items():
                weights[kind, edge, names.index(name)] = weight
    return weights


def normal(genotype: Genotype) -> tuple[Node, ...]:
    return genotype.cells["normal"].nodes


def skips(genotype: Genotype, kind: str = "normal") -> int:
    return sum(name == "skip_connect" for node in genotype.cells[kind].nodes for name, _ in node)


# --- the strongest edges -----------------------------------------------------------------------------------------


def test_edges_are_chosen_by_their_strongest_primitive_except_none() -> None:
    weights = weights_of(
        DARTS,
        {
            0: {"sep_conv_3x3": 0.2, "none": 0.9},
            1: {"dil_conv_5x5": 0.3},
            2: {"max_pool_3x3": 0.2},  # node 1: the third edge is the weakest
            3: {"sep_conv_5x5": 0.4},
            4: {"skip_connect": 0.15},
            5: {"none": 0.99},  # node 2 keeps edges 7 and 8, although `none` has a large weight on edge 5
            7: {"skip_connect": 0.11},
            8: {"avg_pool_3x3": 0.12},
            11: {"dil_conv_3x3": 0.2, "sep_conv_3x3": 0.19},  # node 3
            13: {"sep_conv_3x3": 0.3, "sep_conv_5x5": 0.31},
        },
    )
    assert normal(discretize(DARTS, weights)) == (
        (("sep_conv_3x3", 0), ("dil_conv_5x5", 1)),
        (("max_pool_3x3", 0), ("sep_conv_5x5", 1)),
        (("skip_connect", 2), ("avg_pool_3x3", 3)),
        (("dil_conv_3x3", 2), ("sep_conv_5x5", 4)),
    )


def test_a_cell_outputs_all_its_nodes() -> None:
    genotype = discretize(DARTS, weights_of(DARTS, {}))
    assert genotype.space == "darts"
    assert {kind: cell.concat for kind, cell in genotype.cells.items()} == dict.fromkeys(KINDS, (2, 3, 4, 5))


def test_cells_with_one_input() -> None:
    """The space has one kind of cell, keeps all edges, outputs the last node, may derive `none`, and has a cap on skips."""
    names = list(BENCH.primitives)
    weights = np.full(BENCH.mask.shape, 0.1)
    for edge, name in enumerate(["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "skip_connect", "none"]):
        weights[0, edge, names.index(name)] = 0.5 + 0.01 * edge
    genotype = discretize(BENCH, weights)
    assert genotype.to_nasbench201() == (
        "|none~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_3x3~0|skip_connect~1|none~2|"
    )
    assert set(genotype.cells) == {"normal"} and genotype.cells["normal"].concat == (3,)
    assert score(BENCH, weights, genotype) == pytest.approx(sum(np.log(0.5 + 0.01 * edge) for edge in range(6)))
    assert [(candidate.max_skips, skips(candidate.genotype)) for candidate in candidates(BENCH, weights)] == [
        (None, 2),
        (1, 1),
        (0, 0),
    ]
    assert discretize(BENCH, weights, 1).cells["normal"].nodes[1] == (("none", 0), ("nor_conv_1x1", 1))


def test_ties_go_to_the_lowest_edge_then_the_lowest_primitive() -> None:
    first = (("max_pool_3x3", 0), ("max_pool_3x3", 1))
    for weights in (np.zeros(DARTS.mask.shape), np.full(DARTS.mask.shape, 0.125)):
        genotype = discretize(DARTS, weights)
        assert all(cell.nodes == (first,) * 4 for cell in genotype.cells.values())
    # The first of three equal edges is kept, along with a stronger edge that comes later.
    weights = weights_of(DARTS, {8: {"dil_conv_5x5": 0.2, "dil_conv_3x3": 0.2}})
    assert normal(discretize(DARTS, weights))[2] == (("max_pool_3x3", 0), ("dil_conv_3x3", 3))


def test_a_space_may_keep_all_edges_and_derive_none() -> None:
    space = bare("none", "skip_connect", "conv", nodes=2, keep=None, derive_none=True)
    weights = weights_of(space, {1: {"conv": 0.6}, 4: {"skip_connect": 0.7}})
    assert normal(discretize(space, weights)) == (
        (("none", 0), ("conv", 1)),
        (("none", 0), ("none", 1), ("skip_connect", 2)),
    )


# --- the cap on skips --------------------------------------------------------------------------------------------


def test_the_weakest_skip_is_dropped_first() -> None:
    weights = weights_of(
        SHORT,
        {
            0: {"skip_connect": 0.8, "conv": 0.05},
            1: {"skip_connect": 0.6, "conv": 0.3},
            2: {"skip_connect": 0.5, "conv": 0.2},
            3: {"skip_connect": 0.7, "conv": 0.1},
            4: {"skip_connect": 0.01, "conv": 0.02},
        },
    )
    found = {cap: normal(discretize(SHORT, weights, cap)) for cap in (None, 4, 3, 2, 1, 0)}
    skip = "skip_connect"
    assert found[None] == found[4] == (((skip, 0), (skip, 1)), ((skip, 0), (skip, 1)))
    assert found[3] == (((skip, 0), (skip, 1)), (("conv", 0), (skip, 1)))
    assert found[2] == (((skip, 0), ("conv", 1)), (("conv", 0), (skip, 1)))
    assert found[1] == (((skip, 0), ("conv", 1)), (("conv", 0), ("conv", 1)))
    assert found[0] == ((("conv", 0), ("conv", 1)), (("conv", 0), ("conv", 1)))


def test_dropping_a_skip_may_change_which_edges_are_kept() -> None:
    weights = weights_of(
        SHORT,
        {
            2: {"skip_connect": 0.5, "conv": 0.2},
            3: {"skip_connect": 0.6, "conv": 0.01},
            4: {"conv": 0.3},
            **{edge: {"conv": 0.4} for edge in (0, 1)},
        },
    )
    assert normal(discretize(SHORT, weights))[1] == (("skip_connect", 0), ("skip_connect", 1))
    # Without its skip, edge 2 is weaker than edge 4.
    assert normal(discretize(SHORT, weights, 1))[1] == (("skip_connect", 1), ("conv", 2))
    assert normal(discretize(SHORT, weights, 0))[1] == (("conv", 0), ("conv", 2))


def test_dropping_a_skip_may_bring_in_another_skip() -> None:
    """The edge that is kept instead may have a skip, which then counts against the cap as well."""
    weights = weights_of(
        SHORT,
        {
            **{edge: {"conv": 0.4} for edge in (0, 1)},
            2: {"skip_connect": 0.5, "conv": 0.1},
            3: {"skip_connect": 0.6, "conv": 0.2},
            4: {"skip_connect": 0.3, "conv": 0.25},
        },
    )
    assert normal(discretize(SHORT, weights))[1] == (("skip_connect", 0), ("skip_connect", 1))
    assert normal(discretize(SHORT, weights, 1))[1] == (("skip_connect", 1), ("conv", 2))
    assert normal(discretize(SHORT, weights, 0))[1] == (("conv", 1), ("conv", 2))


def test_ties_among_skips_go_to_the_lowest_edge() -> None:
    weights = weights_of(SHORT, {edge: {"skip_connect": 0.5, "conv": 0.2} for edge in range(5)})
    assert normal(discretize(SHORT, weights, 3))[0] == (("conv", 0), ("skip_connect", 1))


def test_the_cap_does_not_apply_to_reduction_cells() -> None:
    rows = {edge: {"skip_connect": 0.5} for edge in range(14)}
    genotype = discretize(DARTS, weights_of(DARTS, rows, rows), 0)
    assert (skips(genotype), skips(genotype, "reduce")) == (0, 8)
    alone = discretize(DARTS, weights_of(DARTS, {}, rows), 0)
    assert alone.cells["reduce"] == genotype.cells["reduce"]


def test_an_excluded_skip_ranks_below_primitives_of_weight_zero() -> None:
    weights = np.zeros(SHORT.mask.shape)
    weights[..., 1] = 1.0
    genotype = discretize(SHORT, weights, 0)
    assert normal(genotype) == ((("conv", 0), ("conv", 1)),) * 2
    assert skips(genotype, "reduce") == 4
    assert skips(discretize(SHORT, np.zeros(SHORT.mask.shape), 0)) == 0


def test_a_cap_is_refused_if_too_many_edges_have_only_skips_left() -> None:
    mask = SHORT.mask
    mask[0, :3, 2] = False  # node 0, and one edge of node 1, have only skips
    space = SHORT.narrowed(mask)
    weights = weights_of(SHORT, {2: {"skip_connect": 0.4}, 3: {"conv": 0.3}, 4: {"conv": 0.2}})
    assert skips(discretize(space, weights)) == 3
    assert normal(discretize(space, weights, 2)) == (
        (("skip_connect", 0), ("skip_connect", 1)),
        (("conv", 1), ("conv", 2)),
    )
    with pytest.raises(InputError, match="at most 1 skip is left"):
        discretize(space, weights, 1)
    assert {candidate.max_skips for candidate in candidates(space, weights)} == {None, 2}


# --- choices that are never made ---------------------------------------------------------------------------------


def test_closed_candidates_are_never_chosen() -> None:
    mask = np.zeros_like(DARTS.mask)
    mask[..., [0, 5, 7]] = True
    weights = np.ones(mask.shape)
    weights[..., 5] = 0.0
    weights[..., 7] = 0.0
    genotype = discretize(DARTS.narrowed(mask), weights, 2)
    assert {name for cell in genotype.cells.values() for node in cell.nodes for name, _ in node} == {"sep_conv_5x5"}


def test_edges_with_nothing_to_derive_are_not_kept() -> None:
    mask = DARTS.mask
    mask[0, 2, 1:] = False  # only none is left
    weights = weights_of(DARTS, {2: {"none": 1.0}})
    assert normal(discretize(DARTS.narrowed(mask), weights))[1] == (("max_pool_3x3", 1), ("max_pool_3x3", 2))
    mask[0, 3, 1:] = False
    with pytest.raises(InputError, match="node 1 needs 2 edges"):
        discretize(DARTS.narrowed(mask), weights)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 13, 7)])
def test_weights_that_are_not_finite_are_refused(wrong: float, place: tuple[int, int, int]) -> None:
    weights = weights_of(DARTS, {})
    weights[place] = wrong
    for cap in (None, 2):
        with pytest.raises(DivergedError):
            discretize(DARTS, weights, cap)
    with pytest.raises(DivergedError):
        candidates(DARTS, weights)


# --- all candidates ----------------------------------------------------------------------------------------------


def test_candidates_of_hand_made_weights() -> None:
    weights = weights_of(SHORT, {edge: {"skip_connect": 0.5 + 0.01 * edge, "conv": 0.2} for edge in range(5)})
    weights[0, 0, 2] = 0.9  # a conv is chosen on this edge, whatever the cap
    found = candidates(SHORT, weights)
    assert [candidate.max_skips for candidate in found] == [None, 2, 1, 0]
    assert [skips(candidate.genotype) for candidate in found] == [3, 2, 1, 0]
    skip, straight = "skip_connect", (("conv", 0), ("conv", 1))
    assert [normal(candidate.genotype) for candidate in found] == [
        ((("conv", 0), (skip, 1)), ((skip, 1), (skip, 2))),
        (straight, ((skip, 1), (skip, 2))),
        (straight, (("conv", 0), (skip, 2))),
        (straight, straight),
    ]


def test_every_number_of_skips_is_among_the_candidates() -> None:
    rows = {edge: {"skip_connect": 0.5 + 0.01 * edge} for edge in range(14)}
    found = candidates(DARTS, weights_of(DARTS, rows, rows))
    assert [candidate.max_skips for candidate in found] == [None, 7, 6, 5, 4, 3, 2, 1, 0]
    assert [skips(candidate.genotype) for candidate in found] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    scores = [candidate.score for candidate in found]
    assert scores == sorted(scores, reverse=True)


def test_score_is_the_sum_of_logs() -> None:
    weights = np.full(SHORT.mask.shape, 0.25)
    weights[0, 0, 2] = 0.5
    genotype = discretize(SHORT, weights)
    assert score(SHORT, weights, genotype) == pytest.approx(np.log(0.5) + 7 * np.log(0.25))
    weights[1, 0, 1] = 0.0
    assert score(SHORT, weights, genotype) == -np.inf


def arrays_for(space: SearchSpace) -> st.SearchStrategy[np.ndarray]:
    """Return a strategy for weights from 0 to 1, with many ties and zeros."""
    few = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0])
    return arrays.arrays(np.float64, space.mask.shape, elements=st.one_of(few, st.floats(0, 1)))


@pytest.mark.parametrize("name", SPACES)
@settings(deadline=None, max_examples=25)
@given(st.data())
def test_every_genotype_is_valid(name: str, data: st.DataObject) -> None:
    space = SPACES[name]
    weights = data.draw(arrays_for(space))
    cap = data.draw(st.sampled_from([None, 0, 1, 2, 3]))
    genotype = discretize(space, weights, cap)
    validate(genotype, space, "derived")
    assert cap is None or skips(genotype) <= cap
    plain = discretize(space, weights)
    assert genotype.cells.get("reduce") == plain.cells.get("reduce")
    if cap is None or skips(plain) <= cap:
        assert genotype == plain
    # Only the order of the weights matters.
    ranks = np.searchsorted(np.unique(weights), weights).astype(np.float64)
    assert discretize(space, ranks, cap) == genotype


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_candidates_cover_every_cap(data: st.DataObject) -> None:
    space = data.draw(st.sampled_from([DARTS, SHORT, BENCH]))
    weights = data.draw(arrays_for(space))
    found = candidates(space, weights)
    assert found[0] == Candidate(discretize(space, weights), None, score(space, weights, found[0].genotype))
    numbers = [skips(candidate.genotype) for candidate in found]
    assert numbers == sorted(numbers, reverse=True)
    assert len({str(candidate.genotype.cells) for candidate in found}) == len(found)
    for cap in range(len(space.edges)):
        assert discretize(space, weights, cap).cells in [candidate.genotype.cells for candidate in found]
    # Each genotype is listed with the highest cap that gives it.
    for candidate in found[1:]:
        assert candidate.max_skips is not None
        assert discretize(space, weights, candidate.max_skips).cells == candidate.genotype.cells
        assert discretize(space, weights, candidate.max_skips + 1).cells != candidate.genotype.cells


def test_the_rule_darts_matches_a_second_implementation() -> None:
    """The second implementation follows the definition directly; the random weights have no ties."""
    rng = np.random.default_rng(0)
    names = list(DARTS.primitives)
    for _ in range(20):
        weights = rng.random(DARTS.mask.shape)
        genotype = discretize(DARTS, weights)
        for kind, cell in enumerate(genotype.cells.values()):
            for number, node in enumerate(cell.nodes):
                rows = weights[kind, DARTS.edges_into(number), 1:]
                kept = sorted(range(2 + number), key=lambda source: rows[source].max())[-2:]
                expected = sorted((source, names[1 + int(rows[source].argmax())]) for source in kept)
                assert [(source, name) for name, source in node] == expected


def test_without_a_cap_no_genotype_scores_higher() -> None:
    rng = np.random.default_rng(0)
    weights = rng.random(DARTS.mask.shape)
    best = score(DARTS, weights, discretize(DARTS, weights))
    assert all(score(DARTS, weights, random_genotype(DARTS, rng)) < best for _ in range(200))

"""Random genotypes that meet conditions: the exact distribution in small spaces, and bands with few genotypes in a large space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from rapdarts.architecture.genotype import Genotype, one_hot, validate
from rapdarts.architecture.space import SKIP, SearchSpace, Skeleton
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy.budgets import budgets_on
from rapdarts.strategy.exact import Budgets, Infeasible
from rapdarts.strategy.random_cells import random_cells
from tests.enumerated import every_choice, with_paths

DARTS, BENCH = named_space("darts"), named_space("nasbench201")
SMALL = replace(DARTS.only(["none", SKIP, "sep_conv_3x3", "max_pool_3x3"]), nodes=2, candidates=())


def band(space: SearchSpace, skeleton: Skeleton, **bounds: tuple[float, float]) -> Budgets:
    """Return budgets with the given lowest and highest cost of each resource."""
    highest, lowest = ({name: pair[end] for name, pair in bounds.items()} for end in (1, 0))
    found = budgets_on(price_table(space, skeleton), highest, floors=lowest)
    assert found is not None
    return found


def allowed(space: SearchSpace, budgets: Budgets | None, max_skips: int | None) -> np.ndarray:
    """Return all genotypes of open candidates that meet every condition, as a bool array (genotypes, kinds, edges, primitives)."""
    choices = every_choice(space)
    within = with_paths(space, choices) & ~(choices & ~space.mask).any((1, 2, 3))
    if max_skips is not None:
        within &= choices[:, 0, :, space.columns[SKIP]].sum(-1) <= max_skips
    if budgets is not None:
        costs = budgets.fixed + np.einsum("gkep,rkep->gr", choices, budgets.prices)
        within &= ((costs >= budgets.floors) & (costs <= budgets.bounds)).all(-1)
    return np.asarray(choices[within])


def shares(space: SearchSpace, choices: np.ndarray) -> np.ndarray:
    """Return the probability (genotypes,) of each choice if every node's input set and every edge's open candidate are drawn uniformly."""
    open_ = (space.mask & space.choosable).sum(-1)
    odds = np.where(choices.any(-1), 1 / np.maximum(open_, 1), 1.0).prod((1, 2))
    return np.asarray(odds / odds.sum())


def surprise(space: SearchSpace, drawn: list[Genotype], choices: np.ndarray) -> float:
    """Return the p-value of the drawn genotypes under the exact distribution, by Pearson's chi-square test."""
    place = {choice.tobytes(): number for number, choice in enumerate(choices)}
    counts = np.zeros(len(choices))
    for genotype in drawn:
        counts[place[(one_hot(space, genotype) > 0).tobytes()]] += 1  # raises KeyError if the genotype is not allowed
    expected = len(drawn) * shares(space, choices)
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), len(choices) - 1))


# --- compared with the exact distribution ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "derive_none", "cap", "low", "high", "cells"),
    [
        ("any", True, None, 1.04e6, 1.16e6, 240),
        pytest.param("any", False, 1, 850e3, 890e3, 140, marks=pytest.mark.proof),
        ("one", False, 3, 600e3, 720e3, 82),
    ],
)
def test_all_cells_of_a_band_are_equally_likely(
    paths: str, derive_none: bool, cap: int | None, low: float, high: float, cells: int
) -> None:
    """The bands on parameters contain 240 of the 15,625 cells of NAS-Bench-201, and 140 and 82 of its 4,096 cells without `none`."""
    space = BENCH.deriving_none(derive_none).with_skip_paths(paths)
    budgets = band(space, Skeleton(*BENCH.deployment, (3, 32, 32), 10), params=(low, high))
    choices = allowed(space, budgets, cap)
    assert len(choices) == cells
    drawn = random_cells(space, np.random.default_rng(0), 300, budgets, cap)
    assert 0.01 < surprise(space, drawn, choices) < 0.99


def test_nodes_draw_uniform_inputs_and_edges_uniform_candidates() -> None:
    """On an edge with fewer candidates, each of them is more likely, as if nodes were drawn independently."""
    mask, columns = SMALL.mask, SMALL.columns
    mask[0, :2, [columns["max_pool_3x3"], columns["sep_conv_3x3"]]] = False  # node 0: skips and none
    mask[0, 2, [column for name, column in columns.items() if name != "sep_conv_3x3"]] = False
    mask[1, :, columns[SKIP]] = False
    mask[1, 3] = False
    space = SMALL.narrowed(mask)
    choices = allowed(space, None, 3)
    assert len(np.unique(shares(space, choices).round(6))) > 1
    drawn = random_cells(space, np.random.default_rng(0), 300, max_skips=3)
    assert 0.01 < surprise(space, drawn, choices) < 0.99
    assert all(genotype.cells["reduce"].nodes[1][0][1] == 0 for genotype in drawn)  # edge 3 has nothing left


# --- in a large space --------------------------------------------------------------------------------------------

MILLION = 1_000_000


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return price_table(DARTS, Skeleton(20, 36, (3, 32, 32), 10))


@pytest.fixture(scope="module")
def million(table: PriceTable) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Primitives of a million random cells of the darts space, (cells, kinds, edges), -1 on dropped edges, and their costs."""
    rng, usable = np.random.default_rng(0), np.flatnonzero(DARTS.choosable)
    columns = np.full((MILLION, *DARTS.mask.shape[:2]), -1, dtype=np.int8)
    for kind, node in np.ndindex(2, 4):
        first, inputs = DARTS.edges_into(node).start, 2 + node
        one = rng.integers(inputs, size=MILLION)
        for source in (one, (one + rng.integers(1, inputs, MILLION)) % inputs):
            columns[np.arange(MILLION), kind, first + source] = usable[rng.integers(len(usable), size=MILLION)]
    costs = {name: np.full(MILLION, table.fixed[table.row(name)]) for name in ("params", "macs")}
    for name, total in costs.items():
        priced = np.concatenate([table.prices[table.row(name)], np.zeros((2, 14, 1))], -1)  # a dropped edge is free
        for place in np.ndindex(2, 14):
            total += priced[place][columns[:, *place]]
    return columns, costs


def within(million: tuple[np.ndarray, dict[str, np.ndarray]], limits: dict[str, float], cap: int) -> np.ndarray:
    """Return the cells of the million that use 0.9 to 1 of every limit with at most `cap` skips, (cells, kinds, edges)."""
    columns, costs = million
    met = (columns[:, 0] == DARTS.columns[SKIP]).sum(-1) <= cap
    for name, limit in limits.items():
        met &= (costs[name] <= limit) & (costs[name] >= 0.9 * limit)
    return np.asarray(columns[met])


@pytest.mark.parametrize("limits", [{"params": 5.4e6}, {"params": 2.6e6, "macs": 474e6}], ids=str)
def test_genotypes_are_drawn_from_a_band_with_about_one_genotype_in_a_million(
    limits: dict[str, float], table: PriceTable, million: tuple[np.ndarray, dict[str, np.ndarray]]
) -> None:
    assert len(within(million, limits, 2)) <= 3
    budgets = budgets_on(table, limits, floors={name: 0.9 * limit for name, limit in limits.items()})
    drawn = random_cells(DARTS, np.random.default_rng(0), 10, budgets, 2)
    for genotype in drawn:
        validate(genotype, DARTS, "drawn")
        assert one_hot(DARTS, genotype)[0, :, DARTS.columns[SKIP]].sum() <= 2
        costs = table.exact(genotype)
        assert all(0.9 * limit <= costs[name] <= limit for name, limit in limits.items())
    assert len({str(genotype.cells) for genotype in drawn}) == len(drawn)


def test_random_genotypes_within_a_band_match_rejection_sampling(
    table: PriceTable, million: tuple[np.ndarray, dict[str, np.ndarray]]
) -> None:
    """Compare the frequency of each primitive and each edge with that in thousands of cells from rejection sampling."""
    limits = {"params": 2.8e6, "macs": 400e6}
    lucky = within(million, limits, 2)
    budgets = budgets_on(table, limits, floors={name: 0.9 * limit for name, limit in limits.items()})
    drawn = np.stack([one_hot(DARTS, one) > 0 for one in random_cells(DARTS, np.random.default_rng(0), 60, budgets, 2)])
    expected = np.stack([lucky == column for column in range(8)], -1)
    assert len(expected) > 10_000
    for axis in ((1, 2), (1, 3)):  # over kinds and edges, and over kinds and primitives
        ours, theirs = drawn.sum(axis), expected.sum(axis)
        spread = theirs.std(0) * np.sqrt(1 / len(ours) + 1 / len(theirs))
        far = np.abs(ours.mean(0) - theirs.mean(0))[spread > 0] / spread[spread > 0]
        assert far.max() < 3.5 and far.mean() > 0.3


def test_the_generator_determines_the_genotypes() -> None:
    one, same, other = (random_cells(BENCH, np.random.default_rng(seed), 5, max_skips=3) for seed in (0, 0, 1))
    assert one == same != other


def test_drawing_is_refused_if_no_genotype_is_allowed() -> None:
    space, rng = BENCH.deriving_none(False).with_skip_paths("any"), np.random.default_rng(0)
    narrow = band(space, Skeleton(*BENCH.deployment, (3, 32, 32), 10), params=(831e3, 858e3))
    with pytest.raises(
        Infeasible,
        match=r"at most 3 skips in its normal cell has at least 831,000 and at most 858,000 params; lower search.spend",
    ):
        random_cells(space, rng, 1, narrow, 3)
    skips = space.narrowed(np.broadcast_to([name == SKIP for name in space.primitives], space.mask.shape))
    with pytest.raises(Infeasible, match="with at most 3 skips in its normal cell is left"):
        random_cells(skips, rng, 1, max_skips=3)
    assert random_cells(skips, rng, 2, max_skips=6)[0].line.count(SKIP) == 6

"""Score of the protocol: the percentile of a derived cell among the cells of NAS-Bench-201 of equal cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.data.nasbench201 import accuracy_table, cell_index
from rapdarts.strategy.budgets import STEP
from rapdarts.strategy.derive import derive
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.rule import Rule
from tests.evidence.tasks import TASKS

BUDGETS, OTHER_BUDGETS = (11, 20, 28, 37), (12, 21, 30, 46)
ALL_BUDGETS = (*BUDGETS, *OTHER_BUDGETS)
"""Budgets in units: those of the score, then those that were not used to choose any setting."""

FIXED, UNIT = 1_946_240, 983_040
"""MACs of the deployed network at 16 x 16 pixels: the MACs of its fixed parts, and the MACs of one unit."""

PRICES = {"none": 0, "skip_connect": 0, "nor_conv_1x1": 1, "nor_conv_3x3": 9, "avg_pool_3x3": 0}

SPEND = 0.9

TASK = TASKS["nasbench201"]
MAX_SKIPS, SKIP_PATHS = TASK.space.max_skips, TASK.space.skip_paths


@cache
def all_cells() -> np.ndarray:
    """Return all cells as the index of the primitive on each edge, (15625, 6) of int."""
    return np.array(list(itertools.product(range(5), repeat=6)))


@cache
def truth(data_set: int = 0) -> np.ndarray:
    """Return the test accuracy of all cells in percent, (15625,): on CIFAR-10 (0), CIFAR-100 (1) or ImageNet16-120 (2)."""
    return accuracy_table().reshape(-1, 3)[:, data_set] / 100


@cache
def units() -> np.ndarray:
    """Return the costs of all cells in units, (15625,)."""
    return np.array([PRICES[name] for name in TASK.space.primitives])[all_cells()].sum(1)


@cache
def band(budget: int) -> np.ndarray:
    """Return the boolean mask (15625,) of the cells that use 0.9 to 1 of a budget."""
    return within(budget, SPEND)


def within(budget: int, spend: float) -> np.ndarray:
    """Return the boolean mask (15625,) of the cells that use `spend` to 1 of a budget."""
    return (units() <= budget) & (units() >= spend * budget)


@cache
def derivable(budget: int, skip_paths: str = SKIP_PATHS, spend: float = SPEND) -> np.ndarray:
    """Return the boolean mask (15625,) of the cells that a search could derive for a budget.

    These cells use at least the share `spend` of the budget's MACs. If no cell does, the share is lowered in steps, as in
    rapdarts.
    """
    cells, macs = allowed(skip_paths=skip_paths) & (units() <= budget), FIXED + UNIT * units()
    while not (found := cells & (macs >= spend * (FIXED + UNIT * budget))).any():
        spend -= STEP
    return found


@cache
def counts(name: str) -> np.ndarray:
    """Return how many edges of each cell have the primitive `name`, (15625,)."""
    return (all_cells() == TASK.space.columns[name]).sum(1)


@cache
def allowed(max_skips: int | None = MAX_SKIPS, none: bool = False, skip_paths: str = SKIP_PATHS) -> np.ndarray:
    """Return the boolean mask (15625,) of the cells that a search may derive, whatever their cost.

    `max_skips` is the cap on skips (None: no cap). `none` allows the primitive none. `skip_paths` is the condition on
    skip-only paths: "any" number, or exactly "one". In every case a path must lead from the input to the output.
    """
    cells = np.full(len(all_cells()), True) if max_skips is None else counts("skip_connect") <= max_skips
    if skip_paths == "one":
        cells = cells & (paths_of_skips() == 1)
    return cells & (paths(all_cells() != TASK.space.columns["none"])[:, -1] > 0) & (none or counts("none") == 0)


def paths(open_edges: np.ndarray) -> np.ndarray:
    """Return the number of paths over open edges, a boolean mask (n, 6), from the input to each of the three nodes, (n, 3)."""
    nodes = [np.ones(len(open_edges), dtype=int)]
    for node in range(TASK.space.nodes):
        into = open_edges[:, TASK.space.edges_into(node)]
        nodes.append(np.sum([edge * nodes[source] for source, edge in enumerate(into.T)], axis=0))
    return np.stack(nodes[1:], 1)


@cache
def paths_of_skips() -> np.ndarray:
    """Return the number of skip-only paths from input to output in each cell, (15625,)."""
    return paths(all_cells() == TASK.space.columns["skip_connect"])[:, -1]


def unreachable() -> np.ndarray:
    """Return the boolean mask (15625,) of the cells with a node that no path from the input reaches."""
    return ~(paths(all_cells() != TASK.space.columns["none"]) > 0).all(1)


def number(genotype: Genotype) -> int:
    """Return the index of a cell in `all_cells`."""
    return int(np.ravel_multi_index(cell_index(genotype), (5,) * 6))


def genotype(cell: int) -> Genotype:
    """Return the genotype of the cell with this index in `all_cells`."""
    chosen = np.zeros(TASK.space.mask.shape)
    chosen[0, np.arange(6), all_cells()[cell]] = 1
    return discretize(space_with(none=True), chosen)


@cache
def space_with(none: bool, skip_paths: str = SKIP_PATHS) -> SearchSpace:
    """Return the space with a condition on skip-only paths; `none` allows edges to be derived as none."""
    return replace(TASK.space, derive_none=none, skip_paths=skip_paths)


def derived(
    weights: np.ndarray,
    budget: int,
    max_skips: int | None = MAX_SKIPS,
    spend: float = SPEND,
    none: bool = False,
    skip_paths: str = SKIP_PATHS,
) -> int:
    """Return the cell that rapdarts derives from mixing weights (1, 6, 5) within a budget in units."""
    limits = {"macs": float(FIXED + UNIT * budget)}
    rule = Rule("exact", max_skips, limits, {"macs": spend} if spend else {})
    space = space_with(none, skip_paths)
    return number(derive(space, weights, replace(TASK.table, space=space), rule, {}).genotype)


def strongest(weights: np.ndarray, cells: np.ndarray) -> int:
    """Return the cell with the largest product of mixing weights (1, 6, 5) in the mask `cells` (15625,), by enumeration."""
    places = np.flatnonzero(cells)
    scores = np.log(weights[0])[np.arange(6), all_cells()[places]].sum(1)
    return int(places[scores.argmax()])


@cache
def scores(budget: int, data_set: int = 0) -> np.ndarray:
    """Return the percentage of a budget's band that is less accurate than each cell, (15625,); equal accuracies count half."""
    others = np.sort(truth(data_set)[band(budget)])
    below, up_to = (np.searchsorted(others, truth(data_set), side) for side in ("left", "right"))
    return 100 * (below + up_to) / 2 / len(others)


def score(cells: Sequence[int], budgets: Sequence[int] = BUDGETS, data_set: int = 0) -> float:
    """Return the mean score of cells, one for each budget."""
    return float(np.mean([scores(budget, data_set)[cell] for cell, budget in zip(cells, budgets, strict=True)]))

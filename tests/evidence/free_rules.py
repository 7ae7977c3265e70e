"""Rules that need no search: the exact mean score of the cells that each can choose on NAS-Bench-201."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rapdarts.architecture.genotype import Genotype
from tests.evidence import nasbench

Cells = Callable[[int], np.ndarray]
"""Function from a budget to the boolean mask (15625,) of the cells that a rule may choose."""

POOLS = ("avg_pool_3x3", "max_pool_3x3")


def pools(genotype: Genotype) -> int:
    """Return the number of pools in a genotype."""
    return sum(name in POOLS for cell in genotype.cells.values() for node in cell.nodes for name, _ in node)


def among(cells: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the indices of the cells that have the lowest of `values` (n,) among the cells in the mask `cells` (n,)."""
    return np.flatnonzero(cells & (values == values[cells].min()))


def any_cell(budget: int, data_set: int = 0) -> float:
    """Return the mean score of a random cell of a budget's band, which is 50 by definition."""
    return _mean(np.flatnonzero(nasbench.band(budget)), budget, data_set)


def random_cell(budget: int, data_set: int = 0, cells: Cells = nasbench.derivable) -> float:
    """Return the mean score of a random cell among `cells(budget)`, by default the cells that a search could derive."""
    return _mean(np.flatnonzero(cells(budget)), budget, data_set)


def fewest_pools(budget: int, data_set: int = 0, cells: Cells = nasbench.derivable) -> float:
    """Return the mean score of a random cell among those with the fewest average pools."""
    return _mean(among(cells(budget), nasbench.counts("avg_pool_3x3")), budget, data_set)


def most_expensive(budget: int, data_set: int = 0, cells: Cells = nasbench.derivable) -> float:
    """Return the mean score of a random cell among the most expensive ones."""
    return _mean(among(cells(budget), -nasbench.units()), budget, data_set)


def best_of_five(budget: int, data_set: int = 0, cells: Cells = nasbench.derivable) -> float:
    """Return the mean score of the most accurate of five random cells, drawn with replacement."""
    values = np.sort(nasbench.scores(budget, data_set)[cells(budget)])
    none_above = (np.arange(len(values) + 1) / len(values)) ** 5  # probability that all five are among the k lowest
    return float(values @ np.diff(none_above))


def over(budgets: Sequence[int], rule: Callable[[int, int], float], data_set: int = 0) -> float:
    """Return the score of a rule, averaged over budgets."""
    return float(np.mean([rule(budget, data_set) for budget in budgets]))


def _mean(cells: np.ndarray, budget: int, data_set: int) -> float:
    return float(nasbench.scores(budget, data_set)[cells].mean())

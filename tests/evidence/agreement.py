"""Table of agreement: how similar searches are that differ only in their seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from rapdarts.strategy.agreement import contrasts
from tests.evidence import nasbench, searches, variants
from tests.evidence.figures import Mean, spearman
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, ranges, table


def section(rows: Rows) -> list[str]:
    """Return the section as lines, with a row for each variant and each window of tuning seeds with at least two searches."""
    known = [(seeds, name) for seeds, name in variants.known(rows) if len(seeds) > 1]
    heading = ["## How well two searches agree", ""]
    if not known:
        return [*heading, NOT_RUN, ""]
    expected = np.mean([chance(budget) for budget in nasbench.BUDGETS])
    return [
        *heading,
        *paragraph(
            f"""All values are means over all pairs of searches from the table above that differ only in their seed. *Rank correlation* is
            the value that a search with replicas reports: Spearman's rank correlation of the log mixing weights of all candidates except
            `none`, after subtracting the mean of each edge. Its error is a jackknife estimate over searches. *Means of three* is the
            expected correlation of two means of three searches each (Spearman 1910, Brown 1910; 0 if the rank correlation is negative).
            *Agreement* is the number of edges, out of six, on whose primitive the two derived cells agree, averaged over the
            four budgets of the score. Two random cells that a search could have derived agree on {expected:.2f} edges on average."""
        ),
        *table(
            ["variant", "n", "seeds", "rank correlation", "means of three", "agreement"],
            [row(rows, name, seeds) for seeds, name in known],
        ),
    ]


def row(rows: Rows, name: str, seeds: Sequence[int]) -> list[object]:
    """Return the row of a variant for some seeds."""
    weights = searches.weights_of(rows, name, seeds)
    found = correlation(weights)
    return [
        f"`{name}`",
        len(seeds),
        ranges(seeds),
        found.text(places=2),
        f"{of_means(found.value, 3):.2f}",
        f"{equal_choices(weights):.2f}",
    ]


def correlation(weights: Sequence[np.ndarray]) -> Mean:
    """Return the mean rank correlation over all pairs of mixing weights, (1, 6, 5) each, with its jackknife error over searches."""
    n, values = len(weights), [contrasts(nasbench.TASK.space, one) for one in weights]
    pairs = np.zeros((n, n))
    for one, other in itertools.combinations(range(n), 2):
        pairs[one, other] = pairs[other, one] = spearman(values[one], values[other])
    value = float(pairs.sum() / (n * (n - 1)))
    if n < 3:
        return Mean(value, None, n)
    without = (pairs.sum() - 2 * pairs.sum(1)) / ((n - 1) * (n - 2))
    return Mean(value, float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())), n)


def of_means(correlation: float, n: int) -> float:
    """Return the correlation of two means of `n` searches each, from the correlation of two searches (Spearman-Brown formula)."""
    r = max(0.0, correlation)
    return n * r / (1 + (n - 1) * r)


def equal_choices(weights: Sequence[np.ndarray]) -> float:
    """Return the number of edges with the same primitive in two derived cells, averaged over all pairs and the budgets of the score."""
    found = []
    for budget in nasbench.BUDGETS:
        cells = nasbench.all_cells()[[nasbench.strongest(one, nasbench.derivable(budget)) for one in weights]]
        found += [(first == second).sum() for first, second in itertools.combinations(cells, 2)]
    return float(np.mean(found))


def chance(budget: int) -> float:
    """Return the exact expected number of edges with the same primitive in two random cells for a budget."""
    shares = (nasbench.all_cells()[nasbench.derivable(budget)][..., None] == np.arange(5)).mean(0)
    return float((shares**2).sum())

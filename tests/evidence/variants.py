"""The page's table of variants: every change of the search's settings that was tried, on tuning seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from tests.evidence import nasbench, searches
from tests.evidence.figures import mean
from tests.evidence.plan import WINDOWS
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table


def section(rows: Rows) -> list[str]:
    """Return the table as lines: a row for each variant and each window of tuning seeds."""
    names = sorted(rows["searches"], key=lambda name: (name != searches.PLAIN, name))
    known = [(seeds, name) for window in WINDOWS for name in names if (seeds := searches.seeds_of(rows, name, window))]
    heading = ["## Every variant that was tried", ""]
    if not known:
        return [*heading, NOT_RUN, ""]
    head = ["variant", "n", "seeds", "one search", "three averaged", "gain", "CPU s a search"]
    return [
        *heading,
        *paragraph(
            "Settings on top of the protocol's, and the CIFAR-10 score. Three are averaged in disjoint groups, in the order of their seeds."
            f" *Gain* is the mean paired difference of one search from `{searches.PLAIN}`, over the seeds that both have."
        ),
        *table(head, [row(rows, name, seeds) for seeds, name in known]),
        *sources(one for seeds, name in known for one in searches.origins(rows, name, seeds)),
    ]


def row(rows: Rows, name: str, seeds: Sequence[int]) -> list[object]:
    """Return the row of a variant on some seeds."""
    three = scores(searches.groups(searches.weights_of(rows, name, seeds), 3))
    seconds = np.mean(searches.cpu_seconds(rows, name, seeds))
    averaged = f"{mean(three)} (n = {len(three)})" if three else "–"
    one = mean(scores(searches.weights_of(rows, name, seeds)))
    return [f"`{name}`", len(seeds), ranges(seeds), one, averaged, gain(rows, name, seeds), f"{seconds:.1f}"]


def gain(rows: Rows, name: str, seeds: Sequence[int]) -> str:
    """Return the mean paired difference from the variant that changes nothing."""
    common = searches.seeds_of(rows, searches.PLAIN, seeds)
    if name == searches.PLAIN or not common:
        return "–"
    changed, plain = (scores(searches.weights_of(rows, one, common)) for one in (name, searches.PLAIN))
    return mean((np.array(changed) - np.array(plain)).tolist()).text(sign=True)


def scores(weights: Sequence[np.ndarray]) -> list[float]:
    """Return the CIFAR-10 score of each of several mixing weights (1, 6, 5), by enumeration of all cells."""
    return [
        nasbench.score([nasbench.strongest(one, derivable(budget)) for budget in nasbench.BUDGETS]) for one in weights
    ]


@cache
def derivable(budget: int) -> np.ndarray:
    """Return which cells a search derives for a budget, (15625,) of bool."""
    return nasbench.allowed() & nasbench.band(budget)

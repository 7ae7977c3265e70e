"""The page's table of derivations: the same mixing weights, turned into cells under different conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.evidence import nasbench, searches
from tests.evidence.figures import Mean, mean
from tests.evidence.plan import CURRENT, WINDOWS
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table


@dataclass(frozen=True)
class Conditions:
    """What a derived cell has to meet besides its budget.

    `spend` is the share of the budget that it uses at least, `max_skips` the cap on skips (None: no cap). `none` allows
    edges without anything; `skip_paths` allows a path of skips alone from input to output.
    """

    name: str
    spend: float
    max_skips: int | None
    none: bool = False
    skip_paths: bool = True

    def cells(self, budget: int) -> np.ndarray:
        """Return which cells meet them and the budget, (15625,) of bool."""
        cells = nasbench.allowed(self.max_skips, self.none) & nasbench.within(budget, self.spend)
        return cells if self.skip_paths else cells & ~nasbench.path_of_skips()

    def derived(self, weights: np.ndarray, budget: int) -> int:
        """Return the cell that is derived from mixing weights (1, 6, 5): by the product wherever it has these conditions."""
        if not self.skip_paths:
            return nasbench.strongest(weights, self.cells(budget))
        return nasbench.derived(weights, budget, self.max_skips, self.spend, self.none)


CONDITIONS = (
    Conditions("any share of the budget, `none` allowed, at most 2 skips", 0.0, 2, none=True),
    Conditions("at least 0.9 of it, `none` allowed, at most 2 skips", 0.9, 2, none=True),
    Conditions("at least 0.9, no `none`, any number of skips", 0.9, None),
    Conditions("at least 0.9, no `none`, at most 2 skips", 0.9, 2),
    Conditions("at least 0.9, no `none`, at most 3 skips (the default)", 0.9, 3),
    Conditions("at least 0.9, no `none`, no path of skips alone", 0.9, None, skip_paths=False),
)


def section(rows: Rows) -> list[str]:
    """Return the table as lines."""
    seeds = searches.seeds_of(rows, CURRENT.name, WINDOWS[0])
    heading = ["## Which cells may be derived", ""]
    if not seeds:
        return [*heading, NOT_RUN, ""]
    weights = searches.weights_of(rows, CURRENT.name, seeds)
    lines, means = [], []
    for conditions in CONDITIONS:
        chance = [chance_of(conditions, budget) for budget in nasbench.ALL_BUDGETS]
        scores = scores_of(conditions, weights)
        cells = [f"{low:.0f} / {high:.0f}" for low, high in zip(chance, scores.mean(0), strict=True)]
        means.append(mean(scores[:, :4].mean(1).tolist()))
        lines.append([conditions.name, *cells[:4], f"{np.mean(chance[:4]):.1f} / {means[-1]}", *cells[4:]])
    head = ["a cell uses", *map(str, nasbench.BUDGETS), "mean of these", *map(str, nasbench.OTHER_BUDGETS)]
    return [
        *heading,
        *paragraph(
            f"""The CIFAR-10 score by budget, in units: of a random cell that meets the conditions / of what the searches
            `{CURRENT.name}` from the tuning seeds {ranges(seeds)} (n = {len(seeds)}) derive under them. The last row is by enumeration of
            all cells, the others by the integer program that every search ends with."""
        ),
        *table(head, lines),
        *paragraph(summary(means)),
        *sources(searches.origins(rows, CURRENT.name, seeds)),
    ]


def chance_of(conditions: Conditions, budget: int) -> float:
    """Return the mean score of a random cell that meets the conditions and a budget."""
    return float(nasbench.scores(budget)[conditions.cells(budget)].mean())


def scores_of(conditions: Conditions, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the scores of what is derived from the mixing weights of searches, (searches, budgets)."""
    return np.array([[nasbench.scores(b)[conditions.derived(one, b)] for b in nasbench.ALL_BUDGETS] for one in weights])


def summary(means: Sequence[Mean]) -> str:
    """Return the sentence that says what each condition changes for the searches."""
    anything, spent, uncapped, two, three, pathless = (f"{one.value:.0f}" for one in means)
    return (
        f"Spending takes the searches' mean from {anything} to {spent}, and leaving out `none` to {two}; without a cap on skips"
        f" it is {uncapped}, with one of three {three}, and {pathless} where only a path of skips alone is ruled out."
    )

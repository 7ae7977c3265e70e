"""Section of `rapdarts find` on NAS-Bench-201: its way against random cells with the same compute, and the ways that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapdarts.data.nasbench201 import DATA_SETS
from rapdarts.errors import plural
from tests.evidence import free_rules, nasbench
from tests.evidence.figures import Mean, mean, paired_gain
from tests.evidence.finding import (
    RECIPE_BUDGET,
    RECIPE_CELLS,
    TEST_SEEDS,
    TUNING_SEEDS,
    WAYS,
    Way,
    results_of,
    seconds_of,
    winner,
)
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows, origin_of
from tests.evidence.tables import NOT_RUN, paragraph, sources, table

GOAL = 88.0
"""Score that `rapdarts find` should reach."""


@dataclass(frozen=True)
class Groups:
    """Groups of searches whose cells were halved at every budget, with their results, by budget, and the pace of the work."""

    way: Way
    results: Sequence[Rows]
    pace: Rows

    @classmethod
    def of(cls, rows: Rows, way: Way, seeds: range) -> Groups:
        """Return the groups of a way whose seeds are among `seeds` and that are finished."""
        names = {str(budget) for budget in nasbench.BUDGETS}
        results = [one for one in results_of(rows, way, seeds).values() if names <= one.keys()]
        return cls(way, results, rows.get("pace", {}))

    def cells(self, source: str) -> list[list[int]]:
        """Return the cell of each group at each budget: the winner of a source, or the "first" one, before any training."""
        return [
            [one[str(b)]["first"] if source == "first" else winner(one[str(b)][source]) for b in nasbench.BUDGETS]
            for one in self.results
        ]

    def scores(self, source: str, data_set: int = 0) -> list[float]:
        """Return the score of each group's cells."""
        return [nasbench.score(one, nasbench.BUDGETS, data_set) for one in self.cells(source)]

    def ahead(self, source: str, data_set: int = 0) -> Mean:
        """Return the mean paired difference between the score of the way and that of another source."""
        return paired_gain(self.scores("way", data_set), self.scores(source, data_set))

    def seconds(self, source: str) -> float:
        """Return the time of the training steps of a source for one budget, in CPU seconds, averaged over groups and budgets."""
        searched = 0.0 if source == "random" else self.way.replicas * self.pace["search"]
        trained = [
            seconds_of(one[str(b)][source], self.pace, b)
            for one in self.results
            for b in nasbench.BUDGETS
            if source != "first"
        ]
        return searched + (float(np.mean(trained)) if trained else 0.0)


def section(rows: Rows) -> list[str]:
    """Return the section as lines."""
    heading = ["## `rapdarts find` against random cells with the same compute", ""]
    found = Groups.of(rows, WAYS[0], TEST_SEEDS)
    if not found.results:
        return [*heading, NOT_RUN, ""]
    chance = free_rules.over(nasbench.BUDGETS, lambda b, k: free_rules.random_cell(b, k, CURRENT.cells))
    return [
        *heading,
        *paragraph(
            f"""For each budget, this is the way of `rapdarts find`: the best cells by the mean of three searches are halved by short
            trainings ({WAYS[0].words}) on half of the training images; the other half compares them. Random cells that meet the same
            conditions are given the same compute, that is, the training steps of the searches and of the halving, each weighted by
            its time, equal within 5 %; the number of cells and the length of the last round are chosen as by `proof=true`. Both are
            scored like the cells of the attempts above, by their known accuracy, and a random cell that is not trained at all scores
            {chance:.1f}. The seeds {TEST_SEEDS[0]}-{TEST_SEEDS[-1]} were used once. Unlike the replicas of `rapdarts find`, the
            searches run without a budget and serve all four budgets, although each budget pays for them in full, and each of them
            sees its own part of the training images."""
        ),
        *table(["", "n", *DATA_SETS, "CPU s per budget"], main_rows(found)),
        *paragraph(verdict(found)),
        *table(["difference in CIFAR-10 score", *(f"{b} units" for b in nasbench.BUDGETS)], by_budget(found)),
        *ways(rows),
        *recipes(rows),
        *sources(origins(rows)),
    ]


def main_rows(found: Groups) -> list[list[object]]:
    """Return the rows of the comparison: the way, its first cells without training, the random cells, and the difference."""
    kinds = {
        "`rapdarts find`: the best cells of three searches, halved": "way",
        "the best cell of the same three searches, not trained": "first",
        "random cells, halved": "random",
    }
    n, several = len(found.results), range(len(DATA_SETS))
    lines: list[list[object]] = [
        [words, n, *(mean(found.scores(source, k)) for k in several), f"{found.seconds(source):.0f}"]
        for words, source in kinds.items()
    ]
    gains = [found.ahead("random", k).text(sign=True) for k in several]
    return [*lines, ["`rapdarts find` minus random cells, paired", n, *gains, "–"]]


def by_budget(found: Groups) -> list[list[object]]:
    """Return the paired differences from random cells, and from the first cells, for each budget."""
    lines: list[list[object]] = []
    for words, source in (("from random cells, halved", "random"), ("from the best cell, not trained", "first")):
        pairs = zip(np.array(found.cells("way")).T, np.array(found.cells(source)).T, nasbench.BUDGETS, strict=True)
        gains = [
            paired_gain(nasbench.scores(b)[own].tolist(), nasbench.scores(b)[other].tolist()) for own, other, b in pairs
        ]
        lines.append([words, *(one.text(sign=True) for one in gains)])
    return lines


def verdict(found: Groups) -> str:
    """Return the sentences on the goals, a score and two standard errors ahead of random cells; so far only the number of groups."""
    n, planned = len(found.results), len(TEST_SEEDS) // found.way.replicas
    if n < planned:
        return f"So far, {n} of {plural(planned, 'group')} are finished. The goals are judged when all are."
    own, ahead = mean(found.scores("way")), found.ahead("random")
    error = ahead.error or 0.0
    reached = "reached" if own.value >= GOAL else "missed"
    beaten = "reached" if ahead.value > 2 * error > 0 else "missed"
    return (
        f"One goal, a score of at least {GOAL:.0f}, is {reached} ({own.value:.1f}); the other, to be two standard errors ahead of the"
        f" random cells, is {beaten} ({ahead.value:+.1f}, standard error {error:.1f})."
    )


def ways(rows: Rows) -> list[str]:
    """Return the table of the ways that were tried on tuning seeds as lines; empty if there are none."""
    tried = [found for way in WAYS if (found := Groups.of(rows, way, TUNING_SEEDS)).results]
    if not tried:
        return []
    head = ["way", "n", "score", "random cells, halved", "difference", "gain by halving", "CPU s per budget"]
    lines = [
        [
            one.way.words,
            len(one.results),
            mean(one.scores("way")),
            mean(one.scores("random")),
            one.ahead("random").text(sign=True),
            one.ahead("first").text(sign=True),
            f"{one.seconds('way'):.0f}",
        ]
        for one in tried
    ]
    return [
        *paragraph(
            f"""Ways that were tried on the tuning seeds {TUNING_SEEDS[0]}-{TUNING_SEEDS[-1]}, each against random cells with its own
            compute. *Gain by halving* is the paired difference from the best cell of the searches. Where few cells differ on as many
            edges as a way demands, it halves fewer cells, and so do its random cells."""
        ),
        *table(head, lines),
    ]


def recipes(rows: Rows) -> list[str]:
    """Return the sentences on the choice of the short trainings' recipe as lines; empty if none was tried."""
    tried = rows.get("recipes", {"tried": {}})["tried"]
    if not tried:
        return []
    each = ", ".join(f"{one['correlation']:.2f} with `{name}`" for name, one in tried.items())
    return paragraph(
        f"""The recipe of the short trainings was chosen by the rank correlation between the accuracies of
            {plural(RECIPE_CELLS, "random cell")} of {RECIPE_BUDGET} units after one epoch and their true accuracies: {each}."""
    )


def origins(rows: Rows) -> list[Rows]:
    """Return the command, date and machine of every comparison on the page, of the pace and of the recipes."""
    known = rows["find"]
    found = [one for way in known["ways"].values() for group in way.values() for one in group.values()]
    return [*(origin_of(one, known) for one in found), *(rows[name] for name in ("pace", "recipes") if name in rows)]

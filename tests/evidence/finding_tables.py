"""Section of `rapdarts find` on NAS-Bench-201: its way against random cells with the same compute, and the ways that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.evidence import nasbench
from tests.evidence.figures import Mean, mean, paired_gain
from tests.evidence.finding import TEST_SEEDS, TUNING_SEEDS, WAYS, Way
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, sources, table

COLUMNS = ("CIFAR-10", "CIFAR-100", "ImageNet16-120")


@dataclass(frozen=True)
class Groups:
    """The groups of searches whose cells were halved at all budgets: their results, by budget."""

    results: Sequence[Rows]

    @classmethod
    def of(cls, rows: Rows, way: Way, seeds: range) -> Groups:
        """Return the finished groups of a way whose seeds are among `seeds`."""
        known = rows.get("find", {"ways": {}})["ways"].get(way.name, {})
        names = [str(budget) for budget in nasbench.BUDGETS]
        return cls([one for seed, one in known.items() if int(seed) in seeds and all(name in one for name in names)])

    def cells(self, source: str) -> list[list[int]]:
        """Return the winner of each group at each budget, from the "way" or the "random" cells."""
        return [[one[str(budget)][source]["winner"] for budget in nasbench.BUDGETS] for one in self.results]

    def first(self) -> list[list[int]]:
        """Return the cell that the searches of each group rank first at each budget, before any training."""
        return [[one[str(budget)]["way"]["first"] for budget in nasbench.BUDGETS] for one in self.results]

    def scores(self, cells: Sequence[Sequence[int]], data_set: int = 0) -> list[float]:
        """Return the score of each group's cells."""
        return [nasbench.score(one, nasbench.BUDGETS, data_set) for one in cells]

    def seconds(self, source: str) -> float:
        """Return the mean CPU time for one budget: of a group's searches, or of the short trainings of a source."""
        found = []
        for one in self.results:
            for budget in map(str, nasbench.BUDGETS):
                found.append(one[budget]["searches"] if source == "searches" else trained(one[budget][source]))
        return float(np.mean(found))


def trained(halving: Rows) -> float:
    """Return the CPU time of the short trainings of a halving."""
    return float(halving["epoch_seconds"] * sum(one["epochs"] * len(one["accuracies"]) for one in halving["rounds"]))


def section(rows: Rows) -> list[str]:
    """Return the section as lines."""
    heading = ["## `rapdarts find` against random cells with the same compute", ""]
    found = Groups.of(rows, WAYS[0], TEST_SEEDS)
    if not found.results:
        return [*heading, NOT_RUN, ""]
    return [
        *heading,
        *paragraph(
            f"""For each budget, the way of `rapdarts find` takes the {2 ** WAYS[0].halvings} best cells by the mean of three searches, and
            halves them by short trainings ({in_words(WAYS[0])}) on half of the search's training images; the other half compares them.
            Random cells that meet the same conditions are given the same compute: the CPU time of the searches, and that of the short
            trainings, together. Their number and the length of their last round are chosen as `proof=true` does. The seeds
            {TEST_SEEDS[0]}-{TEST_SEEDS[-1]} were used once. Both are scored like the cells of the attempts above: by their known accuracy,
            which no training here had seen. A random cell without any training scores 70.8."""
        ),
        *table(["", "n", *COLUMNS, "CPU s per budget"], main_rows(found)),
        *paragraph(verdict(found)),
        *remedies(rows),
        *sources(origins(rows)),
    ]


def in_words(way: Way) -> str:
    """Return the rounds of a way in words."""
    return ", ".join(f"{one.networks} for {one.epochs} epoch{'s' if one.epochs > 1 else ''}" for one in way.rounds)


def main_rows(found: Groups) -> list[list[object]]:
    """Return the rows of the comparison: the way, its first cells without training, and the random cells."""
    searched, own, random = (found.seconds(source) for source in ("searches", "way", "random"))
    kinds = {
        "`rapdarts find`: eight best cells of three searches, halved": (found.cells("way"), searched + own),
        "the best cell of the same three searches, untrained": (found.first(), searched),
        "random cells, halved": (found.cells("random"), random),
    }
    lines: list[list[object]] = [
        [words, len(cells), *(mean(found.scores(cells, k)) for k in range(3)), f"{seconds:.0f}"]
        for words, (cells, seconds) in kinds.items()
    ]
    gains = [difference(found, "random", k).text(sign=True) for k in range(3)]
    return [*lines, ["difference from random cells, paired", len(found.results), *gains, "–"]]


def difference(found: Groups, source: str, data_set: int = 0) -> Mean:
    """Return the mean paired difference of the way's score from that of the "random" cells, or of the "first" ones."""
    others = found.first() if source == "first" else found.cells(source)
    return paired_gain(found.scores(found.cells("way"), data_set), found.scores(others, data_set))


def verdict(found: Groups) -> str:
    """Return the sentences on the goal: a score of at least 88, and two standard errors ahead of random cells."""
    own, ahead = mean(found.scores(found.cells("way"))), difference(found, "random")
    error = ahead.error or 0.0
    reached = "reached" if own.value >= 88 else "missed"
    beaten = "reached" if ahead.value > 2 * error > 0 else "missed"
    return (
        f"One goal, a score of at least 88, is {reached} ({own.value:.1f}); the other, to be two standard errors ahead of the random cells,"
        f" is {beaten} ({ahead.value:+.1f}, standard error {error:.1f})."
    )


def remedies(rows: Rows) -> list[str]:
    """Return the table of the ways that were tried on tuning seeds as lines; empty if there are none."""
    lines = []
    for way in WAYS:
        found = Groups.of(rows, way, TUNING_SEEDS)
        if found.results:
            seconds = found.seconds("searches") + found.seconds("way")
            lines.append([
                way.words, len(found.results), mean(found.scores(found.cells("way"))), mean(found.scores(found.cells("random"))),
                difference(found, "random").text(sign=True), difference(found, "first").text(sign=True), f"{seconds:.0f}",
            ])  # fmt: skip
    if not lines:
        return []
    head = ["way", "n", "score", "random cells, halved", "difference", "gain by halving", "CPU s per budget"]
    return [
        *paragraph(
            f"""Other ways, tried on the tuning seeds {TUNING_SEEDS[0]}-{TUNING_SEEDS[-1]}, each against random cells with its own compute.
            *Gain by halving* is the paired difference from the best cell of the searches, untrained."""
        ),
        *table(head, lines),
    ]


def origins(rows: Rows) -> list[Rows]:
    """Return the command, date and machine of every comparison on the page."""
    known = rows["find"]
    found = [one for way in known["ways"].values() for group in way.values() for one in group.values()]
    return [{fact: one.get(fact, known[fact]) for fact in ("command", "date", "machine")} for one in found]

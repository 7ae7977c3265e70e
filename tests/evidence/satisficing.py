"""Cost of a cell that satisfices (Simon 1956): expected CPU time until a cell within a budget reaches an accuracy, by several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rapdarts.strategy.replicas import mean_weights
from rapdarts.training.intervals import wilson
from tests.evidence import nasbench, searches
from tests.evidence.banks import genotype_of
from tests.evidence.figures import spearman
from tests.evidence.finding import TEST_SEEDS, WAYS
from tests.evidence.finding_tables import trained
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows

BUDGETS, ACCURACIES = (11, 20, 28), (92.0, 93.0, 93.5)
"""Budgets in units, and accuracies on CIFAR-10 in percent."""

SETS = (4, 8)
"""Numbers of random cells of which the best after one epoch of training is proposed."""

AGREED = 0.3
"""Rank correlation of two searches from which no third one is run."""

CHEAPER: Mapping[str, Mapping[str, Any]] = {
    "half the epochs": {"search.epochs": 4},
    "a quarter of the epochs": {"search.epochs": 2},
    "half the channels": {"search.channels": 4},
    "images of 8 x 8 pixels": {"data.size": 8},
}
"""Settings that make a search cheaper, by their name on the page."""

TUNING_SEEDS = range(12)
"""Seeds of the searches with cheaper settings."""

EVERY_SEED = (*CURRENT.seeds, *TEST_SEEDS)
"""Seeds on which the current attempt's settings were not chosen."""


@dataclass(frozen=True)
class Proposals:
    """Cells that a method proposed for a budget, and the mean CPU time of a proposal, in seconds.

    They are `exact` if they are all cells from which the method draws at random; the others are a sample.
    """

    cells: Sequence[int]
    seconds: float
    exact: bool = False

    def chance(self, accuracy: float) -> float:
        """Return the probability that a proposal reaches an accuracy in percent."""
        return float((nasbench.truth()[list(self.cells)] >= accuracy).mean())

    def minutes(self, accuracy: float) -> float:
        """Return the expected CPU time until a proposal reaches an accuracy, in minutes; infinite if none did."""
        return minutes(self.seconds, self.chance(accuracy))

    def limits(self, accuracy: float) -> tuple[float, float]:
        """Return the 95 % interval of `minutes`, from that of the probability (Wilson 1927)."""
        low, high = wilson(self.chance(accuracy), len(self.cells))
        return minutes(self.seconds, high), minutes(self.seconds, low)


def run(jobs: int) -> None:
    """Run the missing searches with cheaper settings."""
    for keys in CHEAPER.values():
        searches.run_series("nasbench201", {**CURRENT.keys, **keys}, TUNING_SEEDS, jobs)


def minutes(seconds: float, chance: float) -> float:
    """Return the expected time until success, in minutes, of independent attempts that take some seconds each."""
    return seconds / chance / 60 if chance else np.inf


def methods(rows: Rows, budget: int) -> dict[str, Proposals]:
    """Return the proposals of all methods that have been run for a budget, by name."""
    single, groups = EVERY_SEED, [range(seed, seed + 3) for seed in EVERY_SEED[::3]]
    found = {
        "a random cell": Proposals(np.flatnonzero(CURRENT.cells(budget)).tolist(), 0.0, exact=True),
        **{f"the best of {number} random cells after one epoch": best_of(rows, number, budget) for number in SETS},
        "random cells, halved": halved(rows, "random", budget),
        "the best of ten random cells by NASWOT": by_naswot(rows, budget),
        "one search": averaged(rows, CURRENT.name, [[seed] for seed in single], budget),
        "three searches averaged": averaged(rows, CURRENT.name, groups, budget),
        f"two searches, and a third if their rank correlation is below {AGREED}": stopped_early(rows, groups, budget),
        "`rapdarts find`: eight cells of three searches, halved": halved(rows, "way", budget),
    }
    return {name: one for name, one in found.items() if one.cells}


def cheaper(rows: Rows, budget: int) -> dict[str, Proposals]:
    """Return the proposals of searches with cheaper settings on tuning seeds, one by one and averaged, by name."""
    groups = {"one search": 1, "three searches averaged": 3}
    found = {}
    for words, keys in {"as above": {}, **CHEAPER}.items():
        for kind, size in groups.items():
            sets = [TUNING_SEEDS[start : start + size] for start in TUNING_SEEDS[::size]]
            found[f"{kind}, {words}"] = averaged(rows, searches.variant_name({**CURRENT.keys, **keys}), sets, budget)
    return {name: one for name, one in found.items() if one.cells}


def averaged(rows: Rows, name: str, groups: Sequence[Sequence[int]], budget: int) -> Proposals:
    """Return the cells derived from averages of the searches of a variant, one for each group of seeds that has been run."""
    known = [group for group in groups if len(searches.seeds_of(rows, name, group)) == len(group)]
    cells = [
        nasbench.strongest(mean_weights(searches.weights_of(rows, name, group)), CURRENT.cells(budget))
        for group in known
    ]
    return Proposals(cells, average([sum(searches.cpu_seconds(rows, name, group)) for group in known]))


def stopped_early(rows: Rows, groups: Sequence[Sequence[int]], budget: int) -> Proposals:
    """Return the cells derived from averages of the first two searches of a group if they agree, else of all three."""
    chosen = []
    for group in groups:
        if len(searches.seeds_of(rows, CURRENT.name, group)) == len(group):
            first, second = (one[0] for one in searches.weights_of(rows, CURRENT.name, group[:2]))
            chosen.append(group[:2] if agreement(first, second) >= AGREED else group)
    return averaged(rows, CURRENT.name, chosen, budget)


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation of two searches' log mixing weights (edges, primitives), without `none`, after subtracting edge means."""
    logs = [np.log(np.delete(one, nasbench.TASK.space.columns["none"], 1)) for one in (first, second)]
    return spearman(*((one - one.mean(1, keepdims=True)).ravel() for one in logs))


def compared(rows: Rows, source: str, budget: int) -> list[Rows]:
    """Return the results of `rapdarts find`'s way on the test seeds for a budget that have the "way" or the "random" cells."""
    known = rows.get("find", {"ways": {}})["ways"].get(WAYS[0].name, {})
    found = [one[str(budget)] for seed, one in known.items() if int(seed) in TEST_SEEDS and str(budget) in one]
    return [one for one in found if source in one]


def halved(rows: Rows, source: str, budget: int) -> Proposals:
    """Return the winners of `rapdarts find`'s way ("way"), or of "random" cells with the same compute."""
    found = compared(rows, source, budget)
    seconds = [trained(one[source]) + (one["searches"] if source == "way" else 0.0) for one in found]
    return Proposals([one[source]["winner"] for one in found], average(seconds))


def best_of(rows: Rows, number: int, budget: int) -> Proposals:
    """Return the best of disjoint sets of `number` random cells after the first round of `random cells, halved`."""
    cells, seconds = [], []
    for one in compared(rows, "random", budget):
        drawn = list(one["random"]["rounds"][0]["accuracies"].items())
        order = np.random.default_rng(len(cells)).permutation(
            len(drawn)
        )  # they are kept in the order of their accuracies
        for start in range(0, len(drawn) - number + 1, number):
            cells.append(
                int(max((drawn[place] for place in order[start : start + number]), key=lambda pair: pair[1])[0])
            )
            seconds.append(number * one["random"]["rounds"][0]["epochs"] * one["random"]["epoch_seconds"])
    return Proposals(cells, average(seconds))


def by_naswot(rows: Rows, budget: int) -> Proposals:
    """Return the cells that NASWOT chose for the current attempt. The time of a draw, which is for all budgets, is divided evenly."""
    seeds = rows.get("naswot", {"seeds": {}})["seeds"]
    found = [seeds[str(seed)] for seed in CURRENT.seeds if str(seed) in seeds]
    cells = [nasbench.number(genotype_of(one["cells"][str(budget)])) for one in found]
    return Proposals(cells, average([one["cpu_seconds"] / len(nasbench.ALL_BUDGETS) for one in found]))


def average(seconds: Sequence[float]) -> float:
    """Return the mean of times; 0 if there are none."""
    return float(np.mean(seconds)) if seconds else 0.0

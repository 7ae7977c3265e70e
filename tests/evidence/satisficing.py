"""Cost of a cell that satisfices (Simon 1956): expected CPU time until a cell within a budget reaches an accuracy, by several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any

import numpy as np

from rapdarts.strategy.agreement import contrasts
from rapdarts.strategy.replicas import mean_weights
from rapdarts.training.intervals import wilson
from tests.evidence import nasbench, searches
from tests.evidence.banks import genotype_of
from tests.evidence.figures import spearman
from tests.evidence.finding import RECIPE, TEST_SEEDS, WAYS, results_of, seconds_of, winner
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows

BUDGETS, QUANTILES = (11, 20, 28), (0.5, 0.75, 0.9)
"""Budgets in units, and the quantiles of the accuracies of the cells that a search could derive, which are to be reached."""

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

FULL_EPOCHS, FULL_IMAGES, FULL_PIXELS = 200, 50_000, 32**2
"""Training of NAS-Bench-201 (Dong and Yang 2020, table 1)."""


@dataclass(frozen=True)
class Proposals:
    """Accuracies of the cells that a method proposed for a budget in percent, and the CPU time of a proposal in seconds.

    The time is without any final training. The proposals are `exact` if they are all cells from which the method draws at random;
    the others are a sample. A method that chooses the best of `best_of` random cells by their `scores` proposes each cell of the sample
    with a probability of its own.
    """

    accuracies: Sequence[float]
    seconds: float
    exact: bool = False
    best_of: int = 1
    scores: Sequence[float] = ()

    @property
    def n(self) -> int:
        """Number of independent proposals in the sample: that of disjoint sets of `best_of` cells."""
        return len(self.accuracies) // self.best_of

    def chance(self, accuracy: float) -> float:
        """Return the probability that a proposal reaches an accuracy in percent."""
        reached = np.array(self.accuracies) >= accuracy
        if self.best_of == 1:
            return float(reached.mean())
        # A cell is the best of its set if all others in the set come before it in the order of the scores.
        places = np.argsort(np.argsort(self.scores, kind="stable"))
        shares = [comb(int(place), self.best_of - 1) for place in places]
        return float(np.dot(shares, reached) / comb(len(reached), self.best_of))

    def limits(self, accuracy: float) -> tuple[float, float]:
        """Return the 95 % interval of `chance` (Wilson 1927); for exact proposals, both limits are the probability."""
        chance = self.chance(accuracy)
        return (chance, chance) if self.exact else wilson(chance, self.n)

    def time(self, accuracy: float, training: float) -> float:
        """Return the expected CPU time, in seconds, until a cell that reaches an accuracy has been proposed and trained.

        `training` is the time of the final training that shows the accuracy of a proposal. Proposals are independent, so that their
        expected number is the inverse of `chance` (Wald 1944). The result is infinite if no proposal reached the accuracy.
        """
        chance = self.chance(accuracy)
        return (self.seconds + training) / chance if chance else np.inf


def proposed(cells: Sequence[int], seconds: float, exact: bool = False) -> Proposals:
    """Return proposals of cells of NAS-Bench-201, with their known accuracies."""
    return Proposals(nasbench.truth()[list(cells)].tolist(), seconds, exact)


@cache
def accuracies(budget: int) -> tuple[float, ...]:
    """Return the accuracies to reach within a budget in percent, rounded to 0.1."""
    found = np.quantile(nasbench.truth()[CURRENT.cells(budget)], QUANTILES)
    return tuple(round(float(one), 1) for one in found)


def short_training(rows: Rows, budget: int) -> float:
    """Return the CPU time of a final training on all images of the task with the recipe of the short trainings, in seconds."""
    return float(2 * RECIPE["retrain.epochs"] * rows["pace"]["epoch"][str(budget)])


def full_training(rows: Rows, budget: int) -> float:
    """Return the CPU time of NAS-Bench-201's training, in seconds, in proportion to the numbers of images and pixels."""
    images = FULL_IMAGES * nasbench.TASK.settings["data.fraction"] / 2
    pixels = nasbench.TASK.image[1] * nasbench.TASK.image[2]
    epoch = rows["pace"]["epoch"][str(budget)] * FULL_IMAGES / images * FULL_PIXELS / pixels
    return float(FULL_EPOCHS * epoch)


def run(jobs: int) -> None:
    """Run the missing searches with cheaper settings."""
    for keys in CHEAPER.values():
        searches.run_series("nasbench201", {**CURRENT.keys, **keys}, TUNING_SEEDS, jobs)


def methods(rows: Rows, budget: int) -> dict[str, Proposals]:
    """Return the proposals of all methods that have been run for a budget, by name."""
    single, groups = EVERY_SEED, [range(seed, seed + 3) for seed in EVERY_SEED[::3]]
    search = rows["pace"]["search"]
    found = {
        "a random cell": proposed(np.flatnonzero(CURRENT.cells(budget)).tolist(), 0.0, exact=True),
        **{f"the best of {number} random cells after one epoch": best_of(rows, number, budget) for number in SETS},
        "random cells, halved": halved(rows, "random", budget),
        "the best of ten random cells by NASWOT": by_naswot(rows, budget),
        "one search": averaged(rows, CURRENT.name, [[seed] for seed in single], budget, search),
        "three searches averaged": averaged(rows, CURRENT.name, groups, budget, search),
        f"two searches, and a third if their rank correlation is below {AGREED}": stopped_early(rows, groups, budget),
        "`rapdarts find`: eight cells of three searches, halved": halved(rows, "way", budget),
    }
    return {name: one for name, one in found.items() if one.accuracies}


def cheaper(rows: Rows, budget: int) -> dict[str, Proposals]:
    """Return the proposals of searches with cheaper settings on tuning seeds, one by one and averaged, by name."""
    sizes, found = {"one search": 1, "three searches averaged": 3}, {}
    for words, keys in {"as above": {}, **CHEAPER}.items():
        search = rows["pace"]["searches"][words] if keys else rows["pace"]["search"]
        for kind, size in sizes.items():
            sets = [TUNING_SEEDS[start : start + size] for start in TUNING_SEEDS[::size]]
            name = searches.variant_name({**CURRENT.keys, **keys})
            found[f"{kind}, {words}"] = averaged(rows, name, sets, budget, search)
    return {name: one for name, one in found.items() if one.accuracies}


def averaged(rows: Rows, name: str, groups: Sequence[Sequence[int]], budget: int, search: float) -> Proposals:
    """Return the cells derived from averages of the searches of a variant, one for each group of seeds that has been run.

    `search` is the time of one search in seconds.
    """
    known = [group for group in groups if len(searches.seeds_of(rows, name, group)) == len(group)]
    means = [mean_weights(searches.weights_of(rows, name, group)) for group in known]
    cells = [nasbench.strongest(one, CURRENT.cells(budget)) for one in means]
    return proposed(cells, average([search * len(group) for group in known]))


def stopped_early(rows: Rows, groups: Sequence[Sequence[int]], budget: int) -> Proposals:
    """Return the cells derived from averages of the first two searches of a group if they agree, else of all three."""
    chosen = []
    for group in groups:
        if len(searches.seeds_of(rows, CURRENT.name, group)) == len(group):
            first, second = searches.weights_of(rows, CURRENT.name, group[:2])
            chosen.append(group[:2] if agreement(first, second) >= AGREED else group)
    return averaged(rows, CURRENT.name, chosen, budget, rows["pace"]["search"])


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation that a search with two replicas reports, given their mixing weights (1, 6, 5)."""
    return spearman(contrasts(nasbench.TASK.space, first), contrasts(nasbench.TASK.space, second))


def compared(rows: Rows, budget: int) -> list[tuple[int, Rows]]:
    """Return the results of `rapdarts find`'s way on the test seeds for a budget, each with the first seed of its group."""
    found = results_of(rows, WAYS[0], TEST_SEEDS)
    return [(seed, one[str(budget)]) for seed, one in found.items() if str(budget) in one]


def halved(rows: Rows, source: str, budget: int) -> Proposals:
    """Return the winners of `rapdarts find`'s way ("way"), or of "random" cells with the same compute."""
    found = [one[source] for _, one in compared(rows, budget)]
    searched = WAYS[0].replicas * rows["pace"]["search"] if source == "way" else 0.0
    seconds = [searched + seconds_of(one, rows["pace"], budget) for one in found]
    return proposed([winner(one) for one in found], average(seconds))


def best_of(rows: Rows, number: int, budget: int) -> Proposals:
    """Return the best of the first `number` random cells of each group after the first round of `random cells, halved`.

    The cells are put in a random order first, because they are kept in the order of their accuracies.
    """
    cells, seconds = [], []
    for seed, one in compared(rows, budget):
        first = one["random"][0]
        drawn = sorted(first["accuracies"].items(), key=lambda pair: int(pair[0]))
        order = np.random.default_rng([seed, budget]).permutation(len(drawn))[:number]
        cells.append(int(max((drawn[place] for place in order), key=lambda pair: pair[1])[0]))
        seconds.append(len(order) * first["epochs"] * rows["pace"]["epoch"][str(budget)])
    return proposed(cells, average(seconds))


def by_naswot(rows: Rows, budget: int) -> Proposals:
    """Return the cells that NASWOT chose for the current attempt."""
    seeds = rows.get("naswot", {"seeds": {}})["seeds"]
    found = [seeds[str(seed)]["cells"][str(budget)] for seed in CURRENT.seeds if str(seed) in seeds]
    return proposed([nasbench.number(genotype_of(one)) for one in found], rows["pace"]["naswot"])


def average(seconds: Sequence[float]) -> float:
    """Return the mean of times; 0 if there are none."""
    return float(np.mean(seconds)) if seconds else 0.0

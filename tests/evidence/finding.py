"""The way of `rapdarts find` on NAS-Bench-201, the best cells of averaged searches halved by short trainings, beside random cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from rapdarts.config.experiment import Launch
from rapdarts.config.given import find_experiment
from rapdarts.data.dataset import DataSet
from rapdarts.loops import launch
from rapdarts.loops.pace import Pace, Sizes, StagePace
from rapdarts.loops.plan import Plan, Round, halving, with_random
from rapdarts.loops.rank import RankingEntry
from rapdarts.strategy.replicas import mean_weights
from rapdarts.training.log import Screen
from tests.evidence import nasbench, searches, tasks
from tests.evidence.figures import spearman
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows, begin, keep, load, origin, own_origin, say, scratch
from tests.evidence.tasks import images_of
from tests.evidence.workers import each

TASK = "nasbench201"

RECIPE: Mapping[str, Any] = {**tasks.RECIPE, "retrain.batch": 16, "retrain.lr": 0.025}
"""Settings of the short trainings, on half of the training images; the other half compares the cells."""

RECIPES: Sequence[tuple[int, float]] = ((16, 0.025), (16, 0.05), (32, 0.05))
"""Batch sizes and learning rates that were tried for these trainings."""

RECIPE_SEED, RECIPE_CELLS, RECIPE_BUDGET = 0, 16, 20
"""Seed, number of random cells and budget on which the recipes were tried."""

WHOLE = "as in rapdarts find"
"""Name of the way that changes nothing."""

TEST_SEEDS, TUNING_SEEDS = range(136, 160), range(12)
"""Seeds of the searches: those that are used once, and those on which the ways are compared."""


@dataclass(frozen=True)
class Way:
    """A way to choose one cell for a budget: the best cells of some averaged searches, halved by short trainings.

    `replicas` is the number of searches, `halvings` the number of rounds, of which the first compares 2**halvings cells, each trained
    for `epochs` epochs. Any two of these cells differ on at least `apart` edges, so that there may be fewer of them. A round
    orders its cells by accuracy or, with `prior`, by the mean of their ranks by accuracy and by the searches.
    """

    replicas: int = 3
    halvings: int = 3
    epochs: int = 1
    apart: int = 1
    prior: bool = False

    @property
    def name(self) -> str:
        """The settings that differ from those of `rapdarts find`, as in `halvings=4`; they identify the results."""
        changed = {name: value for name, value in vars(self).items() if value != getattr(Way(), name)}
        return searches.variant_name(changed) if changed else WHOLE

    @property
    def words(self) -> str:
        """The way in the words of the page."""
        rounds = ", ".join(f"{one.networks} x {one.epochs}" for one in self.rounds(2**self.halvings))
        apart = f" that differ on at least {self.apart} edges" if self.apart > 1 else ""
        searched = "one search" if self.replicas == 1 else f"{self.replicas} searches"
        ordered = ", ordered by accuracy and by the searches" if self.prior else ""
        return f"{2**self.halvings} cells of {searched}{apart}; cells x epochs: {rounds}{ordered}"

    def rounds(self, cells: int) -> tuple[Round, ...]:
        """Return the rounds that halve this number of cells."""
        return tuple(halving(cells, self.epochs, RECIPE["retrain.epochs"]))

    def cells(self, weights: Sequence[np.ndarray], budget: int) -> list[int]:
        """Return the best cells of averaged searches that meet the current attempt's conditions, the best first.

        Each is the cell with the highest score, the sum of its log mixing weights, that is `apart` from all cells before it.
        """
        left = CURRENT.cells(budget).copy()
        found: list[int] = []
        while len(found) < 2**self.halvings and left.any():
            found.append(nasbench.strongest(mean_weights(weights), left))
            left &= (nasbench.all_cells() != nasbench.all_cells()[found[-1]]).sum(1) >= self.apart
        return found


WAYS = (
    Way(),
    Way(prior=True),
    Way(halvings=2, epochs=4),
    Way(halvings=2, epochs=4, prior=True),
    Way(epochs=2),
    Way(halvings=4),
    Way(apart=2),
    Way(replicas=1),
)
"""The way of `rapdarts find`, then the others that were tried."""


def run_all(jobs: int) -> None:
    """Run the missing comparisons: that of the test seeds, and those of all ways on the tuning seeds."""
    run(TEST_SEEDS, WAYS[:1], jobs)
    run(TUNING_SEEDS, WAYS, jobs)


def run(seeds: Sequence[int], ways: Sequence[Way], jobs: int, budgets: Sequence[int] = nasbench.BUDGETS) -> None:
    """Search with the missing seeds, and choose a cell for every budget by each of the ways, and by random cells.

    Consecutive seeds form the groups that are averaged; a group is known by its first seed. The results need the pace that
    `pace.run` measures. Raises ValueError if the results so far were made with another recipe or other searches.
    """
    images_of(nasbench.TASK.data)
    searches.run_series(TASK, CURRENT.keys, seeds, jobs)
    settings = {"recipe": dict(RECIPE), "searches": CURRENT.name, "conditions": CURRENT.condition}
    known = begin(TASK, {**origin(), **settings, "ways": {}}, "find")
    if any(known[name] != value for name, value in settings.items()):
        raise ValueError("the comparisons of rapdarts find were made with other settings; move them away first")
    for way in ways:
        groups = [tuple(seeds[start : start + way.replicas]) for start in range(0, len(seeds), way.replicas)]
        done = known["ways"].get(way.name, {})
        calls = [(way, one, b) for one in groups for b in budgets if str(b) not in done.get(str(one[0]), {})]
        for (_, group, budget), result in each(compare, calls, jobs):
            keep(TASK, {**own_origin(known), **result}, "find", "ways", way.name, str(group[0]), str(budget))
            say(f"{way.name}, seeds {group[0]}-{group[-1]}, {budget} units")


def compare(way: Way, seeds: Sequence[int], budget: int) -> dict[str, Any]:
    """Choose one cell for a budget by a way, and one of random cells that are given the same compute, by counted steps.

    All trainings of a comparison use the same images. Raises ValueError if no number of random cells has that compute.
    """
    torch.set_num_threads(1)
    rows, short = load(TASK), ShortTrainings(seeds[0])
    cells = way.cells(searches.weights_of(rows, CURRENT.name, seeds), budget)
    rounds = way.rounds(len(cells))
    others = random_rounds(rounds, way.replicas * rows["pace"]["search"], rows["pace"]["epoch"][str(budget)], budget)
    rng = np.random.default_rng([seeds[0], budget])
    # Ways with more random cells draw the same ones first, so that few are trained twice.
    drawn = rng.permutation(np.flatnonzero(CURRENT.cells(budget)))[: others[0].networks]
    return {
        "first": cells[0],
        "way": halved(cells, rounds, short, way.prior),
        "random": halved(drawn.tolist(), others, short),
    }


def random_rounds(rounds: Sequence[Round], searched: float, epoch: float, budget: int) -> tuple[Round, ...]:
    """Return rounds of random cells whose training steps take as long as the searches and other `rounds`, within 5 %.

    `searched` is the time of the training steps of the searches, and `epoch` that of an epoch of a short training, in seconds.
    """
    plan = Plan(
        effort=1.0,
        replicas=1,
        search_epochs=1,
        warmup_epochs=0,
        rounds=tuple(rounds),
        retrain_epochs=RECIPE["retrain.epochs"],
    )
    pace = Pace(stages=(StagePace(build=0.0, weights=0.0, both=searched),), build=0.0, train=epoch, test=0.0)
    sizes = Sizes(search_steps=1, rank_steps=1, rank_images=0, retrain_steps=1, test_images=0)
    planned = with_random(plan, sizes, pace, int(CURRENT.cells(budget).sum()))
    if planned is None:
        raise ValueError(f"no number of random cells takes as long as {searched:.0f} s of searches and the rounds")
    return planned.random


class ShortTrainings:
    """Short trainings of cells for the group of searches that begins with a seed, all on the same images.

    A training depends on its cell, number of epochs and seed only, so those of other ways are not repeated.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.known = seed, defaultdict[tuple[int, int], dict[int, float]](dict)
        for way in load(TASK).get("find", {"ways": {}})["ways"].values():
            for result in way.get(str(seed), {}).values():
                for source in ("way", "random"):
                    for number, one in enumerate(result[source]):
                        accuracies = {int(cell): accuracy for cell, accuracy in one["accuracies"].items()}
                        self.known[number, one["epochs"]] |= accuracies

    @cached_property
    def images(self) -> DataSet:
        return images(self.seed)

    def accuracies(self, cells: Sequence[int], number: int, epochs: int) -> dict[int, float]:
        """Return the accuracies (0 to 1) of cells that are trained for some epochs in a round, which has a seed of its own."""
        known = self.known[number, epochs]
        if missing := [cell for cell in cells if cell not in known]:
            known |= ranked(missing, epochs, self.seed + number, self.images)
        return {cell: known[cell] for cell in cells}


def halved(cells: Sequence[int], rounds: Sequence[Round], short: ShortTrainings, prior: bool = False) -> list[Rows]:
    """Halve cells, the best first, by short trainings, as `rapdarts find` does; with `prior`, as in `Way`.

    Return the epochs and the accuracies on the held-out images (0 to 1, by cell) of every round, in the order of the round; the
    first cell of the last round is the winner.
    """
    found: list[Rows] = []
    order = list(cells)
    for number, one in enumerate(rounds):
        order = order[: one.networks]
        accuracies = short.accuracies(order, number, one.epochs)
        by_accuracy = sorted(order, key=lambda cell: (-accuracies[cell], nasbench.units()[cell]))
        by_search = sorted(order, key=cells.index)
        ranks = {cell: by_accuracy.index(cell) + (by_search.index(cell) if prior else 0) for cell in order}
        order = sorted(by_accuracy, key=lambda cell: ranks[cell])
        found.append({"epochs": one.epochs, "accuracies": {str(cell): accuracies[cell] for cell in order}})
    return found


def results_of(rows: Rows, way: Way, seeds: range) -> dict[int, Rows]:
    """Return the results of a way, by budget, for each group whose first seed is among `seeds`."""
    known = rows.get("find", {"ways": {}})["ways"].get(way.name, {})
    return {int(seed): one for seed, one in known.items() if int(seed) in seeds}


def seconds_of(rounds: Sequence[Rows], pace: Rows, budget: int) -> float:
    """Return the time of the training steps of a halving, in CPU seconds."""
    return float(pace["epoch"][str(budget)] * epochs_of(rounds))


def winner(rounds: Sequence[Rows]) -> int:
    """Return the cell that won a halving."""
    return int(next(iter(rounds[-1]["accuracies"])))


def epochs_of(rounds: Sequence[Rows]) -> int:
    """Return the number of epochs in a halving, summed over its cells."""
    return sum(one["epochs"] * len(one["accuracies"]) for one in rounds)


def images(seed: int) -> DataSet:
    """Return the images of the task, with the part of the training images that a search with this seed uses."""
    return launch.data_of(find_experiment("rank", nasbench.TASK.experiment(seed=seed), None, {}).config)


def ranked(
    cells: Sequence[int], epochs: int, seed: int, data: DataSet, recipe: Mapping[str, Any] = RECIPE
) -> dict[int, float]:
    """Train cells briefly; return their accuracies (0 to 1) on the held-out images, the best cell first."""
    keys = nasbench.TASK.experiment(seed=seed, **recipe, **{"rank.epochs": epochs, "rank.count": len(cells)})
    config = find_experiment("rank", keys, None, {}).config
    entries = [RankingEntry(nasbench.genotype(cell), nasbench.TASK.space, (str(cell),)) for cell in cells]
    with scratch("short-trainings") as folder:
        place, screen = Launch(str(folder), False), Screen(silent=True)
        report = launch.run_ranking(config, entries, data, place, TASK, screen=screen).report
    return {int(one["sources"][0]): one["accuracies"][0] for one in report["networks"]}


def try_recipes(jobs: int) -> None:
    """Train random cells for one epoch with each of the recipes, and keep how well their accuracies order the true ones."""
    images_of(nasbench.TASK.data)
    known = begin(TASK, {**origin(), "tried": {}}, "recipes")
    missing = [one for one in RECIPES if recipe_name(*one) not in known["tried"]]
    for recipe, result in each(try_recipe, missing, jobs):
        keep(TASK, {**own_origin(known), **result}, "recipes", "tried", recipe_name(*recipe))
        say(f"{recipe_name(*recipe)}: {result}")


def recipe_name(batch: int, lr: float) -> str:
    """Return the settings of a recipe as text."""
    return f"retrain.batch={batch} retrain.lr={lr}"


def try_recipe(batch: int, lr: float) -> dict[str, float]:
    """Train random cells for one epoch; return the rank correlation of their accuracies with the true ones, and their mean (0 to 1)."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(RECIPE_SEED)
    cells = rng.choice(np.flatnonzero(CURRENT.cells(RECIPE_BUDGET)), RECIPE_CELLS, replace=False).tolist()
    recipe = {**RECIPE, "retrain.batch": batch, "retrain.lr": lr}
    accuracies = ranked(cells, 1, RECIPE_SEED, images(RECIPE_SEED), recipe)
    own = np.array([accuracies[cell] for cell in cells])
    return {"correlation": round(spearman(own, nasbench.truth()[cells]), 3), "accuracy": round(float(own.mean()), 3)}

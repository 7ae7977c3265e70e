"""The way of `rapdarts find` on NAS-Bench-201: the best cells of averaged searches, halved by short trainings, and random cells alike."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.config.experiment import Launch
from rapdarts.config.given import find_experiment
from rapdarts.loops import launch
from rapdarts.loops.pace import Pace, Sizes, StagePace
from rapdarts.loops.plan import Plan, Round, halving, with_random
from rapdarts.loops.rank import RankingEntry
from rapdarts.strategy.replicas import mean_weights
from rapdarts.training.log import Screen
from tests.evidence import nasbench, searches
from tests.evidence.plan import CURRENT
from tests.evidence.store import WORK, keep, load, origin, own_origin, say
from tests.evidence.tasks import images_of
from tests.evidence.workers import each

TASK = "nasbench201"

RECIPE: Mapping[str, Any] = {
    "retrain.epochs": 8,
    "retrain.batch": 16,
    "retrain.lr": 0.025,
    "retrain.drop_path": 0.0,
    "retrain.auxiliary": 0.0,
    "retrain.cutout": 0,
}
"""Settings of the short trainings, on half of the search's training images; the other half compares the cells."""


@dataclass(frozen=True)
class Way:
    """A way to choose one cell for a budget: the best cells of some averaged searches, halved by short trainings.

    `replicas` is the number of searches, `halvings` the number of rounds, of which the first compares 2**halvings cells, each trained
    for `epochs` epochs. Any two of these cells differ on at least `apart` edges.
    """

    replicas: int = 3
    halvings: int = 3
    epochs: int = 1
    apart: int = 1

    @property
    def name(self) -> str:
        """The way in words: what differs from the default."""
        changed = {name: value for name, value in asdict(self).items() if value != getattr(Way(), name)}
        return searches.variant_name(changed) if changed else "as in rapdarts find"

    @property
    def words(self) -> str:
        """The way in words."""
        rounds = ", ".join(f"{one.networks} x {one.epochs}" for one in self.rounds)
        apart = f", which differ on at least {self.apart} edges" if self.apart > 1 else ""
        searched = "one search" if self.replicas == 1 else f"{self.replicas} searches"
        return f"{2**self.halvings} cells of {searched}{apart}; cells x epochs: {rounds}"

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The rounds of halving."""
        return tuple(halving(2**self.halvings, self.epochs, RECIPE["retrain.epochs"]))

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


WAYS = (Way(), Way(halvings=4), Way(epochs=2), Way(apart=2), Way(apart=3), Way(replicas=1), Way(replicas=1, halvings=4))
"""The way of `rapdarts find`, then the others that were tried."""

TEST_SEEDS, TUNING_SEEDS = range(136, 160), range(12)
"""Seeds of the searches: those that are used once, and those on which the ways are compared."""


def run(seeds: Sequence[int], ways: Sequence[Way], jobs: int, budgets: Sequence[int] = nasbench.BUDGETS) -> None:
    """Search with the missing seeds, and choose a cell for every budget by each of the ways, and by random cells for the first way.

    Consecutive seeds form the groups that are averaged; a group is known by its first seed.
    """
    images_of(nasbench.TASK.data)
    searches.run_series(TASK, CURRENT.keys, seeds, jobs)
    known = load(TASK).get("find")
    if known is None:
        known = {**origin(), "recipe": dict(RECIPE), "ways": {}}
        keep(TASK, known, "find")
    for way in ways:
        groups = [tuple(seeds[start : start + way.replicas]) for start in range(0, len(seeds), way.replicas)]
        done = known["ways"].get(way.name, {})
        calls = [
            (way, group, budget)
            for group in groups
            for budget in budgets
            if str(budget) not in done.get(str(group[0]), {})
        ]
        for (_, group, budget), result in each(compare, calls, jobs):
            keep(TASK, {**own_origin(known), **result}, "find", "ways", way.name, str(group[0]), str(budget))
            say(f"{way.name}, seeds {group[0]}-{group[-1]}, {budget} units: {result['cpu_seconds']} CPU s")


def run_all(jobs: int) -> None:
    """Run the missing comparisons: that of the test seeds, and those of all ways on the tuning seeds."""
    run(TEST_SEEDS, WAYS[:1], jobs)
    run(TUNING_SEEDS, WAYS, jobs)


def compare(way: Way, seeds: Sequence[int], budget: int) -> dict[str, Any]:
    """Choose one cell for a budget by a way, and one of random cells with the same compute.

    The compute is that of training steps, in CPU seconds: the searches took what was kept with them, and the time of an epoch of
    a short training is that of the way's own rounds.
    """
    torch.set_num_threads(1)
    began, rows = time.process_time(), load(TASK)
    cells = way.cells(searches.weights_of(rows, CURRENT.name, seeds), budget)
    own = halved(cells, way.rounds, seeds[0], budget)
    searched = float(np.sum(searches.cpu_seconds(rows, CURRENT.name, seeds)))
    rounds = random_rounds(way, searched, own["epoch_seconds"], budget)
    result: dict[str, Any] = {"searches": round(searched, 1), "way": {"first": cells[0], **own}}
    if rounds:
        rng = np.random.default_rng([seeds[0], budget])
        drawn = rng.choice(np.flatnonzero(CURRENT.cells(budget)), rounds[0].networks, replace=False)
        result["random"] = halved(drawn.tolist(), rounds, seeds[0], budget)
    return {**result, "cpu_seconds": round(time.process_time() - began, 1)}


def random_rounds(way: Way, searched: float, epoch_seconds: float, budget: int) -> tuple[Round, ...]:
    """Return the rounds of random cells that take as long as the searches and a way's own rounds; empty if there are none."""
    plan = Plan(1.0, 1, 1, 0, way.rounds, RECIPE["retrain.epochs"])
    pace = Pace((StagePace(0.0, 0.0, searched),), 0.0, epoch_seconds, 0.0)
    planned = with_random(plan, Sizes(1, 1, 0, 1, 0), pace, int(CURRENT.cells(budget).sum()))
    return planned.random if planned else ()


def halved(cells: Sequence[int], rounds: Sequence[Round], seed: int, budget: int) -> dict[str, Any]:
    """Halve cells by short trainings, each round with a seed of its own, as `rapdarts find` does.

    Return the winner, the CPU time of a cell's epoch, and the accuracies on the held-out images in every round.
    """
    spent, trained, order = 0.0, [], list(cells)
    for number, one in enumerate(rounds):
        began = time.process_time()
        accuracies = ranked(
            order[: one.networks], one.epochs, seed + number, WORK / f"find-{seed}-{budget}-{len(cells)}"
        )
        spent += time.process_time() - began
        order = list(accuracies)
        trained.append({"epochs": one.epochs, "accuracies": {str(cell): accuracies[cell] for cell in order}})
    epochs = sum(one["epochs"] * len(one["accuracies"]) for one in trained)
    return {"winner": order[0], "epoch_seconds": round(spent / epochs, 3), "rounds": trained}


def ranked(cells: Sequence[int], epochs: int, seed: int, folder: Path) -> dict[int, float]:
    """Train cells briefly; return their accuracies (0 to 1) on the held-out images, the best cell first."""
    shutil.rmtree(folder, ignore_errors=True)
    keys = nasbench.TASK.experiment(seed=seed, **RECIPE, **{"rank.epochs": epochs, "rank.count": len(cells)})
    config = find_experiment("rank", keys, None, {}).config
    entries = [RankingEntry(nasbench.genotype(cell), nasbench.TASK.space, (str(cell),)) for cell in cells]
    place, screen = Launch(str(folder), False), Screen(silent=True)
    report = launch.run_ranking(config, entries, launch.data_of(config), place, TASK, screen=screen).report
    shutil.rmtree(folder)
    return {int(one["sources"][0]): one["accuracies"][0] for one in report["networks"]}

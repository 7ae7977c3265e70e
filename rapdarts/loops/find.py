"""From data and a budget to a tested network: search, successive halving of the best cells, training, export, and a proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rapdarts.architecture.reading import read_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.command_options import DeriveConfig, EvaluateConfig, ExportConfig
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.resources import time_left
from rapdarts.data.dataset import DataSet
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.evaluation import evaluate_network
from rapdarts.deploy.exporting import export_file
from rapdarts.deploy.lookup import Found
from rapdarts.deploy.model_file import read_trained
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import Preempted
from rapdarts.files.run_files import RunFile, begun
from rapdarts.loops import launch as launching
from rapdarts.loops.finished_search import finished_search
from rapdarts.loops.plan import Plan, Round
from rapdarts.loops.rank import RankingEntry
from rapdarts.training.log import Screen
from rapdarts.training.run import Run

SLOWER = 1.25
"""Factor by which a step may exceed its planned time before the user is told."""
IMPORTANT = 10.0
"""Delay in seconds that the user is not told about: starting a step takes a few seconds, however short it is."""


@dataclass
class Agenda:
    """The steps of a plan with their expected times, in seconds by name: says where the run is and how much time is left."""

    planned: Mapping[str, float]
    screen: Screen
    began: float = 0.0
    now: str = ""

    def begin(self, name: str) -> None:
        """Say which step begins."""
        self.began, self.now = time.monotonic(), name
        place = f"step {[*self.planned].index(name) + 1} of {len(self.planned)}"
        own = f"about {time_left(self.planned[name])}"
        self.screen.say(f"{place}: {name} ({own}; {time_left(self.left())} left in all)")

    def left(self) -> float:
        """Return the time left, in seconds: of the current step, what is left of its expected time, and the later steps."""
        names = [*self.planned]
        later = names[names.index(self.now) + 1 :]
        return max(0.0, self.began + self.planned[self.now] - time.monotonic()) + sum(
            self.planned[name] for name in later
        )

    def end(self) -> float:
        """Return the time that the step took, in seconds; say so if the machine is slower than planned."""
        taken, expected = time.monotonic() - self.began, self.planned[self.now]
        if taken > SLOWER * expected + IMPORTANT:
            self.screen.say(
                f"{self.now} took {time_left(taken)} instead of {time_left(expected)}: this machine is slower than planned; the plan"
                " is finished all the same"
            )
        return round(taken, 1)


@dataclass(frozen=True)
class Work:
    """Everything that the steps share: the planned experiment, the space, the data, the user's own space, and the run they belong to."""

    config: Experiment
    space: SearchSpace
    data: DataSet
    given: Space
    run: Run
    agenda: Agenda

    def step(self, name: str, work: Callable[[Launch, Screen], dict[str, Any]]) -> dict[str, Any]:
        """Return the result of a step, plain values, and its time. `work` runs in the folder `name`; a finished step is not repeated.

        Raises Preempted, for the whole run, if a signal stops the step.
        """
        folder = self.run.folder / name
        screen = Screen(silent=self.run.screen.closed, whole=self.agenda.left)

        def timed() -> dict[str, Any]:
            self.agenda.begin(name)
            try:
                facts = work(Launch(str(folder), begun(folder)), screen)
            except Preempted as error:
                raise Preempted(error.sentence, str(self.run.folder)) from None
            return {**facts, "step_seconds": self.agenda.end()}

        return self.run.keep(name, timed)


def find(
    work: Work, plan: Plan, random: Sequence[RankingEntry], reference: ReferenceBlueprint | None
) -> dict[str, Any]:
    """Search, select, train, test and export by a plan; each step is that of the command of its name, in its own folder.

    With `random` cells, they are selected, trained and tested alike, and so is the `reference` network. Returns the results of all
    steps, by name. Raises as the steps do, and Preempted if a signal stops the run.
    """
    results = {"search": work.step("search", partial(_search, work))}
    cells = best_cells(work, plan.rounds[0].networks)
    results |= trained_best(work, cells, plan.rounds, "")
    results["export"] = work.step("export", partial(_export, work))
    if random:
        results |= trained_best(work, random, plan.random, "random/")
    if reference is not None:
        found = Found(reference.reference, reference.reference, reference=reference.reference)
        results["reference"] = work.step("reference", partial(_retrain, work, found, None))
    return results


def _search(work: Work, launch: Launch, screen: Screen) -> dict[str, Any]:
    config, space, read = work.config, work.space, lambda device: work.data
    found = launching.run_search(config, space, launch, config.data.called, work.given, read, screen)
    return found.report


def best_cells(work: Work, count: int) -> list[RankingEntry]:
    """Return the `count` best cells of the finished search within its budgets, best first; fewer if there are no more."""
    search = finished_search(work.run.folder / "search" / RunFile.ALPHAS, True, DeriveConfig(), work.given)
    return [RankingEntry(one.genotype, search.full, ("search",), one.score) for one in search.best(count).candidates]


def trained_best(work: Work, cells: Sequence[RankingEntry], rounds: Sequence[Round], prefix: str) -> dict[str, Any]:
    """Halve cells in rounds of training on images kept aside, train the winner, and test it once.

    The folders of the steps begin with `prefix`. Returns the results of the steps by name.
    """
    results: dict[str, Any] = {}
    winner, space = cells[0].genotype, cells[0].space
    for number, one in enumerate(rounds, 1):
        name, entries = f"{prefix}rank-{number}", cells[: one.networks]
        results[name] = work.step(name, partial(_rank, work, entries, one.epochs, number))
        by_line = {entry.genotype.line: entry for entry in entries}
        cells = [by_line[network["genotype"]] for network in results[name]["networks"] if not network["diverged"]]
        winner = read_genotype(work.run.folder / name / RunFile.BEST_GENOTYPE)
    name = f"{prefix}network"
    found = Found("the winner", str(work.run.folder / name), replace(winner, space=space.name))
    results[name] = work.step(name, partial(_retrain, work, found, space))
    return results


def _rank(
    work: Work, entries: Sequence[RankingEntry], epochs: int, number: int, launch: Launch, screen: Screen
) -> dict[str, Any]:
    """Rank cells in the round of this number; every round has a seed of its own, so that even as short a training tells something new."""
    seed = (work.config.seed + number - 1) % 2**32
    config = replace(work.config, seed=seed, rank=replace(work.config.rank, count=len(entries), epochs=epochs))
    return launching.run_ranking(config, entries, work.data, launch, work.config.data.called, work.given, screen).report


def _retrain(work: Work, found: Found, space: SearchSpace | None, launch: Launch, screen: Screen) -> dict[str, Any]:
    """Train a network from scratch, test it once, and return the result and the quality in detail."""
    config, read = work.config, lambda device: work.data
    trained = launching.run_retraining(config, found, space, True, launch, config.data.called, work.given, read, screen)
    network = read_trained(trained.file, work.given)
    quality = evaluate_network(network, config.device, config, EvaluateConfig(), read)
    return {**trained.report, "quality": quality}


def _export(work: Work, _launch: Launch, _screen: Screen) -> dict[str, Any]:
    """Write the trained network as an ONNX file with its model card, next to its weights."""
    folder = work.run.folder / "network"
    options = ExportConfig(to="onnx", out=str(folder / "network.onnx"))
    return export_file(folder / RunFile.NETWORK, options, "", work.given, lambda device: work.data)

"""The steps from data and a budget to a tested network: search, successive halving of the best cells, training, export and proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rapdarts.architecture.reading import parse_genotype_json
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.command_options import DeriveConfig, EvaluateConfig, ExportConfig
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.resources import time_left
from rapdarts.cost.count import deployment_facts
from rapdarts.cost.latency import LatencyTable
from rapdarts.cost.prices import read_hardware
from rapdarts.data.dataset import DataSet
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.evaluation import evaluate_network
from rapdarts.deploy.exporting import export_file
from rapdarts.deploy.lookup import Found
from rapdarts.deploy.model_file import read_trained
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import DivergedError, Preempted, StorageError
from rapdarts.files.run_files import RunFile, begun
from rapdarts.loops import launch as launching
from rapdarts.loops.finished_search import finished_search
from rapdarts.loops.opponents import differences_from_plan, random_opponents
from rapdarts.loops.plan import Plan, Round
from rapdarts.loops.rank import RankingEntry
from rapdarts.loops.search_record import certainty_in_words
from rapdarts.training.checkpoint import elapsed_of
from rapdarts.training.log import Screen
from rapdarts.training.run import Run

SLOWER = 1.25
"""Factor by which a step may exceed its planned time before this is reported."""
IMPORTANT = 10.0
"""Further delay in seconds that is tolerated, because even a short step takes a few seconds to start."""


@dataclass
class Agenda:
    """Progress through the steps of a plan; `planned` maps the name of each step to its expected time in seconds.

    `complete` is False while the later steps are not planned yet.
    """

    planned: Mapping[str, float]
    screen: Screen
    began: float = 0.0
    now: str = ""
    complete: bool = True

    def begin(self, name: str, earlier: float = 0.0) -> None:
        """Print which step begins, with its expected time and the time left; it has already taken `earlier` seconds in other sessions."""
        self.began, self.now = time.monotonic() - earlier, name
        number, own = [*self.planned].index(name) + 1, f"about {time_left(self.planned[name])}"
        if self.complete:
            place, rest = f"step {number} of {len(self.planned)}", f"{time_left(self.left())} left in all"
        else:
            place, rest = f"step {number}", "the other steps are planned afterwards"
        self.screen.say(f"{place}: {name} ({own}; {rest})")

    def left(self) -> float:
        """Return the time left, in seconds: the rest of the expected time of the current step, and the times of all later steps."""
        names = [*self.planned]
        later = names[names.index(self.now) + 1 :]
        return max(0.0, self.began + self.planned[self.now] - time.monotonic()) + sum(
            self.planned[name] for name in later
        )

    def end(self) -> float:
        """Return the time that the step took in all sessions, in seconds; print a message if it took much longer than planned."""
        taken, expected = time.monotonic() - self.began, self.planned[self.now]
        if taken > SLOWER * expected + IMPORTANT:
            self.screen.say(
                f"{self.now} took {time_left(taken)} instead of {time_left(expected)}: this machine is slower than planned, but the"
                " plan does not change"
            )
        return round(taken, 1)


@dataclass(frozen=True)
class Work:
    """Arguments that all steps share: the planned experiment, the space, the data, the user's own space, and the run.

    `latency` is a table measured for the run, for settings that need a table but do not name one.
    """

    config: Experiment
    space: SearchSpace
    data: DataSet
    given: Space
    run: Run
    agenda: Agenda
    latency: LatencyTable | None = None

    def step(
        self, name: str, work: Callable[[Launch, Screen], dict[str, Any]], may_diverge: bool = False
    ) -> dict[str, Any]:
        """Run `work` in the folder `name`, and return its result with the time it took, as plain values. A finished step is not repeated.

        The time covers all sessions; of a session that was killed, it covers the part until its last checkpoint. If the training
        diverges and it `may_diverge`, the result is the reason under "diverged". Raises Preempted, for the whole run, if a signal
        stops the step.
        """
        folder = self.run.folder / name
        if folder.is_symlink():
            raise StorageError(
                f"{folder} is a link, which may lead anywhere; remove it, or start a new run with run=PATH."
            )
        screen = Screen(silent=self.run.screen.closed, whole=self.agenda.left)

        def timed() -> dict[str, Any]:
            self.agenda.begin(name, elapsed_of(folder / RunFile.CHECKPOINT))
            try:
                facts = work(Launch(str(folder), begun(folder)), screen)
            except Preempted as error:
                raise Preempted(error.sentence, str(self.run.folder)) from None
            except DivergedError as error:
                if not may_diverge:
                    raise
                facts = {"diverged": str(error)}
            return {**facts, "step_seconds": self.agenda.end()}

        return self.run.keep(name, timed)


def find(work: Work, plan: Plan) -> dict[str, Any]:
    """Search, select, train, test and export as planned; each step runs one command in its own folder.

    Returns the results of all steps, by name. Raises the errors of the steps, and Preempted if a signal stops the run.
    """
    found = work.step("search", partial(_search, work, plan))
    source = "candidate {} of the " + ("averaged searches" if plan.replicas > 1 else "search")
    results = {"search": found, **trained_best(work, entries_of(work, found["cells"], source), plan.rounds, "")}
    return {**results, "export": work.step("export", partial(_export, work))}


def prove(work: Work, plan: Plan, found: Mapping[str, Any], reference: ReferenceBlueprint) -> dict[str, Any]:
    """Select, train and test random cells in the same way as the cells of the search, and train and test a reference network.

    `found` is the result of the search. Returns the results of all steps, by name. If a training diverged, its result is the reason
    under "diverged". Raises Preempted if a signal stops the run.
    """
    name, cells = reference.reference, entries_of(work, found["random"], "random cell {}")
    results = trained_best(work, cells, plan.random, "random/", may_diverge=True)
    known = Found(name, name, reference=name)
    return {**results, "reference": work.step("reference", partial(_retrain, work, known, None), may_diverge=True)}


def _search(work: Work, plan: Plan, launch: Launch, screen: Screen) -> dict[str, Any]:
    """Search, and return the report with the best cells within the budgets and, for a proof, with random cells of the same cost.

    The random cells meet the same bounds as the derived cell, but may use any candidate of the space.
    """
    config, folder = work.config, Path(launch.run)
    called, read = config.data.called, lambda _: work.data
    done = launching.run_search(config, work.space, launch, called, work.given, read, screen, work.latency)
    own, advice = (certainty_in_words(done.derivation, effort) for effort in (0.0, plan.effort))
    found = {**done.report, "notes": [advice if note == own else note for note in done.report["notes"]]}
    search = finished_search(folder / RunFile.ALPHAS, True, DeriveConfig(), work.given)
    best = search.best(plan.rounds[0].networks)
    cells = [{"cell": one.genotype.to_json(), "score": one.score} for one in best.candidates]
    if not plan.random:
        return {**found, "cells": cells, "random": [], "random_remarks": []}
    planned = plan.random[0].networks
    drawn = random_opponents(config, work.space, best.within, planned)
    remarks = differences_from_plan(config, work.space, search.table, best.within, len(drawn), planned)
    facts = deployment_facts(config.search.precision, read_hardware(config.search.hardware))
    random = [{"cell": replace(one, provenance=facts).to_json(), "score": None} for one in drawn]
    return {**found, "cells": cells, "random": random, "random_remarks": remarks}


def entries_of(work: Work, cells: Sequence[Mapping[str, Any]], source: str) -> list[RankingEntry]:
    """Return cells as entries of a ranking; `source` describes them, with `{}` in place of their number."""
    found = []
    for number, one in enumerate(cells, 1):
        where = source.format(number)
        genotype = replace(parse_genotype_json(one["cell"], where), space=work.space.name)
        found.append(RankingEntry(genotype, work.space, (where,), one["score"]))
    return found


def trained_best(
    work: Work, cells: Sequence[RankingEntry], rounds: Sequence[Round], prefix: str, may_diverge: bool = False
) -> dict[str, Any]:
    """Select a cell by successive halving on held-out training images, train its network, and test it once.

    The folders of the steps begin with `prefix`. Returns the results of the steps by name. If the training of all cells in a round,
    or that of the winner, diverges and it `may_diverge`, the result of the network is the reason; otherwise raises DivergedError.
    """
    results: dict[str, Any] = {}
    for number, one in enumerate(rounds, 1):
        name, entries = f"{prefix}rank-{number}", cells[: one.networks]
        ranked = work.step(name, partial(_rank, work, entries, one.epochs, number), may_diverge)
        if "diverged" in ranked:
            return {**results, f"{prefix}network": ranked}
        results[name] = ranked
        by_line = {entry.genotype.line: entry for entry in entries}
        cells = [by_line[network["genotype"]] for network in results[name]["networks"] if not network["diverged"]]
    name = f"{prefix}network"
    winner = Found("the winner", str(work.run.folder / name), cells[0].genotype)
    results[name] = work.step(name, partial(_retrain, work, winner, work.space), may_diverge)
    return results


def _rank(
    work: Work, entries: Sequence[RankingEntry], epochs: int, number: int, launch: Launch, screen: Screen
) -> dict[str, Any]:
    """Rank cells in round `number`; every round has its own seeds, so that a training of the same length gives new information."""
    rank = replace(work.config.rank, count=len(entries), epochs=epochs)
    seed = (work.config.seed + (number - 1) * rank.seeds) % 2**32
    config = replace(work.config, seed=seed, rank=rank)
    return launching.run_ranking(config, entries, work.data, launch, work.config.data.called, work.given, screen).report


def _retrain(work: Work, found: Found, space: SearchSpace | None, launch: Launch, screen: Screen) -> dict[str, Any]:
    """Train a network from scratch, test it once, and return the result."""
    config, called = work.config, work.config.data.called
    return launching.run_retraining(
        config, found, space, True, launch, called, work.given, lambda _: work.data, screen
    ).report


def _export(work: Work, _launch: Launch, _screen: Screen) -> dict[str, Any]:
    """Write the trained network as an ONNX file with its model card, next to its weights, and measure its quality in detail."""
    file = work.run.folder / "network" / RunFile.NETWORK
    options = ExportConfig(to="onnx", out=str(file.with_name("network.onnx")))
    quality = evaluate_network(
        read_trained(file, work.given), work.config.device, work.config, EvaluateConfig(), lambda _: work.data
    )
    return {**export_file(file, options, "", work.given, work.data.on), "quality": quality}

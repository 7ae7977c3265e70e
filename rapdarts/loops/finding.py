"""`rapdarts find` from settings to a finished run folder: its plan, its steps, and a page on what was done."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.reading import read_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.architecture.writing import FORMATS
from rapdarts.config.experiment import Experiment, Launch, budget_limits
from rapdarts.config.resources import time_left, within
from rapdarts.cost.expected import PriceTable
from rapdarts.data.dataset import DataSet, Reader
from rapdarts.data.randomness import key
from rapdarts.deploy.blueprint import DerivedBlueprint, ReferenceBlueprint
from rapdarts.deploy.evaluation import correct_on_test
from rapdarts.deploy.lookup import own_space
from rapdarts.deploy.model_file import read_trained
from rapdarts.deploy.scaled_reference import scaled_to
from rapdarts.deploy.space_lookup import Space
from rapdarts.files.run_files import RunFile
from rapdarts.loops.find import Agenda, Work, find
from rapdarts.loops.latency_first import latency_of_run
from rapdarts.loops.launch import data_of, inputs_of, said_before, searched_space
from rapdarts.loops.pace import Pace, Sizes, measure_pace
from rapdarts.loops.plan import (
    SHARE_OF_TIME,
    Plan,
    check_compute,
    durations,
    efforts,
    fitting,
    plan_from,
    plan_of,
    read_plan,
    with_random,
)
from rapdarts.loops.random_baseline import conditions, distinct_genotypes
from rapdarts.loops.rank import RankingEntry
from rapdarts.loops.results import FoundNetwork
from rapdarts.loops.search import priced
from rapdarts.reports.find_page import page
from rapdarts.strategy.rule import rule_of
from rapdarts.training.intervals import compare
from rapdarts.training.log import Screen
from rapdarts.training.run import Run
from rapdarts.training.session import open_run

MOST_RANDOM = 512
"""Largest number of random cells in a proof."""
REFERENCE = "resnet20"
"""Reference network of a proof, scaled in width to the budget."""
BATCH = 256
"""Batch size, in images, in which the networks of a proof are tested."""


@dataclass(frozen=True)
class Band:
    """Random cells that cost as much as the cell that a search may derive: `draw` returns up to `count` different ones."""

    config: Experiment
    space: SearchSpace
    table: PriceTable

    def draw(self, count: int) -> list[Genotype]:
        """Return up to `count` different random cells; fewer if there are no more. The first ones do not depend on `count`."""
        rule = rule_of(self.config.search, self.space)
        budgets, _ = conditions(self.space, self.table, rule, 0.0, 0.0)
        return distinct_genotypes(self.space, count, key(self.config.seed, "random genotypes"), budgets, rule.max_skips)

    def entries(self, count: int) -> list[RankingEntry]:
        """Return random cells as entries of a ranking."""
        return [RankingEntry(one, self.space, (f"random {number}",)) for number, one in enumerate(self.draw(count), 1)]


def run_find(
    config: Experiment,
    space: SearchSpace,
    launch: Launch,
    name: str,
    given: Space = None,
    read: Reader | None = None,
    screen: Screen | None = None,
) -> FoundNetwork:
    """Find, train, test and export a network within the budgets, and compare it with random cells if find.proof is set.

    The arguments are those of `launch.run_search`. Raises InputError, before a run folder is made, for images that cannot be
    divided, budgets that cannot be met and a plan that does not fit; afterwards, raises as the steps do.
    """
    began, screen = time.monotonic(), screen or Screen()
    searched, data = searched_space(config.search, space), data_of(config, read)
    sizes = Sizes.of(config, data)
    if config.find.plan:
        read_plan(config.find, config)
    limits = budget_limits(config.search.budget)
    about = said_before(data, [f"looking for a network with {within(limits)}"], config, screen)
    latency = latency_of_run(config, searched, data, launch, screen)
    table = priced(config, searched, data, latency)
    reference, remark = scaled_to(REFERENCE, data.image, data.classes, limits) if config.find.proof else (None, "")
    band = Band(config, searched, table)
    with open_run("find", config, launch, name, inputs_of(config, data, given, latency), screen, about=about) as run:
        if latency is not None:
            run.write(RunFile.LATENCY, latency.to_json())
        if config.skeleton.channels == 0:
            run.screen.say(
                f"width of the network: {table.skeleton.channels} channels, the most with which its average cell fits"
            )
        decided = run.keep("the plan", lambda: planned(config, band, data, sizes, run, began))
        plan, pace = plan_from(decided["plan"], RunFile.PLAN), Pace.of_plain(decided["pace"])
        run.write(RunFile.PLAN, plan.to_json(config, pace))
        agenda = Agenda({step: pace.waiting * time for step, time in durations(plan, sizes, pace).items()}, screen)
        screen.say(f"plan: {plan.words}; about {time_left(sum(agenda.planned.values()))} in all")
        work = Work(as_planned(config, plan, table, run), space, replace(data, described=True), given, run, agenda)
        random = band.entries(plan.random[0].networks) if plan.random else []
        results = find(work, plan, random, reference)
        report = summary(work, plan, table, results) | {"remarks": [remark] if remark else [], "proof": None}
        if reference is not None:
            report["proof"] = proven(work, plan, results, reference)
        run.write_json(RunFile.RESULT, report)
        run.write("cell.svg", FORMATS["svg"](read_genotype(run.folder / "network" / RunFile.GENOTYPE)))
        run.write(RunFile.PAGE, page(report))
    return FoundNetwork(report, run.folder, own_space(given))


def as_planned(config: Experiment, plan: Plan, table: PriceTable, run: Run) -> Experiment:
    """Return the experiment of the steps: with the plan's counts, the width of the prices, and the latency table of the run."""
    measured = run.folder / RunFile.LATENCY
    latency = str(measured) if measured.is_file() else config.search.latency
    config = replace(config, search=replace(config.search, latency=latency))
    return plan.apply(replace(config, skeleton=replace(config.skeleton, channels=table.skeleton.channels)))


def planned(config: Experiment, band: Band, data: DataSet, sizes: Sizes, run: Run, began: float) -> dict[str, Any]:
    """Measure the pace of this machine and decide on the plan. Return both as plain values.

    `began` is when the work began, on the monotonic clock. Raises InputError if the time is too short for any plan, or if the
    random cells cannot be given the same compute.
    """
    settings = config.find
    run.screen.say("measuring a few steps to plan the work")
    blueprint = DerivedBlueprint(band.draw(1)[0], band.space, band.table.skeleton)
    pace = measure_pace(config, band.space, data, band.table, blueprint, run)

    def complete(plan: Plan, most: int = MOST_RANDOM) -> Plan:
        return with_random(plan, sizes, pace, most) if settings.proof else plan

    if settings.plan:
        plan = read_plan(settings, config)
    elif settings.seconds:
        left = SHARE_OF_TIME * settings.seconds - (time.monotonic() - began)
        plans = [complete(plan_of(config, sizes, effort)) for effort in efforts()]
        plan = fitting(left, plans, lambda plan: pace.waiting * sum(durations(plan, sizes, pace).values()))
    else:
        plan = complete(plan_of(config, sizes, settings.effort if settings.effort > 0 else 1.0))
    if plan.random and not settings.plan:
        plan = complete(plan, len(band.draw(plan.random[0].networks)))  # the band may hold fewer cells
        check_compute(plan, sizes, pace)
    decided: dict[str, Any] = json.loads(json.dumps({"plan": asdict(plan), "pace": asdict(pace)}))
    return decided


def summary(work: Work, plan: Plan, table: PriceTable, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of a run as plain values: the network, its quality, and what was done."""
    config, folder, network = work.config, work.run.folder, results["network"]
    genotype, limits = read_genotype(folder / "network" / RunFile.GENOTYPE), budget_limits(config.search.budget)
    exact = table.exact(genotype)
    return {
        "genotype": genotype.line,
        "data": work.data.name,
        "about_data": [*replace(work.data, described=False).lines],
        **{name: value for name, value in network.items() if name not in ("seconds", "step_seconds")},
        "budgets": limits,
        "used": {name: exact[name] / limit for name, limit in limits.items()},
        "certainty": results["search"]["certainty"],
        "notes": results["search"]["notes"],
        "plan": asdict(plan),
        "steps": [
            {"name": name, "planned_seconds": round(work.agenda.planned[name], 1), "seconds": result["step_seconds"]}
            for name, result in results.items()
        ],
        "rounds": [results[f"rank-{number}"] for number in range(1, len(plan.rounds) + 1)],
        "export": results["export"],
        "seconds": round(sum(result["step_seconds"] for result in results.values()), 1),
    }


def proven(work: Work, plan: Plan, results: Mapping[str, Any], reference: ReferenceBlueprint) -> dict[str, Any]:
    """Return the comparison with the best of the random cells, and with the reference network, on the same test images."""
    names = {"found": "network", "random": "random/network", "reference": "reference"}
    trained = [read_trained(work.run.folder / name / RunFile.NETWORK, work.given) for name in names.values()]
    correct = dict(zip(names, correct_on_test(trained, work.data, BATCH), strict=True))
    seconds = {
        "found": results["search"]["seconds"] + spent_on(results, "rank-", len(plan.rounds)),
        "random": spent_on(results, "random/rank-", len(plan.random)),
    }
    return {
        "cells": plan.random[0].networks,
        "reference_network": reference.reference,
        "choosing_seconds": seconds,
        **{
            other: {
                **{name: results[names[other]][name] for name in ("test_accuracy", "interval", "n", "costs")},
                "compared": asdict(compare(correct["found"], correct[other])),
            }
            for other in ("random", "reference")
        },
    }


def spent_on(results: Mapping[str, Any], prefix: str, rounds: int) -> float:
    """Return the seconds that rounds of halving trained for."""
    return float(sum(results[f"{prefix}{number}"]["seconds"] for number in range(1, rounds + 1)))

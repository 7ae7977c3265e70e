"""The command `rapdarts find`, from settings to a finished run folder: the plan, the steps, and a page with the results."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rapdarts.architecture.reading import read_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.architecture.writing import FORMATS
from rapdarts.config.experiment import Experiment, Launch, budget_limits
from rapdarts.config.exports import EXPORTS
from rapdarts.config.resources import time_left, within
from rapdarts.cost.expected import PriceTable
from rapdarts.data.dataset import DataSet, Reader
from rapdarts.deploy.blueprint import DerivedBlueprint, ReferenceBlueprint
from rapdarts.deploy.evaluation import correct_on_test
from rapdarts.deploy.lookup import own_space
from rapdarts.deploy.model_file import read_trained
from rapdarts.deploy.runtimes import need
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile, begun
from rapdarts.loops.find import Agenda, Work, find, prove
from rapdarts.loops.latency_first import lacks_table
from rapdarts.loops.latency_step import STEP, measured_prices, reusable, width_without_latency
from rapdarts.loops.launch import data_of, inputs_of, said_before, searched_space
from rapdarts.loops.opponents import planned_bounds, random_opponents, reference_opponent
from rapdarts.loops.pace import Pace, Sizes, measure_pace
from rapdarts.loops.plan import (
    TOLERANCE,
    Plan,
    durations,
    efforts,
    fitting,
    plan_from,
    plan_of,
    read_plan,
    with_random,
)
from rapdarts.loops.results import FoundNetwork
from rapdarts.loops.search import priced
from rapdarts.reports.find_page import page
from rapdarts.training.intervals import compare
from rapdarts.training.log import Screen
from rapdarts.training.run import Run
from rapdarts.training.session import open_run

MOST_RANDOM = 512
"""Largest number of random cells in a proof."""
MEASURED = 4
"""Number of random cells whose training steps are timed; one is not enough, because the times differ by up to a third."""
BATCH = 256
"""Batch size, in images, for testing the networks of a proof."""


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

    The arguments are those of `launch.run_search`. Before a run folder is created, raises InputError if a package is
    missing, the images cannot be split or the budgets cannot be met. Afterwards, raises InputError for a budget on latency that
    cannot be met, if latency was measured in the run, and for a plan that does not fit, and the errors of the steps.
    """
    began, screen = time.monotonic(), screen or Screen()
    need(EXPORTS["onnx"].extra, "rapdarts find, which writes an ONNX file,")
    searched, data = searched_space(config.search, space), data_of(config, read)
    sizes = Sizes.of(config, data)
    resumes = launch.resume and begun(Path(launch.run))  # a resumed run keeps its plan
    asked = read_plan(config.find, config, sizes) if config.find.plan and not resumes else None
    about = said_before(
        data, [f"looking for a network with {within(budget_limits(config.search.budget))}"], config, screen
    )
    measures = lacks_table(config.search)
    top = width_without_latency(config, searched, data) if measures else None
    table = None if measures else priced(config, searched, data)
    reference, remark = reference_opponent(config, searched, data) if config.find.proof else (None, "")
    with open_run("find", config, launch, name, inputs_of(config, data, given, None), screen, about=about) as run:
        agenda, measured = Agenda({}, screen), None
        if table is None:
            before = time.monotonic()
            measured, table = measured_prices(config, searched, data, top, run, agenda)
            began += time.monotonic() - before - measured.seconds  # its time counts in the session that measured
        if config.skeleton.channels == 0:
            width = table.skeleton.channels
            screen.say(f"skeleton.channels={width}: the widest network whose average cell fits the budgets")
        with reusable(measured, run):
            decided = run.keep("the plan", lambda: planned(config, searched, table, data, sizes, run, began, asked))
        plan, pace = plan_from(decided["plan"], RunFile.PLAN), Pace.of_plain(decided["pace"])
        pace = replace(pace, latency=measured.planned if measured else 0.0)
        run.write(RunFile.PLAN, plan.to_json(config, sizes, pace))
        agenda.planned, agenda.complete = durations(plan, sizes, pace), True
        late = measured.seconds - measured.planned if measured else 0.0
        screen.say(f"plan: {plan.words}; about {time_left(sum(agenda.planned.values()) + late)} in all")
        steps = plan.apply(replace(config, skeleton=replace(config.skeleton, channels=table.skeleton.channels)))
        latency = measured.table if measured else None
        work = Work(steps, searched, replace(data, described=True), given, run, agenda, latency)
        results = {**({STEP: measured.facts} if measured else {}), **find(work, plan)}
        report = written(work, plan, table, results, {"remarks": [], "proof": None})
        if reference is not None:
            results |= prove(work, plan, results["search"], reference)
            remarks = [*results["search"].get("random_remarks", []), *([remark] if remark else [])]
            proof = {"remarks": remarks, "proof": proven(work, plan, results, reference)}
            report = written(work, plan, table, results, proof)
    return FoundNetwork(report, run.folder, own_space(given))


def planned(
    config: Experiment,
    space: SearchSpace,
    table: PriceTable,
    data: DataSet,
    sizes: Sizes,
    run: Run,
    began: float,
    asked: Plan | None,
) -> dict[str, Any]:
    """Measure the pace of this machine, and choose a plan unless `asked` is given. Return both as plain values.

    `began` is the start of the work on the monotonic clock. Raises InputError if the time is too short for any plan, if the
    random cells cannot use the same compute, or if the settings do not fit the lengths in the plan.
    """
    settings, bounds = config.find, planned_bounds(config, space, table)

    def complete(plan: Plan, most: int = MOST_RANDOM) -> Plan | None:
        return with_random(plan, sizes, pace, most) if settings.proof else plan

    run.screen.say("measuring a few steps to plan the work")
    cells = [DerivedBlueprint(one, space, table.skeleton) for one in random_opponents(config, space, bounds, MEASURED)]
    pace = measure_pace(config, space, data, table, cells, run)
    if asked:
        plan: Plan | None = asked
    elif settings.seconds:
        plans = [one for effort in efforts() if (one := complete(plan_of(config, sizes, effort)))]
        spent = time.monotonic() - began
        plan = fitting(settings.seconds, spent, plans, lambda plan: sum(durations(plan, sizes, pace).values()))
    else:
        plan = complete(plan_of(config, sizes, settings.effort if settings.effort > 0 else 1.0))
    if plan and plan.random:
        there = len(random_opponents(config, space, bounds, plan.random[0].networks))  # there may be fewer cells
        if there < plan.random[0].networks:
            plan = None if asked else complete(replace(plan, random=()), there)
    if plan is None:
        raise InputError(
            f"find.proof=true: no number of random cells uses the compute of this search to within {100 * TOLERANCE:.0f} %; choose"
            " a different find.effort or a larger budget, or leave out find.proof."
        )
    searched_space(plan.apply(config).search, space)  # raises for settings that need longer stages
    decided: dict[str, Any] = json.loads(json.dumps({"plan": asdict(plan), "pace": asdict(pace)}))
    return decided


def written(
    work: Work, plan: Plan, table: PriceTable, results: Mapping[str, Any], proof: Mapping[str, Any]
) -> dict[str, Any]:
    """Write result.json, the page and the drawing of the cell, and return the content of result.json."""
    report = {**summary(work, plan, table, results), **proof}
    work.run.write_result(report)
    work.run.write("cell.svg", FORMATS["svg"](read_genotype(work.run.folder / "network" / RunFile.GENOTYPE)))
    work.run.write(RunFile.PAGE, page(report))
    return report


def summary(work: Work, plan: Plan, table: PriceTable, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of a run as plain values: the network, its quality, and the steps."""
    config, folder, network = work.config, work.run.folder, results["network"]
    genotype, limits = read_genotype(folder / "network" / RunFile.GENOTYPE), budget_limits(config.search.budget)
    exact, export = table.exact(genotype), dict(results["export"])
    rounds = [results[f"rank-{number}"] for number in range(1, len(plan.rounds) + 1)]
    return {
        "genotype": genotype.line,
        "data": work.data.name,
        "about_data": [*replace(work.data, described=False).lines],
        **{name: value for name, value in network.items() if name not in ("seconds", "step_seconds")},
        "quality": export.pop("quality"),
        "budgets": limits,
        "used": {name: exact[name] / limit for name, limit in limits.items()},
        "latency": {name: fact for name, fact in results.get(STEP, {}).items() if name != "step_seconds"} or None,
        "certainty": results["search"]["certainty"],
        "notes": results["search"]["notes"],
        "warnings": [
            *dict.fromkeys(line for one in (results["search"], *rounds, network) for line in one.get("warnings", []))
        ],
        "plan": asdict(plan),
        "steps": [
            {
                "name": name,
                "planned_seconds": round(work.agenda.planned[name], 1),
                "seconds": result.get("step_seconds"),
            }
            for name, result in results.items()
        ],
        "rounds": rounds,
        "export": export,
        "seconds": round(sum(result.get("step_seconds", 0.0) for result in results.values()), 1),
    }


def proven(work: Work, plan: Plan, results: Mapping[str, Any], reference: ReferenceBlueprint) -> dict[str, Any]:
    """Compare the final network with the best random cell and the reference network on the same test images.

    If the training of an opponent diverged, its entry has only the reason, under "diverged".
    """
    names = {"found": "network", "random": "random/network", "reference": "reference"}
    tested = {one: name for one, name in names.items() if "diverged" not in results[name]}
    trained = [read_trained(work.run.folder / name / RunFile.NETWORK, work.given) for name in tested.values()]
    correct = dict(zip(tested, correct_on_test(trained, work.data, BATCH), strict=True))
    seconds = {
        "found": results["search"]["seconds"] + spent_on(results, "rank-", len(plan.rounds)),
        "random": spent_on(results, "random/rank-", len(plan.random)),
    }
    opponents: dict[str, Any] = {}
    for other in ("random", "reference"):
        result = results[names[other]]
        opponents[other] = {"diverged": result.get("diverged")}
        if other in tested:
            facts = {name: result[name] for name in ("test_accuracy", "interval", "n", "costs")}
            opponents[other] = {**facts, "compared": asdict(compare(correct["found"], correct[other]))}
    return {
        "cells": len(results["search"]["random"]),
        "reference_network": reference.reference,
        "choosing_seconds": seconds,
        **opponents,
    }


def spent_on(results: Mapping[str, Any], prefix: str, rounds: int) -> float:
    """Return the total training time of the finished rounds of halving, in seconds."""
    names = [f"{prefix}{number}" for number in range(1, rounds + 1)]
    return float(sum(results[name]["seconds"] for name in names if name in results))

"""Comparison of three rules that adjust the multiplier of a budget, with and without a lower bound on the cost."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

import rapdarts
from rapdarts.cost.penalty import Penalty
from rapdarts.loops import search as searching
from tests.evidence.figures import mean
from tests.evidence.store import keep, load, origin, origin_of, own_origin, say, scratch
from tests.evidence.tables import paragraph, sources, table
from tests.evidence.tasks import TASKS
from tests.evidence.workers import each

SPENDS = (0.0, 0.9)
SEEDS = range(8)
BUDGETS = {"digits": ("params", (90_000, 130_000)), "fashion14": ("macs", (850_000, 1_000_000))}
"""The resource and the two budgets of each task."""


class TwoSided(Penalty):
    """Penalty whose multipliers follow the same formula above and below a budget, and may fall below 0."""

    least = -math.inf

    def adjust(self, costs: Mapping[str, float]) -> None:
        for name, budget in self.budgets.items():
            self.multipliers[name] = max(self.least, self.multipliers[name] + self.rate * (costs[name] / budget - 1))
        self._weigh()


class Subtracting(TwoSided):
    """Penalty whose multipliers follow the same formula above and below a budget, but never fall below 0."""

    least = 0.0


RULES: dict[str, type[Penalty]] = {"subtract": Subtracting, "multiply": Penalty, "two-sided": TwoSided}


@contextmanager
def adjusted_by(rule: str) -> Iterator[None]:
    """Make searches within the block adjust their multipliers by the rule of this name in RULES."""
    original = searching.Penalty
    searching.Penalty = RULES[rule]  # type: ignore[misc]
    try:
        yield
    finally:
        searching.Penalty = original  # type: ignore[misc]


def run(jobs: int, tasks: Sequence[str] = tuple(BUDGETS), seeds: Sequence[int] = SEEDS) -> None:
    """Search, derive and retrain for the results that are missing in the table."""
    known = load("multiplier")
    if "runs" not in known:
        known = {**origin(), "runs": {}}
        for name, value in known.items():
            keep("multiplier", value, name)
    calls = [
        (task, budget, seed, missing)
        for seed in seeds
        for task in tasks
        for budget in BUDGETS[task][1]
        if (missing := [rule for rule in RULES if not _known(known, task, budget, rule, seed)])
    ]
    for (task, budget, seed, _), results in each(run_rules, calls, jobs):
        for rule, result in results.items():
            keep("multiplier", {**own_origin(known), **result}, "runs", task, str(budget), rule, str(seed))
        say(
            f"multiplier, {task}, {budget}, seed {seed}: {sum(one['cpu_seconds'] for one in results.values()):.0f} CPU s"
        )


def _known(rows: Mapping[str, Any], task: str, budget: int, rule: str, seed: int) -> bool:
    return str(seed) in rows["runs"].get(task, {}).get(str(budget), {}).get(rule, {})


def run_rules(task: str, budget: int, seed: int, rules: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Search once under a budget by each rule, derive with and without a lower bound, and retrain every genotype once.

    Returns, for each rule, the multiplier of the last epoch and, for each lower bound, the share of the budget that is used
    and the test accuracy.
    """
    torch.set_num_threads(1)
    accuracies: dict[str, float] = {}
    return {rule: _one_run(task, budget, seed, rule, accuracies) for rule in rules}


def _one_run(task: str, budget: int, seed: int, rule: str, accuracies: dict[str, float]) -> dict[str, Any]:
    resource, recipe = BUDGETS[task][0], {} if task == "digits" else TASKS[task].recipe
    experiment = task if task == "digits" else TASKS[task].experiment()
    began = time.process_time()
    with scratch("multiplier") as folder:
        with adjusted_by(rule):
            rapdarts.search(
                experiment,
                {"seed": seed, f"search.budget.{resource}": budget},
                run=folder / "search",
                progress=False,
            )
        last = json.loads((folder / "search" / "metrics.jsonl").read_text().splitlines()[-1])
        result: dict[str, Any] = {"multiplier": round(last[f"multiplier_{resource}"], 4)}
        for spend in SPENDS:
            genotype = rapdarts.derive(folder / "search", {"spend": spend}, progress=False).genotype
            if genotype.line not in accuracies:
                settings = {"seed": seed, **recipe}
                network = rapdarts.retrain(
                    genotype, experiment, settings, run=folder / f"spend {spend}", progress=False
                )
                accuracies[genotype.line] = network.test.accuracy
            used = genotype.costs[resource] / budget
            result[str(spend)] = {"used": round(used, 4), "test_accuracy": accuracies[genotype.line]}
    return result | {"cpu_seconds": round(time.process_time() - began, 1)}


# --- the page ----------------------------------------------------------------------------------------------------


def section() -> list[str]:
    """Return the section as lines; empty if nothing has been run."""
    known = load("multiplier")
    if not known.get("runs"):
        return []
    head = [
        "task",
        "budget",
        "rule",
        "lower bound",
        "n",
        "share used",
        "accuracy",
        "paired difference from *subtract* with 0.9",
        "multiplier, last epoch",
    ]
    rows = [
        row
        for task, budgets in known["runs"].items()
        for budget, of in budgets.items()
        for row in _rows(task, budget, of)
    ]
    text = (
        "The multiplier of a budget is adjusted once an epoch. If the network costs more than the budget, all three rules add"
        " `budget_rate` x (cost / budget - 1) to the multiplier. If the network costs less, *multiply* (the default) multiplies it by"
        " (cost / budget)^4, *subtract* adds the same term as above, which is now negative, but keeps the multiplier at or above 0, and"
        " *two-sided* adds this term without a limit. Two genotypes are derived from each search, one without a lower bound on its cost"
        " and one with a lower bound of 0.9 of the budget, and both are retrained. Differences are in points of accuracy, on the same"
        " seeds. `make evidence` does not run these searches, which take hours. Those on the digits have three stages, and ran before"
        " every stage had its own shuffles and crops."
    )
    return [
        "## Rules for the multiplier of a budget",
        "",
        *paragraph(text),
        *table(head, rows),
        *sources(_origins(known)),
    ]


def _rows(task: str, budget: str, rules: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows of a task and a budget: for each rule, one row without a lower bound and one with a lower bound of 0.9."""
    reference = rules.get("subtract", {})
    rows = []
    for rule, seeds in rules.items():
        for spend in map(str, SPENDS):
            accuracy = {seed: 100 * one[spend]["test_accuracy"] for seed, one in seeds.items()}
            gains = [
                accuracy[seed] - 100 * reference[seed]["0.9"]["test_accuracy"] for seed in accuracy if seed in reference
            ]
            is_reference = rule == "subtract" and spend == "0.9"
            rows.append(
                [
                    task,
                    f"{int(budget):,} {BUDGETS[task][0]}",
                    rule,
                    spend,
                    str(len(seeds)),
                    f"{mean([100 * one[spend]['used'] for one in seeds.values()])} %",
                    str(mean(list(accuracy.values()))),
                    "–" if is_reference or not gains else mean(gains).text(places=2, sign=True),
                    mean([one["multiplier"] for one in seeds.values()]).text(places=2),
                ]
            )
    return rows


def _origins(known: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the command, date and machine of every run."""
    for budgets in known["runs"].values():
        for rules in budgets.values():
            for seeds in rules.values():
                for run in seeds.values():
                    yield origin_of(run, known)

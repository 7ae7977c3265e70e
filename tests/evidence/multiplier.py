"""How the price of a budget is adjusted, by three rules, and how much of the budget is spent: what the retrained networks reach."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

import rapdarts
from rapdarts.cost.penalty import Penalty
from rapdarts.loops import search as searching
from tests.evidence.figures import mean
from tests.evidence.store import WORK, keep, load, origin, say
from tests.evidence.tables import paragraph, sources, table
from tests.evidence.tasks import TASKS
from tests.evidence.workers import each

SPENDS = (0.0, 0.9)
SEEDS = range(8)
BUDGETS = {"digits": ("params", (90_000, 130_000)), "cifar16": ("macs", (1_100_000, 1_300_000))}
"""The tasks, and the two budgets of each."""


class Multiplying(Penalty):
    """While a network is below its budget, the multiplier shrinks by (cost / budget)^4."""

    def ascend(self, costs: Mapping[str, float]) -> None:
        for name, budget in self.budgets.items():
            share = costs[name] / budget
            if share < 1:
                self.multipliers[name] *= share**4
        above = {name: max(costs[name], budget) for name, budget in self.budgets.items()}
        super().ascend(above)


class TwoSided(Penalty):
    """A multiplier may fall below 0: what is cheaper than its budget is pulled upwards."""

    def ascend(self, costs: Mapping[str, float]) -> None:
        for name, budget in self.budgets.items():
            self.multipliers[name] += self.rate * (costs[name] / budget - 1)
        self._weigh()


RULES: dict[str, type[Penalty]] = {"subtract": Penalty, "multiply": Multiplying, "two-sided": TwoSided}


@contextmanager
def adjusted_by(rule: str) -> Iterator[None]:
    """Within, searches adjust their multipliers by one of RULES."""
    original = searching.Penalty
    searching.Penalty = RULES[rule]  # type: ignore[misc]
    try:
        yield
    finally:
        searching.Penalty = original  # type: ignore[misc]


def run(jobs: int, tasks: Sequence[str] = tuple(BUDGETS), seeds: Sequence[int] = SEEDS) -> None:
    """Search, derive and retrain what is missing of the table."""
    known = load("multiplier").get("runs", {})
    calls = [
        (task, budget, rule, seed)
        for seed in seeds
        for task in tasks
        for budget in BUDGETS[task][1]
        for rule in RULES
        if str(seed) not in known.get(task, {}).get(str(budget), {}).get(rule, {})
    ]
    for name, value in origin().items():
        keep("multiplier", value, name)
    for (task, budget, rule, seed), result in each(one_run, calls, jobs):
        keep("multiplier", result, "runs", task, str(budget), rule, str(seed))
        say(f"multiplier, {task}, {budget}, {rule}, seed {seed}: {result['cpu_seconds']} CPU s")


def one_run(task: str, budget: int, rule: str, seed: int) -> dict[str, Any]:
    """Search once under a budget, derive with and without spending, and retrain both.

    Returns, for each share to spend, the share of the budget that is used and the test accuracy; and the last multiplier.
    """
    torch.set_num_threads(1)
    resource, recipe = BUDGETS[task][0], {} if task == "digits" else TASKS[task].recipe
    experiment = task if task == "digits" else TASKS[task].experiment()
    folder, began = WORK / f"multiplier-{task}-{budget}-{rule}-{seed}", time.process_time()
    shutil.rmtree(folder, ignore_errors=True)
    with adjusted_by(rule):
        rapdarts.search(
            experiment,
            {"seed": seed, f"search.budget.{resource}": budget},
            run=folder / "search",
            progress=False,
        )
    last = json.loads((folder / "search" / "metrics.jsonl").read_text().splitlines()[-1])
    result: dict[str, Any] = {"multiplier": round(last[f"multiplier_{resource}"], 4)}
    accuracies: dict[str, float] = {}
    for spend in SPENDS:
        genotype = rapdarts.derive(folder / "search", {"spend": spend}, progress=False).genotype
        if genotype.line not in accuracies:
            settings = {"seed": seed, **recipe}
            network = rapdarts.retrain(genotype, experiment, settings, run=folder / f"spend {spend}", progress=False)
            accuracies[genotype.line] = network.test.accuracy
        used = genotype.costs[resource] / budget
        result[str(spend)] = {"used": round(used, 4), "test_accuracy": accuracies[genotype.line]}
    shutil.rmtree(folder)
    return result | {"cpu_seconds": round(time.process_time() - began, 1)}


# --- the page ----------------------------------------------------------------------------------------------------


def section() -> list[str]:
    """Return the table of all tasks as lines; none where nothing was run."""
    known = load("multiplier")
    if "runs" not in known:
        return []
    head = [
        "task",
        "budget",
        "rule",
        "spend",
        "n",
        "share used",
        "accuracy",
        "against the default, paired",
        "multiplier at the end",
    ]
    rows = [
        row
        for task, budgets in known["runs"].items()
        for budget, of in budgets.items()
        for row in _rows(task, budget, of)
    ]
    text = (
        "While a network costs more than its budget, the multiplier of the resource rises by"
        " `budget_rate` x (cost / budget - 1) once an epoch. Below the budget it falls by the same formula (*subtract*, the"
        " default), is multiplied by (cost / budget)^4 (*multiply*), or may fall below 0 (*two-sided*). Each search is"
        " derived from twice, with nothing to spend and with 0.9 of the budget, and what it gives is retrained."
        " Differences are from *subtract* with 0.9, on the same seeds, in points of accuracy."
    )
    return [
        "## How the price of a budget is adjusted, and spending",
        "",
        *paragraph(text),
        *table(head, rows),
        *sources([known]),
    ]


def _rows(task: str, budget: str, rules: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    default = rules.get("subtract", {})
    rows = []
    for rule, seeds in rules.items():
        for spend in map(str, SPENDS):
            accuracy = {seed: 100 * one[spend]["test_accuracy"] for seed, one in seeds.items()}
            gains = [
                accuracy[seed] - 100 * default[seed]["0.9"]["test_accuracy"] for seed in accuracy if seed in default
            ]
            is_default = rule == "subtract" and spend == "0.9"
            rows.append(
                [
                    task,
                    f"{int(budget):,} {BUDGETS[task][0]}",
                    rule,
                    spend,
                    str(len(seeds)),
                    f"{mean([100 * one[spend]['used'] for one in seeds.values()])} %",
                    str(mean(list(accuracy.values()))),
                    "–" if is_default or not gains else f"{mean(gains).value:+.2f} ± {mean(gains).error or 0:.2f}",
                    str(mean([one["multiplier"] for one in seeds.values()])),
                ]
            )
    return rows

"""Searches that have `budget.macs` from the start: one search for each budget of the score."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

import rapdarts
from tests.evidence import nasbench
from tests.evidence.store import keep, load, origin, say, scratch
from tests.evidence.tasks import images_of
from tests.evidence.workers import each

SEED = 0


def run(keys: Mapping[str, Any], jobs: int, again: bool = False) -> None:
    """Search within each budget that has no result with these settings, and keep the derived cells."""
    images_of(nasbench.TASK.data)
    known = load("nasbench201").get("budgeted")
    if known is None or known["keys"] != keys or again:
        known = {**origin(), "keys": dict(keys), "seed": SEED, "budgets": {}}
        keep("nasbench201", known, "budgeted")
    missing = [(dict(keys), budget) for budget in nasbench.BUDGETS if str(budget) not in known["budgets"]]
    for (_, budget), result in each(one_search, missing, jobs):
        keep("nasbench201", result, "budgeted", "budgets", str(budget))
        say(f"nasbench201, {budget} units from the start: {result['cpu_seconds']} CPU s")


def one_search(keys: dict[str, Any], budget: int) -> dict[str, Any]:
    """Search within a budget in units; return the derived cell, its MACs and the CPU time."""
    torch.set_num_threads(1)
    limit = nasbench.FIXED + nasbench.UNIT * budget
    settings = nasbench.TASK.experiment(seed=SEED, **{**keys, "search.budget.macs": limit})
    began = time.process_time()
    with scratch("budget") as folder:
        found = rapdarts.search(settings, run=folder, progress=False)
    spent = time.process_time() - began
    cell = found.genotype
    return {"cpu_seconds": round(spent, 1), "cell": cell.to_nasbench201(), "macs": cell.costs["macs"]}

"""Time of the parts of all methods on a task, measured in turn in one session, so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import rapdarts
from rapdarts.errors import plural
from tests.evidence import banks, finding, nasbench, naswot, satisficing_bank
from tests.evidence.plan import CURRENT
from tests.evidence.relaxations import RELAXED
from tests.evidence.satisficing import CHEAPER
from tests.evidence.store import begin, load, origin, say, scratch
from tests.evidence.tasks import TASKS, Task, images_of

SHORT, LONG = 1, 3
"""Epochs of two runs whose difference is the time of an epoch, without what a run does only once."""

STOP = "search.relax.stop_ratio"
"""Setting that stops searches early."""

CELLS = 4
"""Number of random cells whose trainings are measured."""


def run() -> None:
    """Measure the pace on NAS-Bench-201 and on the bank of the section on satisficing, unless it is known."""
    for task, measure in ((finding.TASK, measured), (satisficing_bank.BANK, measured_on_bank)):
        if "pace" not in load(task):
            images_of(TASKS[task].data)
            begin(task, {**origin(), **measure()}, "pace")


def measured() -> dict[str, Any]:
    """Return CPU seconds: of a search, of searches by the names of their settings, of an epoch of a short training and of NASWOT's ten.

    The last two are for each budget.
    """
    tables = [*RELAXED.items(), *CHEAPER.items()]
    changed = {
        name: keys for name, keys in tables if STOP not in keys
    }  # a search that stops has no time known in advance
    each = seconds_per_epoch(
        {name: searching(nasbench.TASK, {**CURRENT.keys, **keys}) for name, keys in changed.items()}
        | {str(budget): training(budget) for budget in nasbench.BUDGETS}
    )
    usual = nasbench.TASK.settings["search.epochs"]
    lengths = {name: changed[name].get("search.epochs", usual) for name in changed}
    began = time.process_time()
    naswot.best_of_ten(0, {"skip_paths": CURRENT.skip_paths, "spend": CURRENT.spend})
    return {
        "search": round(usual * each[next(iter(RELAXED))], 2),
        "searches": {name: round(lengths[name] * each[name], 2) for name in changed},
        "epoch": {str(budget): round(each[str(budget)] / CELLS, 3) for budget in nasbench.BUDGETS},
        "naswot": round((time.process_time() - began) / len(nasbench.ALL_BUDGETS), 2),
    }


def measured_on_bank() -> dict[str, Any]:
    """Return CPU seconds on the bank: of a search, of an epoch of a short training for each budget, and of NASWOT's ten."""
    bank, budgets = satisficing_bank.BANK, satisficing_bank.BUDGETS
    cells = {name: banks.begin(name)["cells"][:CELLS] for name in budgets}

    def training_on(name: str) -> Callable[[int], object]:
        return lambda epochs: satisficing_bank.short_trainings(name, cells[name], epochs)

    each = seconds_per_epoch({"search": searching(TASKS[bank], {})} | {name: training_on(name) for name in budgets})
    _, seconds = naswot.bank_scores(bank, banks.begin(bank)["cells"][: naswot.DRAWN])
    return {
        "search": round(TASKS[bank].settings["search.epochs"] * each["search"], 2),
        "epoch": {name: round(each[name] / CELLS, 3) for name in budgets},
        "naswot": seconds,
    }


def seconds_per_epoch(works: Mapping[str, Callable[[int], object]]) -> dict[str, float]:
    """Return the CPU time of an epoch of each work, a function of a number of epochs, in seconds.

    All works run with few epochs first, then all with more, in the same order.
    """
    torch.set_num_threads(1)
    spent: dict[str, list[float]] = {name: [] for name in works}
    for epochs in (SHORT, LONG):
        for name, work in works.items():
            began = time.process_time()
            work(epochs)
            spent[name].append(time.process_time() - began)
            say(f"{name}, {plural(epochs, 'epoch')}: {spent[name][-1]:.1f} CPU s")
    return {name: (long - short) / (LONG - SHORT) for name, (short, long) in spent.items()}


def searching(task: Task, keys: Mapping[str, Any]) -> Callable[[int], object]:
    """Return a function that searches on a task for some epochs with its settings, overridden by `keys`."""

    def search(epochs: int) -> None:
        settings = task.experiment(**{**keys, "search.epochs": epochs})
        with scratch("pace") as folder:
            rapdarts.search(settings, run=folder, progress=False)

    return search


def training(budget: int) -> Callable[[int], object]:
    """Return a function that trains random cells of a budget for some epochs."""
    cells = np.random.default_rng(budget).choice(np.flatnonzero(CURRENT.cells(budget)), CELLS, replace=False).tolist()
    return lambda epochs: finding.ranked(cells, epochs, 0, finding.images(0))

"""Time of the parts of all methods on NAS-Bench-201, measured in turn in one session, so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import rapdarts
from rapdarts.errors import plural
from tests.evidence import finding, nasbench, naswot
from tests.evidence.plan import CURRENT
from tests.evidence.relaxations import RELAXED
from tests.evidence.satisficing import CHEAPER
from tests.evidence.store import begin, load, origin, say, scratch
from tests.evidence.tasks import images_of

SHORT, LONG = 1, 3
"""Epochs of two runs whose difference is the time of an epoch, without what a run does only once."""

STOP = "search.relax.stop_ratio"
"""Setting that stops searches early."""

CELLS = 4
"""Number of random cells whose trainings are measured."""


def run() -> None:
    """Measure the pace, unless it is known."""
    if "pace" not in load(finding.TASK):
        images_of(nasbench.TASK.data)
        begin(finding.TASK, {**origin(), **measured()}, "pace")


def measured() -> dict[str, Any]:
    """Return CPU seconds: of a search, of searches by the names of their settings, of an epoch of a short training and of NASWOT's ten.

    The last two are for each budget. All runs of one epoch come first, then all others, in the same order.
    """
    torch.set_num_threads(1)
    tables = [*RELAXED.items(), *CHEAPER.items()]
    changed = {
        name: keys for name, keys in tables if STOP not in keys
    }  # a search that stops has no time known in advance
    works: dict[str, Callable[[int], object]] = {name: searching(keys) for name, keys in changed.items()}
    works |= {str(budget): training(budget) for budget in nasbench.BUDGETS}
    spent: dict[str, list[float]] = {name: [] for name in works}
    for epochs in (SHORT, LONG):
        for name, work in works.items():
            began = time.process_time()
            work(epochs)
            spent[name].append(time.process_time() - began)
            say(f"{name}, {plural(epochs, 'epoch')}: {spent[name][-1]:.1f} CPU s")
    each = {name: (long - short) / (LONG - SHORT) for name, (short, long) in spent.items()}
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


def searching(keys: Mapping[str, Any]) -> Callable[[int], object]:
    """Return a function that searches for some epochs with the current attempt's settings and `keys`."""

    def search(epochs: int) -> None:
        settings = nasbench.TASK.experiment(**{**CURRENT.keys, **keys, "search.epochs": epochs})
        with scratch("pace") as folder:
            rapdarts.search(settings, run=folder, progress=False)

    return search


def training(budget: int) -> Callable[[int], object]:
    """Return a function that trains random cells of a budget for some epochs."""
    cells = np.random.default_rng(budget).choice(np.flatnonzero(CURRENT.cells(budget)), CELLS, replace=False).tolist()
    return lambda epochs: finding.ranked(cells, epochs, 0, finding.images(0))

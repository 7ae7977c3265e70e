"""Contributions of choices: losses of one-hot cells in the supernet of a search that samples one candidate per edge (GDAS)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import rapdarts
from rapdarts.architecture.space import Mixing
from rapdarts.config.given import find_experiment
from rapdarts.files.run_files import RunFile
from rapdarts.loops import launch
from rapdarts.loops.search import build_stage
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.training.checkpoint import load_checkpoint
from tests.evidence import nasbench
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows, begin, keep, origin, own_origin, say, scratch
from tests.evidence.tasks import images_of
from tests.evidence.workers import each

KEYS: Mapping[str, Any] = {**CURRENT.keys, "search.relaxation": "gumbel"}
"""Settings of the searches."""

SEEDS = range(8)
"""Tuning seeds of the searches."""

CELLS, BATCH, BATCHES = 50, 256, 2
"""Number of random cells for each budget, and the batches of the search half on which their losses are measured."""

RIDGE = 1.0
"""Weight of the squared coefficients in the additive model."""


def run(jobs: int) -> None:
    """Search, and measure the losses of one-hot cells, with the missing seeds."""
    images_of(nasbench.TASK.data)
    known = begin("nasbench201", {**origin(), "seeds": {}}, "contributions")
    missing = [(seed,) for seed in SEEDS if str(seed) not in known["seeds"]]
    for (seed,), result in each(measure, missing, jobs):
        keep("nasbench201", {**own_origin(known), **result}, "contributions", "seeds", str(seed))
        say(f"contributions: seed {seed}, {result['cpu_seconds']} CPU s")


def measure(seed: int) -> dict[str, Any]:
    """Return random cells that a search could derive, for each budget, their losses in a searched supernet, and the CPU time."""
    torch.set_num_threads(1)
    rng, began, found = np.random.default_rng(seed), time.process_time(), {}
    settings = nasbench.TASK.experiment(seed=seed, **KEYS)
    with scratch("contributions") as folder:
        rapdarts.search(settings, run=folder, progress=False)
        for budget in nasbench.BUDGETS:
            cells = np.flatnonzero(CURRENT.cells(budget))
            drawn = rng.choice(cells, min(CELLS, len(cells)), replace=False)
            measured = losses(folder, settings, drawn)
            found[str(budget)] = {str(cell): loss for cell, loss in zip(drawn, measured, strict=True)}
    return {"cpu_seconds": round(time.process_time() - began, 1), "losses": found}


def losses(folder: Path, settings: Mapping[str, Any], cells: Sequence[int]) -> list[float]:
    """Return the loss of each one-hot cell on the search half, in the supernet of a finished search, with the norms of the batch."""
    config = find_experiment("search", settings, None, {}).config
    data, space = launch.data_of(config), nasbench.TASK.space
    supernet, *_ = build_stage(config, space, data, config.search.layers[-1], len(config.search.layers) - 1)
    saved = load_checkpoint(folder / RunFile.CHECKPOINT, {})
    assert saved is not None
    supernet.load_state_dict(saved[0]["objects"]["supernet"])
    supernet.dropout.rate = 0.0
    supernet.train()
    batches = SearchBatches.of(
        data, replace(config, search=replace(config.search, batch=min(BATCH, len(data.train) // 2)))
    )
    held = [search for _, (_, search) in zip(range(BATCHES), batches.epoch(0), strict=False)]
    found = []
    with torch.no_grad():
        for cell in cells:
            weights = torch.zeros(space.mask.shape)
            weights[0, torch.arange(6), torch.as_tensor(nasbench.all_cells()[cell])] = 1
            each = [float(cross_entropy(supernet(images, Mixing(weights)), labels)) for images, labels in held]
            found.append(round(float(np.mean(each)), 5))
    return found


def centred(row: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells (n,) of all budgets, and their losses (n,) after subtracting the mean of each budget."""
    cells, found = [], []
    for one in row["losses"].values():
        values = np.array([*one.values()])
        cells += [int(cell) for cell in one]
        found += [*(values - values.mean())]
    return np.array(cells), np.array(found)


def mean_effects(row: Rows) -> np.ndarray:
    """Return, for each (edge, primitive), (6, 5), how much lower the losses of the cells with this choice are on average."""
    cells, found = centred(row)
    chosen = one_hot(cells)
    return np.asarray(-(found @ chosen) / np.maximum(chosen.sum(0), 1)).reshape(6, 5)


def additive(row: Rows) -> np.ndarray:
    """Return the coefficients of a linear model of the negative losses on all choices, (6, 5), by ridge regression."""
    cells, found = centred(row)
    chosen = one_hot(cells)
    solved = np.linalg.solve(chosen.T @ chosen + RIDGE * np.eye(chosen.shape[1]), -chosen.T @ found)
    return np.asarray(solved).reshape(6, 5)


def one_hot(cells: np.ndarray) -> np.ndarray:
    """Return the choices of cells (n,) as indicators (n, 30)."""
    return np.asarray(np.eye(5)[nasbench.all_cells()[cells]]).reshape(len(cells), -1)

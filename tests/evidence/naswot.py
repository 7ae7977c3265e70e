"""NASWOT (Mellor et al. 2021): a ranking of cells by their untrained networks, as a baseline that needs no search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import DataConfig
from rapdarts.data.augment import normalise
from rapdarts.data.dataset import load_dataset
from rapdarts.data.randomness import permutation
from rapdarts.networks.derived import DerivedNetwork
from tests.evidence import nasbench
from tests.evidence.banks import genotype_of
from tests.evidence.store import Rows, begin, keep, load, origin, origin_of, own_origin, say
from tests.evidence.tasks import TASKS, images_of
from tests.evidence.workers import each

DRAWN, IMAGES, SEED = 10, 128, 0
"""Number of random cells to choose from, number of training images per network, and the seed for the cells of a bank."""


def naswot(space: SearchSpace, skeleton: Skeleton, genotype: Genotype, images: Tensor, seed: int) -> float:
    """Return log |det K| of the untrained network for normalised `images` (n, c, h, w) (Mellor et al. 2021, Eq. 2).

    K (n, n) counts, for every two images, the ReLU units that are active for both or for neither.
    """
    torch.manual_seed(seed)
    network = DerivedNetwork(genotype, space, skeleton).train()
    n = len(images)
    kernel = torch.zeros(n, n, dtype=torch.float64)

    def count(_module: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> None:
        codes = (inputs[0].flatten(1) > 0).float()
        kernel.add_((codes @ codes.T + (1 - codes) @ (1 - codes).T).double())

    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def images_for(name: str, seed: int) -> Tensor:
    """Return `IMAGES` random training images of a task, (n, c, h, w), normalised."""
    config = DataConfig(name="npz", path=str(images_of(TASKS[name].data)))
    data = load_dataset(config, torch.device("cpu"), seed=0)
    drawn = permutation(seed, "naswot", 0, len(data.train))[:IMAGES]
    return normalise(data.train.fetch(drawn), data.mean, data.std)


def run_tens(seeds: Sequence[int], conditions: dict[str, Any], jobs: int, again: bool = False) -> None:
    """Draw ten cells for every budget of NAS-Bench-201 with the seeds that are missing, and keep the best by NASWOT.

    `conditions`, the arguments of `nasbench.derivable` that select the cells, are kept with the results.
    """
    images_of(nasbench.TASK.data)
    known = begin("nasbench201", {**origin(), "seeds": {}}, "naswot")
    missing = [(seed, conditions) for seed in seeds if again or str(seed) not in known["seeds"]]
    for (seed, _), result in each(best_of_ten, missing, jobs):
        keep("nasbench201", {**own_origin(known), **conditions, **result}, "naswot", "seeds", str(seed))
        say(f"nasbench201, NASWOT: seed {seed}, {result['cpu_seconds']} CPU s")


def best_of_ten(seed: int, conditions: dict[str, Any]) -> dict[str, Any]:
    """Return, for each budget, the best by NASWOT of ten random cells that a search could have derived, and the CPU time.

    If there are fewer than ten cells, all are compared.
    """
    torch.set_num_threads(1)
    rng, images, task = np.random.default_rng(seed), images_for("nasbench201", seed), nasbench.TASK
    began, found = time.process_time(), {}
    for budget in (*nasbench.BUDGETS, *nasbench.OTHER_BUDGETS):
        cells = np.flatnonzero(nasbench.derivable(budget, **conditions))
        drawn = [nasbench.genotype(cell) for cell in rng.choice(cells, min(DRAWN, len(cells)), replace=False)]
        best = max(drawn, key=lambda cell: naswot(task.space, task.table.skeleton, cell, images, seed))
        found[str(budget)] = best.to_nasbench201()
    return {"cpu_seconds": round(time.process_time() - began, 1), "cells": found}


def run_bank(name: str, again: bool = False) -> None:
    """Score all cells of a bank by NASWOT, and keep the scores; do nothing if they exist, unless `again`."""
    rows = load(name)
    if "naswot" in rows and not again:
        return
    scores, seconds = bank_scores(name, rows["cells"])
    keep(name, {**origin(), "seed": SEED, "cpu_seconds": seconds, "scores": scores}, "naswot")
    say(f"{name}, NASWOT: {len(scores)} cells, {seconds} CPU s")


def bank_scores(name: str, lines: Sequence[str]) -> tuple[dict[str, float], float]:
    """Return the NASWOT score of every genotype, and the total CPU time."""
    torch.set_num_threads(1)
    task, images = TASKS[name], images_for(name, SEED)
    began = time.process_time()
    skeleton = task.table.skeleton
    scores = {line: round(naswot(task.space, skeleton, genotype_of(line), images, SEED), 3) for line in lines}
    return scores, round(time.process_time() - began, 1)


def tens(rows: Rows, seeds: Sequence[int], budgets: Sequence[int]) -> list[list[int]]:
    """Return the cells that NASWOT chose with the seeds that have been run: for each seed, an index into `all_cells` per budget."""
    known = rows.get("naswot", {"seeds": {}})["seeds"]
    lines = [known[str(seed)]["cells"] for seed in seeds if str(seed) in known]
    return [[nasbench.number(genotype_of(cells[str(budget)])) for budget in budgets] for cells in lines]


def cpu_seconds(rows: Rows, seeds: Sequence[int]) -> float:
    """Return the mean CPU time of the draws with the seeds that have been run."""
    known = rows["naswot"]["seeds"]
    return float(np.mean([known[str(seed)]["cpu_seconds"] for seed in seeds if str(seed) in known]))


def origins(rows: Rows, seeds: Sequence[int]) -> list[dict[str, str]]:
    """Return the command, date and machine of the draws with the seeds that have been run."""
    known = rows.get("naswot", {"seeds": {}})
    found = [known["seeds"][str(seed)] for seed in seeds if str(seed) in known["seeds"]]
    return [origin_of(one, known) for one in found]

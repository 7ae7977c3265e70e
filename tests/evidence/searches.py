"""Series of searches: the mixing weights and CPU times of one variant of a task's search with many seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

import rapdarts
from rapdarts.strategy.alphas import read_alphas
from rapdarts.strategy.relaxation import mixing_weights
from rapdarts.strategy.replicas import mean_weights
from tests.evidence.store import Rows, begin, keep, origin, origin_of, own_origin, say, scratch
from tests.evidence.tasks import TASKS, images_of
from tests.evidence.workers import each

PLAIN = "as in the task"
"""Name of the variant that changes no setting."""


def variant_name(keys: Mapping[str, Any]) -> str:
    """Return the name of a variant: the settings that it changes, sorted by key."""
    return " ".join(f"{name}={value}" for name, value in sorted(keys.items())) or PLAIN


def run_series(task: str, keys: Mapping[str, Any], seeds: Sequence[int], jobs: int, again: bool = False) -> None:
    """Search with the seeds that are missing, or with all if `again`, in several processes, and keep the results."""
    images_of(TASKS[task].data)
    name = variant_name(keys)
    known = begin(task, {**origin(), "keys": dict(keys), "seeds": {}}, "searches", name)
    missing = [seed for seed in seeds if again or str(seed) not in known["seeds"]]
    for (*_, seed), result in each(one_search, [(task, dict(keys), seed) for seed in missing], jobs):
        keep(task, {**own_origin(known), **result}, "searches", name, "seeds", str(seed))
        say(f"{task}, {name}: seed {seed}, {result['cpu_seconds']} CPU s")


def one_search(task: str, keys: dict[str, Any], seed: int) -> dict[str, Any]:
    """Search once; return the log mixing weights (kinds, edges, primitives) and the CPU time."""
    torch.set_num_threads(1)
    began = time.process_time()
    with scratch(task) as folder:
        rapdarts.search(TASKS[task].experiment(seed=seed, **keys), run=folder, progress=False)
        spent = time.process_time() - began
        _, _, (architecture,) = read_alphas(folder / "alphas.json", TASKS[task].space)
    logs = np.log(mixing_weights(architecture)).round(6)
    return {"cpu_seconds": round(spent, 1), "log_weights": logs.tolist()}


def seeds_of(rows: Rows, name: str, among: Sequence[int]) -> list[int]:
    """Return the seeds in `among` with which a variant has been run, in order."""
    known = rows["searches"].get(name, {"seeds": {}})["seeds"]
    return [seed for seed in among if str(seed) in known]


def weights_of(rows: Rows, name: str, seeds: Sequence[int]) -> list[np.ndarray]:
    """Return the mixing weights of a series, (kinds, edges, primitives) each."""
    return [np.exp(np.array(rows["searches"][name]["seeds"][str(seed)]["log_weights"])) for seed in seeds]


def cpu_seconds(rows: Rows, name: str, seeds: Sequence[int]) -> list[float]:
    """Return the CPU time of each search of a series."""
    return [rows["searches"][name]["seeds"][str(seed)]["cpu_seconds"] for seed in seeds]


def origins(rows: Rows, name: str, seeds: Sequence[int]) -> list[dict[str, str]]:
    """Return the command, date and machine of each search of a series."""
    series = rows["searches"][name]
    return [origin_of(series["seeds"][str(seed)], series) for seed in seeds]


def groups(weights: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Return the means of disjoint groups of `size` consecutive searches; an incomplete last group is left out."""
    return [mean_weights(weights[start : start + size]) for start in range(0, len(weights) - size + 1, size)]

"""Part `memory`: the expected memory of a step of the search, and the memory that the step takes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import torch

from rapdarts.loops.memory import MemoryEstimate, stage_footprint
from rapdarts.training.device import training_device
from tests.benchmarks import counts
from tests.benchmarks.stages import Batched, Sizes, Stage, settled
from tests.benchmarks.turns import megabytes, say, table, words_of

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "amp=bf16": {"amp": "bf16"},
    "checkpoint=true": {"checkpoint": True},
    "partial_channels=2": {"partial_channels": 2},
}
"""Settings of the search that change the memory of a step."""


def measure(sizes: Sizes, cases: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Return the bytes of live tensors, the bytes expected for a process, and the bytes measured in one, for every case and variant."""
    figures = {case: {name: _variant(case, name, sizes, device) for name in VARIANTS} for case in cases}
    return {"sizes": asdict(sizes), "cases": figures}


def _variant(case: str, name: str, sizes: Sizes, device: torch.device) -> dict[str, int]:
    say(f"{case}, {name}: memory")
    stage = stage_of(case, name, sizes, device)
    found = stage_footprint(stage.config, stage.space, stage.data, stage.table, 0)
    estimate = MemoryEstimate(stage.config, stage.space, stage.data, stage.table, None)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        measured = process.submit(taken, case, name, sizes, device, torch.get_num_threads()).result()
    return {
        "alive_bytes": found.bytes(sizes.batch),
        "expected_bytes": estimate.process_bytes(found),
        "measured_bytes": measured,
    }


def stage_of(case: str, name: str, sizes: Sizes, device: torch.device) -> Stage:
    """Return a variant of a stage, with only as many images as its first steps use."""
    stage = Stage.of(case, replace(sizes, images=max(20, 4 * sizes.batch)), device)
    return replace(stage, config=replace(stage.config, search=replace(stage.config.search, **VARIANTS[name])))


def taken(case: str, name: str, sizes: Sizes, device: torch.device, threads: int) -> int:
    """Return the bytes by which this process grows while it builds a stage and takes its first weight steps and alternations.

    On a GPU, this is the memory reserved by torch, including the pools of CUDA graphs.
    """
    training_device(str(device), threads)
    stage = stage_of(case, name, sizes, device)
    stage.batches  # noqa: B018 (created beforehand)

    def run() -> None:
        steps = Batched(stage)
        for step in (steps.weight_step, steps.alternation):
            for _ in range(1 + settled(device)):
                step()

    return counts.peak_bytes(run, device)


def report(figures: Mapping[str, Any]) -> str:
    """Return the results as a table."""
    lines = [["", "alive", "expected", "measured", "measured / alive", "measured / expected"]]
    for case, variants in figures["cases"].items():
        for name, found in variants.items():
            values = [found[f"{what}_bytes"] for what in ("alive", "expected", "measured")]
            ratios = [f"{values[2] / value:.2f}" for value in values[:2]]
            lines.append([f"{case}, {name}", *map(megabytes, values), *ratios])
    return f"{words_of(figures['sizes'])}\n{table(lines)}"

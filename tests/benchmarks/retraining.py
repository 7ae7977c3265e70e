"""Part `retrain`: the time of a step of retraining, by precision and memory layout, and the share of it spent on preparing the batch."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from itertools import pairwise
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.resolve import resolve_experiment
from rapdarts.data.dataset import DataSet
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops import retrain as loop
from rapdarts.training.run import Run
from rapdarts.training.session import open_run
from tests.benchmarks.loop import Watch
from tests.benchmarks.stages import CLASSES, Sizes, random_pictures
from tests.benchmarks.turns import megabytes, say, table

LAYERS, CHANNELS, BATCH = 20, 36, 128
"""Sizes of P-DARTS' own retraining on CIFAR-10."""

MODES: dict[str, dict[str, Any]] = {
    "fp32, NCHW": {"amp": "none"},
    "fp32": {"amp": "none"},
    "bf16": {"amp": "bf16"},
    "bf16, kernels by trial": {"amp": "bf16"},
    "bf16, compiled": {"amp": "bf16", "compile": True},
}
"""Settings of retraining that are measured; all but the first use the channels-last layout, like every retraining.

"By trial" lets cuDNN time its kernels and choose the fastest. Searches and retrainings forbid this, to stay reproducible.
"""


def measure(
    sizes: Sizes, layers: int, channels: int, device: torch.device, rounds: int, warm_up: int, compiled: bool
) -> dict[str, Any]:
    """Time steps of the retraining loop for PDARTS with its auxiliary head, on random pixels, one mode after the other."""
    modes = {
        mode: _mode(mode, sizes, layers, channels, device, rounds, warm_up)
        for mode in MODES
        if compiled or "compile" not in MODES[mode]
    }
    return {"sizes": asdict(sizes), "layers": layers, "channels": channels, "modes": modes}


def _mode(
    mode: str, sizes: Sizes, layers: int, channels: int, device: torch.device, rounds: int, warm_up: int
) -> dict[str, Any]:
    say(f"retrain: {mode}")
    # Results on random pixels do not matter, but they must stay finite.
    given = [("retrain.batch", sizes.batch), ("retrain.lr", 1e-6), ("save_seconds", 1e6)]
    config = resolve_experiment("cifar10", given, "retrain")
    config = replace(config, retrain=replace(config.retrain, epochs=1, **MODES[mode]))
    pictures = random_pictures(sizes.images, sizes.side, device)
    few = replace(pictures, test=pictures.test.take(torch.arange(2 * sizes.batch)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    torch.backends.cudnn.benchmark = mode.endswith("by trial")
    whole, dealing = _watched(config, few, layers, channels, mode, rounds, warm_up)
    torch.backends.cudnn.benchmark = False
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    step = median(whole)
    say(f"retrain: {mode}: {sizes.batch / step:,.0f} images a second")
    return {
        "seconds": whole,
        "median_s": step,
        "images_per_s": sizes.batch / step,
        "batches_share": median(dealing) / step,
        "peak_bytes": peak,
    }


def _watched(
    config: Experiment, data: DataSet, layers: int, channels: int, mode: str, rounds: int, warm_up: int
) -> tuple[list[float], list[float]]:
    """Return the seconds from batch to batch in the retraining's own loop, and the seconds spent on preparing each batch."""
    watch, asked, dealt = Watch(data.train.labels.device), [], []
    batches = Run.batches

    def watched_batches(run: Run, source: Any) -> Iterator[Any]:
        dealing = batches(run, source)
        for _ in range(warm_up + rounds):
            asked.append(watch.now())
            batch = next(dealing)
            dealt.append(watch.now())
            yield batch
        asked.append(watch.now())

    def without_layout(network: nn.Module, device: torch.device) -> nn.Module:
        return network.to(device)

    blueprint = DerivedBlueprint(
        LITERATURE["PDARTS"], named_space("darts"), Skeleton(layers, channels, data.image, CLASSES)
    )
    placing = patch.object(loop, "place", without_layout) if mode.endswith("NCHW") else nullcontext()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        with open_run("retrain", config, Launch(run=folder), "benchmark", {}) as run:
            with patch.object(Run, "batches", watched_batches), placing:
                loop.retrain(config, blueprint, data, run)
    whole = [watch.between(first, last) for first, last in pairwise(asked)]
    dealing = [watch.between(first, last) for first, last in zip(asked, dealt, strict=False)]
    return whole[warm_up:], dealing[warm_up:]


def report(figures: Mapping[str, Any]) -> str:
    sizes = figures["sizes"]
    head = f"PDARTS, {figures['layers']} cells x {figures['channels']} channels with its auxiliary head, batch {sizes['batch']}"
    lines = [["", "images a second", "step", "preparing the batch", "peak memory"]]
    for mode, found in figures["modes"].items():
        peak = "" if found["peak_bytes"] is None else megabytes(found["peak_bytes"])
        share = f"{100 * found['batches_share']:.1f} %"
        lines.append([mode, f"{found['images_per_s']:,.0f}", f"{1e3 * found['median_s']:,.1f} ms", share, peak])
    return f"{head}\n{table(lines)}"

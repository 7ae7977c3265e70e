"""Timers in the search's own loop: the time from batch to batch, and the time of the supernet's passes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch

from rapdarts.config.experiment import Launch
from rapdarts.cost.measure import clock
from rapdarts.loops import search as loop
from rapdarts.training.run import Run
from rapdarts.training.session import open_run
from tests.benchmarks.stages import Stage

PASSES = 4
"""Timed passes in an alternation: forward and backward, on the search batch and on the training batch."""


class Watch:
    """Timestamps from the clock of a device, and the seconds between two of them."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.clock = device, clock(device)

    def now(self) -> Any:
        if self.clock == "events":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        return time.thread_time() if self.clock == "thread" else time.perf_counter()

    def between(self, first: Any, last: Any) -> float:
        if self.clock == "events":
            last.synchronize()
            return float(first.elapsed_time(last)) * 1e-3
        return float(last - first)


def watched(stage: Stage, steps: int, warm_up: int) -> tuple[list[float], list[float] | None]:
    """Return the seconds of `steps` alternations at a stage and of the supernet's passes in each, after `warm_up` untimed ones.

    This runs the search's own loop, with its batches, prices, optimisers and metrics. A GPU replays whole steps, so
    the passes inside them cannot be timed, and the second value is None.
    """
    watch, asked, passes = Watch(stage.device), [], []
    batches, build, grad = Run.batches, loop.build_stage, torch.autograd.grad
    began: list[Any] = []  # start of a forward pass whose backward pass is still to come

    def watched_batches(run: Run, source: Any) -> Iterator[Any]:
        dealt = batches(run, source)
        for _ in range(warm_up + steps):
            asked.append(watch.now())
            yield next(dealt)
        asked.append(watch.now())

    def watched_build(*given: Any) -> Any:
        supernet, *others = build(*given)

        def before(*_: Any) -> None:
            began.append(watch.now())

        def after(*_: Any) -> None:
            passes.append((began[-1], watch.now()))

        if stage.device.type != "cuda":
            supernet.register_forward_pre_hook(before)
            supernet.register_forward_hook(after)
        return supernet, *others

    def watched_grad(*given: Any, **options: Any) -> Any:
        if not began:  # the gradient of the price does not involve the supernet
            return grad(*given, **options)
        began.clear()
        start = watch.now()
        gradients = grad(*given, **options)
        passes.append((start, watch.now()))
        return gradients

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        with open_run("search", stage.config, Launch(run=folder), "benchmark", {}) as run:
            with patch.object(Run, "batches", watched_batches), patch.object(loop, "build_stage", watched_build):
                with patch.object(torch.autograd, "grad", watched_grad):
                    loop.search(stage.config, stage.space, stage.data, run, stage.table, {})

    whole = [watch.between(first, last) for first, last in pairwise(asked)][warm_up:]
    if stage.device.type == "cuda":
        return whole, None
    if len(passes) != PASSES * (warm_up + steps):
        raise RuntimeError(
            f"{len(passes)} passes in {warm_up + steps} steps, not {PASSES} per step: adapt this timer to the step of the search"
        )
    spent = [watch.between(first, last) for first, last in passes]
    return whole, [sum(spent[at : at + PASSES]) for at in range(PASSES * warm_up, len(spent), PASSES)]

"""Memory of a search: what a step of each stage takes, what is free, and which batch fits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from rapdarts.architecture.space import NONE, SearchSpace, Skeleton, stem_for
from rapdarts.config.experiment import Experiment, RetrainConfig
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import Penalty
from rapdarts.data.dataset import DataSet
from rapdarts.data.images import InMemory
from rapdarts.errors import DeviceError, ran_out_of_memory, refused_a_kernel, shorten
from rapdarts.loops import search as loop
from rapdarts.training.footprint import BATCH, META, Alive, Footprint, footprint, lower_precision
from rapdarts.training.memory import free_bytes
from rapdarts.training.run import Run

OVERHEAD = 2
"""Bytes that a process takes for each byte of live tensors. On a CPU the gaps of glibc's heap are about as large as the tensors
(docs/performance.md). On a GPU the CUDA graph has a memory pool of its own, beside that of the eager steps before its capture."""

CHECKPOINT_OVERHEAD = 1.4
"""This times as many where cells are recomputed: their short-lived tensors leave more gaps between those that stay (the same page)."""

LIBRARY_BYTES = 50_000_000
"""Bytes that the first steps of a process take on a CPU, whatever they compute: the library's own code and tables."""

PROBE = (16, 8, 8)
"""The image on which primitives are compared."""

NO_ESTIMATE = (RuntimeError, TypeError, ValueError, MemoryError)
"""Errors of a user's primitive that needs the numbers of its input to run, and of too little memory for the estimate itself."""


@contextmanager
def within_memory(config: Experiment, space: SearchSpace, data: DataSet, table: PriceTable, run: Run) -> Iterator[None]:
    """Report how much memory the search inside will take.

    Raises DeviceError where the memory runs out all the same, with the batch that fits, or where the GPU cannot run the
    batched supernet's kernels.
    """
    estimate = MemoryEstimate(config, space, data, table, free_bytes(data.train.labels.device))
    if not run.screen.closed and (summary := estimate.summary()):
        run.screen.say(summary)
    try:
        yield
    except Exception as error:
        if refused_a_kernel(error):
            why = shorten(" ".join(str(error).split(". ")[0].split()) or type(error).__name__)
            raise DeviceError(
                f"this GPU cannot run the kernels of the batched supernet ({why}); set search.supernet=plain."
            ) from error
        if not ran_out_of_memory(error):
            raise
        raise DeviceError(estimate.out_of_memory(run.stage)) from error


@contextmanager
def training_within_memory(settings: RetrainConfig) -> Iterator[None]:
    """Raise DeviceError, with the settings that take less, where the memory runs out in the retraining inside."""
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        half = settings.batch // 2
        keys = [f"retrain.batch={half} with retrain.accumulate={2 * settings.accumulate}"] if half >= 2 else []
        keys += ["retrain.amp=bf16"] if settings.amp == "none" else []
        advice = f"set {' or '.join(keys)}" if keys else "take a smaller network"
        raise DeviceError(f"out of memory at batch {settings.batch}: {advice}.") from error


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that the steps of a search will take, and the memory that is free as it begins."""

    config: Experiment
    space: SearchSpace
    data: DataSet
    table: PriceTable
    free: int | None  # bytes

    def summary(self) -> str | None:
        """Return what a step of the largest stage takes, and whether as much is free; None where there is no estimate."""
        settings = self.config.search
        try:
            stage = self.largest_stage()
            found = self.footprint(stage)
        except NO_ESTIMATE:
            return None
        cells, takes = settings.layers[stage], show_bytes(self.process_bytes(found))
        text = f"a step will take about {takes} ({self.stage_name(stage)}: {cells} cells, batch {settings.batch})"
        if self.free is None:
            return text
        batch = self.largest_batch(found)
        if batch >= settings.batch:
            fits = f"up to batch {batch}" if batch < self.largest_allowed_batch else "any batch"
            return f"{text}; {show_bytes(self.free)} are free: {fits} fits"
        return f"warning: {text}, but {show_bytes(self.free)} are free: {self.advice(batch)}"

    def out_of_memory(self, stage: int) -> str:
        """Return the error message for a stage in which the memory ran out."""
        batch = self.config.search.batch
        fits = 3 * batch // 4  # the whole batch did not fit, whatever the estimate
        with suppress(*NO_ESTIMATE):
            fits = min(fits, self.largest_batch(self.footprint(stage)))
        return f"out of memory in {self.stage_name(stage)} at batch {batch}: {self.advice(fits)}."

    def stage_name(self, stage: int) -> str:
        """Return the name of a stage for messages, which count from 1."""
        return f"stage {stage + 1} of {len(self.config.search.layers)}"

    def largest_stage(self) -> int:
        """Return the stage whose cells save most for the backward pass.

        These are all cells, or with `checkpoint` the largest one and the outputs of every cell.
        """
        settings, image = self.config.search, self.data.image
        stem = stem_for(self.config.skeleton.stem, image)

        def weight(stage: int) -> float:
            plans = Skeleton(settings.layers[stage], settings.channels, image, self.data.classes, stem).cells(
                self.space
            )
            elements = [plan.channels * math.prod(plan.inside) for plan in plans]
            candidates = sum(sorted(self.saved_bytes)[-settings.candidates[stage] :]) / math.prod(PROBE)
            edges = len(self.space.edges) * candidates / settings.partial_channels
            if settings.checkpoint:
                return max(elements) * edges + sum(elements) * 4 * len(self.space.outputs)
            return sum(elements) * edges

        return max(range(len(settings.layers)), key=weight)

    def footprint(self, stage: int) -> Footprint:
        """Return the footprint of a stage over the candidates that save most: pruning may leave any of them."""
        order = np.argsort(self.saved_bytes, kind="stable")
        largest = np.isin(np.arange(len(order)), order[-self.config.search.candidates[stage] :])
        space = self.space.narrowed(self.space.mask & largest)
        return stage_footprint(self.config, space, self.data, self.table, stage)

    @cached_property
    def saved_bytes(self) -> list[int]:
        """Bytes that each primitive by itself saves for its backward pass of an image of PROBE, its output included."""
        saved = []
        for name, make in self.space.primitives.items():
            with META:
                x, primitive = torch.empty(BATCH, *PROBE, requires_grad=True), make(PROBE[0], 1, False)
            with Alive() as alive:
                output = None if name == NONE else primitive(x)
                saved.append(alive.each)
                del output
        return saved

    @property
    def overhead(self) -> tuple[int, float]:
        """Bytes that a process takes whatever its tensors, and for each byte of live tensors."""
        settings, on_host = self.config.search, self.data.train.labels.device.type == "cpu"
        captured = not (settings.unrolled or settings.checkpoint)
        each = OVERHEAD if on_host or captured else 1
        return LIBRARY_BYTES if on_host else 0, each * CHECKPOINT_OVERHEAD if settings.checkpoint else each

    def process_bytes(self, found: Footprint) -> int:
        """Return the bytes that the process takes for a step with this footprint."""
        fixed, each = self.overhead
        return round(fixed + each * found.bytes(self.config.search.batch))

    @property
    def largest_allowed_batch(self) -> int:
        """The number of images in the smaller half of the training set: no batch may be larger."""
        halves = loop.SearchBatches.of(self.data, self.config)
        return min(len(half.index) for half in (halves.train, halves.search))

    def largest_batch(self, found: Footprint) -> int:
        """Return the largest batch that fits into the free memory; 0 where none does."""
        if self.free is None:
            return self.largest_allowed_batch
        fixed, each = self.overhead
        return min(self.largest_allowed_batch, found.largest_batch(int((self.free - fixed) / each)))

    def advice(self, batch: int) -> str:
        """Return the part of a message that names the `batch` that fits, and the settings to change."""
        settings = self.config.search
        fits = batch >= 2  # batch norm takes no less
        keys = [f"search.batch={batch}"] if fits else []
        if not settings.checkpoint:
            keys.append("search.checkpoint=true")
        if settings.partial_channels == 1 and settings.channels % 4 == 0:
            keys.append("search.partial_channels=4")
        if not keys:
            keys.append("a smaller search.channels")
        choice = " or ".join([", ".join(keys[:-1]), keys[-1]] if keys[1:] else keys)
        return f"{f'about batch {batch}' if fits else 'no batch'} fits; set {choice}"


def stage_footprint(config: Experiment, space: SearchSpace, data: DataSet, table: PriceTable, stage: int) -> Footprint:
    """Return the footprint of a step of a stage over the candidates of `space`.

    Weights, the state of the optimisers and batches are included, the data set is not.
    """
    settings = replace(config.search, amp="none")
    with META:
        images, labels = torch.empty(BATCH, *data.image), torch.empty(BATCH, dtype=torch.int64)
        others = torch.empty_like(images), torch.empty_like(labels)
        on_meta = replace(data, train=InMemory(images, labels))
        supernet, architecture, *_ = loop.build_stage(config, space, on_meta, settings.layers[stage], stage)
    if config.search.amp == "bf16":
        lower_precision(supernet)
    supernet.dropout.rate = settings.skip_dropout[stage]
    supernet.train()
    sgd = GradientsOnly(supernet.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    adam, penalty = GradientsOnly(architecture.parameters()), Penalty(table, asdict(settings.cost), device=META)
    step = loop.alternation(settings, supernet, architecture, sgd, adam, penalty)

    weights, alpha = list(supernet.parameters()), list(architecture.parameters())
    moments = [torch.empty_like(x) for x in (*(weights if settings.momentum else ()), *alpha, *alpha)]
    resident = [*weights, *supernet.buffers(), *alpha, *moments, images, labels, *others]
    # The weights' step saves all that alpha's step saves, unless that one looks a step ahead.
    return footprint(lambda: step(images, labels, *others, settings.unrolled), resident)


class GradientsOnly(torch.optim.SGD):
    """An optimiser that only frees the gradients: the search's own optimisers take their steps in place."""

    def step(self, _closure: Any = None) -> None:  # type: ignore[override]
        pass


def show_bytes(number: float) -> str:
    """Return a number of bytes as a text with two digits, such as 2.3 GB."""
    unit, name = (1e9, "GB") if number >= 0.95e9 else (1e6, "MB")
    return f"{number / unit:,.{1 if number < 9.5 * unit else 0}f} {name}"

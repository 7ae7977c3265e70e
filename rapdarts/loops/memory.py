"""Memory of a search: the memory that a step of each stage takes, the free memory, and the largest batch that fits."""

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
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.training.footprint import BATCH, META, Alive, Footprint, footprint, lower_precision
from rapdarts.training.memory import free_bytes
from rapdarts.training.run import Run

OVERHEAD = 2
"""Bytes of process memory for each byte of live tensors. On a CPU, the gaps in glibc's heap are about as large as the tensors
(docs/performance.md). On a GPU, the CUDA graph has its own memory pool in addition to that of the eager steps before the capture."""

CHECKPOINT_OVERHEAD = 1.4
"""Additional overhead factor if cells are recomputed: short-lived tensors leave more gaps in memory (docs/performance.md)."""

LIBRARY_BYTES = 50_000_000
"""Bytes that torch's own code and tables take in the first steps of a process on a CPU, whatever the steps compute."""

PROBE = (16, 8, 8)
"""Size (channels, height, width) of the images used to compare primitives."""

NO_ESTIMATE = (RuntimeError, TypeError, ValueError, MemoryError)
"""Errors raised if a user's primitive depends on the values of its input, or if the estimate itself runs out of memory."""


@contextmanager
def within_memory(config: Experiment, space: SearchSpace, data: DataSet, table: PriceTable, run: Run) -> Iterator[None]:
    """Report how much memory the search in the `with` block will need.

    Raises DeviceError, with the batch size that fits, if the search runs out of memory. Also raises DeviceError if the GPU
    cannot run the kernels of the batched supernet.
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
                f"this GPU cannot run the kernels of the batched supernet ({why}); set search.kernels=torch."
            ) from error
        if not ran_out_of_memory(error):
            raise
        raise DeviceError(estimate.out_of_memory(run.stage)) from error


@contextmanager
def training_within_memory(settings: RetrainConfig) -> Iterator[None]:
    """Raise DeviceError, with settings that need less memory, if the training in the `with` block runs out of memory."""
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        half = settings.batch // 2
        keys = [f"retrain.batch={half} with retrain.accumulate={2 * settings.accumulate}"] if half >= 2 else []
        keys += ["retrain.amp=bf16"] if settings.amp == "none" else []
        advice = f"set {' or '.join(keys)}" if keys else "use a smaller network"
        raise DeviceError(f"out of memory at batch size {settings.batch}: {advice}.") from error


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that the steps of a search will take, and the free memory at its start."""

    config: Experiment
    space: SearchSpace
    data: DataSet
    table: PriceTable
    free: int | None  # bytes

    def summary(self) -> str | None:
        """Return a line with the free memory and the memory for a step of the largest stage; None if there is no estimate."""
        settings = self.config.search
        try:
            stage = self.largest_stage()
            found = self.footprint(stage)
        except NO_ESTIMATE:
            return None
        cells, takes = settings.layers[stage], show_bytes(self.process_bytes(found))
        text = f"a step will take about {takes} ({self.stage_name(stage)}: {cells} cells, batch size {settings.batch})"
        if self.free is None:
            return text
        batch = self.largest_batch(found)
        if batch >= settings.batch:
            fits = f"a batch of up to {batch}" if batch < self.largest_allowed_batch else "any batch"
            return f"{text}; {show_bytes(self.free)} is free: {fits} fits"
        return f"warning: {text}, but only {show_bytes(self.free)} is free: {self.advice(batch)}"

    def out_of_memory(self, stage: int) -> str:
        """Return the error message for a stage that ran out of memory."""
        batch = self.config.search.batch
        fits = 3 * batch // 4  # the full batch did not fit, whatever the estimate says
        with suppress(*NO_ESTIMATE):
            fits = min(fits, self.largest_batch(self.footprint(stage)))
        return f"out of memory in {self.stage_name(stage)} at batch size {batch}: {self.advice(fits)}."

    def stage_name(self, stage: int) -> str:
        """Return the name of a stage for messages, which count stages from 1."""
        return f"stage {stage + 1} of {len(self.config.search.layers)}"

    def largest_stage(self) -> int:
        """Return the stage that stores the most activations for the backward pass.

        A stage stores the activations inside all cells or, with `checkpoint`, those inside the largest cell and the output
        of every cell.
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
        """Return the footprint of a stage with the candidates that store the most activations, because pruning may keep any."""
        order = np.argsort(self.saved_bytes, kind="stable")
        largest = np.isin(np.arange(len(order)), order[-self.config.search.candidates[stage] :])
        space = self.space.narrowed(self.space.mask & largest)
        return stage_footprint(self.config, space, self.data, self.table, stage)

    @cached_property
    def saved_bytes(self) -> list[int]:
        """Bytes that each primitive alone stores for its backward pass on images of size PROBE, including its output."""
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
        """Fixed number of bytes that the process takes, and number of bytes for each byte of live tensors."""
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
        """Number of images in the smaller half of the training set, the largest batch that is allowed."""
        halves = SearchBatches.of(self.data, self.config)
        return min(len(half.index) for half in (halves.train, halves.search))

    def largest_batch(self, found: Footprint) -> int:
        """Return the largest batch that fits into the free memory, or 0 if none does."""
        if self.free is None:
            return self.largest_allowed_batch
        fixed, each = self.overhead
        return min(self.largest_allowed_batch, found.largest_batch(int((self.free - fixed) / each)))

    def advice(self, batch: int) -> str:
        """Return the part of a message with the `batch` that fits and the settings to change."""
        settings = self.config.search
        fits = batch >= 2  # the minimum for batch norm
        keys = [f"search.batch={batch}"] if fits else []
        if not settings.checkpoint:
            keys.append("search.checkpoint=true")
        if settings.partial_channels == 1 and settings.channels % 4 == 0:
            keys.append("search.partial_channels=4")
        if not keys:
            keys.append("a smaller search.channels")
        choice = " or ".join([", ".join(keys[:-1]), keys[-1]] if keys[1:] else keys)
        return f"{f'a batch of about {batch}' if fits else 'no batch'} fits; set {choice}"


def stage_footprint(config: Experiment, space: SearchSpace, data: DataSet, table: PriceTable, stage: int) -> Footprint:
    """Return the footprint of a step of a stage with the candidates of `space`.

    It includes the weights, the state of the optimisers and the batches, but not the data set.
    """
    # The tensors of a relaxation are small, and the gradient of a gamma variate cannot be computed without values.
    settings = replace(config.search, amp="none", relaxation="softmax")
    config = replace(config, search=replace(settings, amp=config.search.amp))
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
    # The weight step stores at least as many activations as the alpha step, unless the latter is unrolled.
    return footprint(lambda: step(images, labels, *others, settings.unrolled), resident)


class GradientsOnly(torch.optim.SGD):
    """An optimiser that only frees the gradients, since the real optimisers step in place and need no further memory."""

    def step(self, _closure: Any = None) -> None:  # type: ignore[override]
        pass


def show_bytes(number: float) -> str:
    """Return a number of bytes as text with about two digits, such as 2.3 GB."""
    unit, name = (1e9, "GB") if number >= 0.95e9 else (1e6, "MB")
    return f"{number / unit:,.{1 if number < 9.5 * unit else 0}f} {name}"

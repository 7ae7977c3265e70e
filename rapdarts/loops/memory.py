"""Memory before a search, and after it ran out: what a step of each stage takes, what is free, and which batch fits."""

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
from rapdarts.training.footprint import BATCH, META, Alive, Footprint, footprint, lower
from rapdarts.training.memory import free_bytes
from rapdarts.training.run import Run

HELD = 2
"""Bytes that a process holds for each that is alive. On a CPU glibc's heap has about as many in its gaps (docs/performance.md). On a
GPU what is recorded has a pool of its own, beside that of the steps which run before the next recording."""

RECOMPUTED = 1.4
"""Times as many where cells are computed again: what comes and goes for each leaves more gaps between what stays (the same page)."""

SETTLED = 50_000_000
"""Bytes that the first steps of a process take on a CPU, whatever they compute: the library's own code and tables."""

PROBE = (16, 8, 8)
"""The image on which primitives are compared."""

UNKNOWN = (RuntimeError, TypeError, ValueError, MemoryError)
"""What comes of a primitive of the user's own that needs numbers to run, and of too little memory to ask."""


@contextmanager
def within_memory(config: Experiment, space: SearchSpace, data: DataSet, table: PriceTable, run: Run) -> Iterator[None]:
    """Says what the search inside will take.

    Raises DeviceError where the memory runs out all the same, which names what would fit, or where the GPU cannot run
    the batched supernet's kernels.
    """
    outlook = MemoryEstimate(config, space, data, table, free_bytes(data.train.labels.device))
    if not run.screen.closed and (words := outlook.words()):
        run.screen.say(words)
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
        raise DeviceError(outlook.ran_out(run.stage)) from error


@contextmanager
def training_within_memory(settings: RetrainConfig) -> Iterator[None]:
    """Raises DeviceError, which says what to set, where the memory runs out in the retraining inside."""
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
    """What lies before a search: its stages, and the memory that is free as it begins."""

    config: Experiment
    space: SearchSpace
    data: DataSet
    table: PriceTable
    free: int | None  # bytes

    def words(self) -> str | None:
        """What a step of the heaviest stage takes, and whether there is as much; None where it cannot be known."""
        settings = self.config.search
        try:
            stage = self.heaviest()
            found = self.footprint(stage)
        except UNKNOWN:
            return None
        cells, takes = settings.layers[stage], size(self.held_bytes(found))
        words = f"a step will take about {takes} ({self.name(stage)}: {cells} cells, batch {settings.batch})"
        if self.free is None:
            return words
        batch = self.largest_batch(found)
        if batch >= settings.batch:
            fits = f"up to batch {batch}" if batch < self.images else "any batch"
            return f"{words}; {size(self.free)} are free: {fits} fits"
        return f"warning: {words}, but {size(self.free)} are free: {self.remedies(batch)}"

    def ran_out(self, stage: int) -> str:
        """What to say where the memory ran out in a stage."""
        batch = self.config.search.batch
        fits = 3 * batch // 4  # the whole did not, whatever was expected
        with suppress(*UNKNOWN):
            fits = min(fits, self.largest_batch(self.footprint(stage)))
        return f"out of memory in {self.name(stage)} at batch {batch}: {self.remedies(fits)}."

    def name(self, stage: int) -> str:
        """Of a stage, counted from 1."""
        return f"stage {stage + 1} of {len(self.config.search.layers)}"

    def heaviest(self) -> int:
        """The stage whose cells keep most: all of them, or with `checkpoint` the largest and what every cell puts out."""
        settings, image = self.config.search, self.data.image
        stem = stem_for(self.config.skeleton.stem, image)

        def weight(stage: int) -> float:
            plans = Skeleton(settings.layers[stage], settings.channels, image, self.data.classes, stem).cells(
                self.space
            )
            elements = [plan.channels * math.prod(plan.inside) for plan in plans]
            candidates = sum(sorted(self.kept)[-settings.candidates[stage] :]) / math.prod(PROBE)
            edges = len(self.space.edges) * candidates / settings.partial_channels
            if settings.checkpoint:
                return max(elements) * edges + sum(elements) * 4 * len(self.space.outputs)
            return sum(elements) * edges

        return max(range(len(settings.layers)), key=weight)

    def footprint(self, stage: int) -> Footprint:
        """Of a stage, over those candidates that keep most: which ones pruning will leave is not known."""
        order = np.argsort(self.kept, kind="stable")
        dearest = np.isin(np.arange(len(order)), order[-self.config.search.candidates[stage] :])
        space = self.space.narrowed(self.space.mask & dearest)
        return stage_footprint(self.config, space, self.data, self.table, stage)

    @cached_property
    def kept(self) -> list[int]:
        """Bytes an image of PROBE that each primitive keeps for its backward pass by itself, what it puts out included."""
        kept = []
        for name, make in self.space.primitives.items():
            with META:
                x, primitive = torch.empty(BATCH, *PROBE, requires_grad=True), make(PROBE[0], 1, False)
            with Alive() as alive:
                held = None if name == NONE else primitive(x)
                kept.append(alive.each)
                del held
        return kept

    @property
    def held(self) -> tuple[int, float]:
        """Bytes that are held whatever is alive, and for each byte that is."""
        settings, on_host = self.config.search, self.data.train.labels.device.type == "cpu"
        recorded = not (settings.unrolled or settings.checkpoint)
        each = HELD if on_host or recorded else 1
        return SETTLED if on_host else 0, each * RECOMPUTED if settings.checkpoint else each

    def held_bytes(self, found: Footprint) -> int:
        """What a step takes, of which a footprint says what is alive."""
        fixed, each = self.held
        return round(fixed + each * found.bytes(self.config.search.batch))

    @property
    def images(self) -> int:
        """How many the smaller half of the training set has: no batch may be larger."""
        halves = loop.SearchBatches.of(self.data, self.config)
        return min(len(half.index) for half in (halves.train, halves.search))

    def largest_batch(self, found: Footprint) -> int:
        """The largest batch that fits into what is free; 0 where none does."""
        if self.free is None:
            return self.images
        fixed, each = self.held
        return min(self.images, found.largest_batch(int((self.free - fixed) / each)))

    def remedies(self, batch: int) -> str:
        """That a batch fits, and what to set."""
        settings = self.config.search
        fits = batch >= 2  # batch norm takes no less
        keys = [f"search.batch={batch}"] if fits else []
        if not settings.checkpoint:
            keys.append("search.checkpoint=true")
        if settings.partial_channels == 1 and settings.channels % 4 == 0:
            keys.append("search.partial_channels=4")
        if not keys:
            keys.append("a smaller search.channels")
        said = " or ".join([", ".join(keys[:-1]), keys[-1]] if keys[1:] else keys)
        return f"{f'about batch {batch}' if fits else 'no batch'} fits; set {said}"


def stage_footprint(config: Experiment, space: SearchSpace, data: DataSet, table: PriceTable, stage: int) -> Footprint:
    """What is alive in a step of a stage over the candidates of `space`: weights, optimisers and batches too, the data set not."""
    settings = replace(config.search, amp="none")
    with META:
        images, labels = torch.empty(BATCH, *data.image), torch.empty(BATCH, dtype=torch.int64)
        others = torch.empty_like(images), torch.empty_like(labels)
        on_meta = replace(data, train=InMemory(images, labels))
        supernet, architecture, *_ = loop.build(config, space, on_meta, settings.layers[stage], stage)
    if config.search.amp == "bf16":
        lower(supernet)
    supernet.dropout.rate = settings.skip_dropout[stage]
    supernet.train()
    sgd = Resting(supernet.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    adam, penalty = Resting(architecture.parameters()), Penalty(table, asdict(settings.cost), device=META)
    step = loop.alternation(settings, supernet, architecture, sgd, adam, penalty)

    weights, alpha = list(supernet.parameters()), list(architecture.parameters())
    moments = [torch.empty_like(x) for x in (*(weights if settings.momentum else ()), *alpha, *alpha)]
    standing = [*weights, *supernet.buffers(), *alpha, *moments, images, labels, *others]
    # The step of the weights keeps all that the step of alpha keeps, unless that one looks a step ahead.
    return footprint(lambda: step(images, labels, *others, settings.unrolled), standing)


class Resting(torch.optim.SGD):
    """An optimiser that only lets go of the gradients: the search's own take their steps in place."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def size(number: float) -> str:
    """Bytes for the eye, to two digits."""
    unit, name = (1e9, "GB") if number >= 0.95e9 else (1e6, "MB")
    return f"{number / unit:,.{1 if number < 9.5 * unit else 0}f} {name}"

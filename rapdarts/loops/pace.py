"""The pace of this machine: the times of search steps and training steps, measured over a few steps."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import Experiment
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.measure import timer
from rapdarts.data.augment import fractions
from rapdarts.data.batches import ordered
from rapdarts.data.dataset import DataSet
from rapdarts.data.randomness import key
from rapdarts.deploy.blueprint import Blueprint
from rapdarts.interruptions import during
from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
from rapdarts.loops.batch_sizes import within_images
from rapdarts.loops.rank import batches_of_ranking
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.rule import rule_of
from rapdarts.training.class_weights import class_weights
from rapdarts.training.cuda_graph import EAGER, GraphedStep
from rapdarts.training.metrics import predict
from rapdarts.training.optimizer import sgd_for
from rapdarts.training.run import Run

REPEATS, ENOUGH = 3, 0.3
"""Largest number of timed steps, of which the median is used, and the total time in seconds after which timing stops."""


@dataclass(frozen=True)
class StagePace:
    """Times in a stage of the search, in seconds: to build it, for a step that trains weights, and for a step that also trains alpha."""

    build: float
    weights: float
    both: float


@dataclass(frozen=True)
class Pace:
    """Times of the parts of the work on this machine, in seconds.

    `stages` holds the times of the search. `build` is the time to build the network of a cell, `train` the time of a training
    step, and `test` the time to test the network on one image. If the work runs on one CPU thread, these are CPU seconds.
    `waiting` is the wall-clock time for each of these seconds. `latency` is the expected wall-clock time to measure latency,
    or 0 if the run does not measure it.
    """

    stages: tuple[StagePace, ...]
    build: float
    train: float
    test: float
    waiting: float = 1.0
    latency: float = 0.0

    @classmethod
    def of_plain(cls, facts: Any) -> Pace:
        """Return the pace from the output of `dataclasses.asdict`."""
        return cls(**{**facts, "stages": tuple(StagePace(**stage) for stage in facts["stages"])})


@dataclass(frozen=True)
class Sizes:
    """Steps per epoch of the search, of a round of halving and of the final training, and numbers of held-out and test images.

    `seeds` is the number of trainings of each cell in a round.
    """

    search_steps: int
    rank_steps: int
    rank_images: int
    retrain_steps: int
    test_images: int
    seeds: int = 1

    @classmethod
    def of(cls, config: Experiment, data: DataSet) -> Sizes:
        """Count the steps and images. Raises InputError if the images cannot be split, or if a batch is larger than its part."""
        search, (rank, compared), (final, _) = within_images(
            data,
            lambda: SearchBatches.of(data, config),
            lambda: batches_of_ranking(data, config),
            lambda: retraining.training_batches(config, data),
        )
        return cls(search.steps, rank.steps, compared, final.steps, len(data.test), config.rank.seeds)


@during("measuring a few steps")
def measure_pace(
    config: Experiment,
    space: SearchSpace,
    data: DataSet,
    table: PriceTable,
    blueprints: Sequence[Blueprint],
    run: Run,
) -> Pace:
    """Measure the pace over a few steps of every stage, and over a few training steps of every network in `blueprints`."""
    timed = timer(data.train.labels.device)
    clocked, waited = [], []

    def take(work: Callable[[], object]) -> float:
        waited.append(-time.monotonic())
        clocked.append(timed(work))
        waited.append(time.monotonic())
        return clocked[-1]

    stages = tuple(
        _stage_pace(config, one, number, data, table, run, take) for number, one in enumerate(_stages(config, space))
    )
    cells = [_training_pace(config, blueprint, data, run, take) for blueprint in blueprints]
    build, train, test = (statistics.mean(seconds) for seconds in zip(*cells, strict=True))
    return Pace(stages, build, train, test, max(1.0, sum(waited) / sum(clocked)))


def _stages(config: Experiment, space: SearchSpace) -> Iterator[SearchSpace]:
    """Yield the space of every stage with random candidates, because the real candidates are not known yet."""
    rng = np.random.default_rng(key(config.seed, "pace"))
    for keep in config.search.candidates:
        space = prune(space, np.where(space.mask, rng.random(space.mask.shape), 0.0), keep or len(space.primitives))
        yield space


def _stage_pace(
    config: Experiment,
    space: SearchSpace,
    number: int,
    data: DataSet,
    table: PriceTable,
    run: Run,
    take: Callable[[Callable[[], object]], float],
) -> StagePace:
    """Measure the pace of a stage of the search."""
    settings, built = config.search, []
    replica = searching.Replica.of(config, 0, data, table, rule_of(settings, space))
    build = take(lambda: built.append(searching.build_stage(config, space, data, settings.layers[number], number)))
    supernet, *_ = built[0]
    alternate, _ = searching.step_of_stage(replica, built.pop(), data, run)
    batches = replica.halves.of_stage(number)
    stream = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in itertools.count())

    def once(warm: bool) -> None:
        (images, labels), (search_images, search_labels) = next(stream)
        alternate(images, labels, search_images, search_labels, warm)

    supernet.train()
    seconds = {warm: _median(partial(once, warm), take, data) for warm in (False, True)}
    return StagePace(build, seconds[False], seconds[True])


def _training_pace(
    config: Experiment, blueprint: Blueprint, data: DataSet, run: Run, take: Callable[[Callable[[], object]], float]
) -> tuple[float, float, float]:
    """Measure how long it takes to build a network, to take a training step, and to test one image."""
    settings, device, built = config.retrain, data.train.labels.device, []
    build = take(lambda: built.append(retraining.build_network(config, blueprint, device, run)))
    network, final = built.pop()
    batches, _ = retraining.training_batches(config, data)
    sgd = sgd_for(network, settings.lr, settings.momentum, settings.weight_decay, settings.nesterov)
    balance = class_weights(settings.class_weights, data.train.labels, data.classes)
    rate = torch.zeros((), device=device)
    # Compilation takes longer than it saves in a few steps.
    step = GraphedStep(
        retraining.training_step(replace(settings, compile=False), network, final, sgd, rate, batches, run, balance),
        device,
        run.screen.say,
    )
    stream = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in itertools.count())
    network.train()

    def once() -> None:
        images, labels = next(stream)
        step(images, labels, len(labels))

    train = _median(once, take, data)
    some = data.test.take(torch.arange(min(len(data.test), 256)))
    images: list[tuple[Tensor, Tensor]] = list(ordered(some, None, 256, fractions(data.image[0])))
    test = take(lambda: predict(network.eval(), images)) / len(some)
    return build, train, test


def _median(work: Callable[[], object], take: Callable[[Callable[[], object]], float], data: DataSet) -> float:
    """Return the median time of a few repetitions of a step, after warm-up calls that allocate memory and capture a CUDA graph."""
    for _ in range(EAGER + 2 if data.train.labels.device.type == "cuda" else 1):
        take(work)
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH:
        seconds.append(take(work))
    return statistics.median(seconds)

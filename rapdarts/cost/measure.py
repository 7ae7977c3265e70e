"""Measured time: every primitive at every place of a skeleton, run as in a network.

Each runs alone, once at a time, in an order that is shuffled anew in every round, so that it finds the caches as
another primitive left them. Whole networks stand in the same rounds: a slow moment of the machine meets all alike.
Half of them give what the parts around the primitives take; the other half says how far the table can be trusted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from rapdarts.architecture.genotype import one_hot, random_genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cost.latency import (
    LAYOUT,
    NOTHING,
    PRECISION,
    Check,
    LatencyTable,
    Timing,
    builds_of,
    device_name,
    rounded,
    summed,
)
from rapdarts.cost.trace import Image
from rapdarts.networks.derived import DerivedNetwork

WARM_UP = 2
"""Rounds that are not recorded: the first runs choose algorithms and fill caches."""
SHOTS = 4
"""How often a primitive is timed in a round, in which a network is timed once and takes far longer."""
WORTH, FEW = 0.75, 8
"""A scale is fitted where it brings the error of the networks it is fitted to below this share, and they are not fewer."""


def clock(device: torch.device) -> str:
    """Return the clock of a device: `events` on a GPU, the `thread`'s CPU time for one CPU thread, else the `wall` clock."""
    if device.type == "cuda":
        return "events"
    return "thread" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"


Timer = Callable[[Callable[[], object]], float]


def timer(device: torch.device) -> Timer:
    """Return a function that runs another one and returns the seconds it took on the device.

    One thread has a clock of its own, which stands still while other processes have the core: on a machine of one's
    own it shows what the wall clock shows.
    """
    if clock(device) == "events":
        return partial(_by_events, device)
    return _by_thread if clock(device) == "thread" else _by_wall


def _by_thread(run: Callable[[], object]) -> float:
    began = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - began) * 1e-9


def _by_wall(run: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) * 1e-9


def _by_events(device: torch.device, run: Callable[[], object]) -> float:
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) * 1e-3


def measure_within(run: Callable[[], object], device: torch.device, seconds: float = 1.0, most: int = 100) -> Timing:
    """Measure a call of `run`, repeated for so many seconds, at least once and at most `most` times.

    WARM_UP calls before, or as many as fit into that time, are not recorded.
    """

    def for_a_while(calls: int) -> Iterator[float]:
        began = time.perf_counter()
        for _ in range(calls):
            yield time_of(run)
            if time.perf_counter() - began > seconds:
                return

    time_of = timer(device)
    with torch.no_grad():
        list(for_a_while(WARM_UP))
        return Timing.of(list(for_a_while(most)))


def measure(
    space: SearchSpace,
    skeleton: Skeleton,
    device: torch.device,
    rounds: Iterable[int],
    networks: int = 40,
    batch: int = 1,
    seed: int = 0,
) -> LatencyTable:
    """Measure all primitives and `networks` random networks (`seed` draws them, at least 4) in as many rounds as `rounds` gives numbers.

    Every second network calibrates the table; the others check it.
    """
    rng = np.random.default_rng(seed)
    genotypes = [random_genotype(space, rng) for _ in range(networks)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images = torch.randn(batch, *skeleton.image)
        jobs = [
            _job(_settled(DerivedNetwork(genotype, space, skeleton), skeleton.image), images, device)
            for genotype in genotypes
        ]
        builds = {build: space.primitives[build[0]](build[1], build[2], True) for build in builds_of(space, skeleton)}
        running = [build for build, primitive in builds.items() if not isinstance(primitive, nn.Identity)]
        for build in running:
            fed = torch.randn(batch, build[1], *build[3]).to(memory_format=torch.channels_last)
            jobs.append(_job(builds[build], fed, device))

    shots = [1] * networks + [SHOTS] * len(running)
    seconds = _rounds(jobs, shots, timer(device), rounds, seed)
    whole = np.array(seconds[:networks])  # (networks, rounds)
    alone = {build: Timing.of(times) for build, times in zip(running, seconds[networks:], strict=True)}
    timings = {build: alone.get(build, NOTHING) for build in builds}

    prices = summed(space, skeleton, timings)
    sums = np.array([(prices * one_hot(space, genotype)).sum() for genotype in genotypes])
    scale, fixed = fit(sums[::2], np.median(whole, 1)[::2])
    check = _check(scale * sums[1::2] + fixed, whole[1::2], whole)
    facts = (device_name(device), torch.get_num_threads(), torch.__version__, batch, PRECISION, LAYOUT, clock(device))
    return LatencyTable(space.name, skeleton, *facts, rounded(scale), rounded(fixed), timings, check)


def _settled(network: nn.Module, image: Image) -> nn.Module:
    """Return the network after its batch norms have seen images, as those of a trained one have.

    Untrained ones let activations shrink from cell to cell, until arithmetic on them is slower than it ever is.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all it has seen
    with torch.no_grad():
        network.train()(torch.randn(4, *image))
    return network


def _job(module: nn.Module, fed: torch.Tensor, device: torch.device) -> Callable[[], object]:
    """Return the call of a module on a tensor, both as in a retrained network."""
    module = module.eval().to(device)
    return partial(module.to(memory_format=torch.channels_last), fed.to(device))  # type: ignore[call-overload]


def _rounds(
    jobs: Sequence[Callable[[], object]], shots: Sequence[int], time_of: Timer, rounds: Iterable[int], seed: int
) -> list[list[float]]:
    """Return the seconds of every job: in each round each has its number of shots, in a random order."""
    rng = np.random.default_rng(seed)
    order = np.repeat(np.arange(len(jobs)), shots)
    seconds: list[list[float]] = [[] for _ in jobs]
    with torch.no_grad():
        for _ in range(WARM_UP):
            for job in jobs:
                time_of(job)
        for _ in rounds:
            for number in rng.permutation(order):
                seconds[number].append(time_of(jobs[number]))
    return seconds


def fit(sums: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Return (scale, fixed) with the least mean relative error of scale x sums + fixed, both (networks,) in seconds; fixed is not negative.

    The scale is 1, unless another is really better: then primitives take longer or shorter alone than in a network.
    """
    i, j = np.triu_indices(len(sums), 1)
    ones, zeros = np.ones(len(sums)), np.zeros(len(sums))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (measured[j] - measured[i]) / (sums[j] - sums[i])
        # Least absolute errors: some best line goes through two of the points, or as many as its bounds leave free.
        plain = np.stack([ones, measured - sums])
        free = np.hstack([plain, [slopes, measured[i] - slopes * sums[i]], [measured / sums, zeros]])

    def best(lines: np.ndarray) -> tuple[float, float, float]:
        """Return (error, scale, fixed) of the best admissible line."""
        able = lines[:, np.isfinite(lines).all(0) & (lines[0] > 0) & (lines[1] >= 0)]
        errors = np.abs((able[0][:, None] * sums + able[1][:, None]) / measured - 1).mean(1)
        return min(zip(errors.tolist(), *able.tolist(), strict=True), default=(math.inf, 1.0, 0.0))

    (error, *unscaled), (least, *scaled) = best(plain), best(free)
    scale, fixed = scaled if least < WORTH * error and (len(sums) >= FEW or error == math.inf) else unscaled
    return scale, fixed


def _check(predicted: np.ndarray, measured: np.ndarray, all_measured: np.ndarray) -> Check:
    """Return the check: predicted (networks,) and measured (networks, rounds) times; all networks show how steady the machine was."""
    middle, rounds = np.median(measured, 1), measured.shape[1]
    errors = np.abs(predicted / middle - 1)

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return rounded(np.median(np.abs(np.median(one, 1) / np.median(other, 1) - 1)))

    return Check(
        len(measured),
        rounds,
        rounded(middle.min()),
        rounded(middle.max()),
        _spearman(predicted, middle),
        rounded(np.median(errors)),
        rounded(errors.max()),
        apart(all_measured[:, ::2], all_measured[:, 1::2]),
        apart(all_measured[:, : rounds // 2], all_measured[:, rounds // 2 :]),
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return the rank correlation; None where all values of one side are equal."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where])

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return min(1.0, max(-1.0, rounded(np.corrcoef(ranks(x), ranks(y))[0, 1])))

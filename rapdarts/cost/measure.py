"""Measurement of the time of every primitive at every place of a skeleton, under the same conditions as in a whole network.

Each primitive runs alone. The order is shuffled in every round, so that the caches contain data of other primitives. Whole
networks are timed in the same rounds, so that a slowdown of the machine affects both. Half of the networks are used to calibrate
the time of the parts around the primitives, the other half to check the accuracy of the table.
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
"""Number of initial rounds that are not recorded, because the first runs choose algorithms and fill caches."""
SHOTS = 4
"""Number of times that a primitive is timed in each round. A whole network takes far longer and is timed once."""
PROBE_NETWORKS, PROBE_ROUNDS = 4, 2
"""Numbers of networks and rounds in the short measurement from which the time of a whole one is expected."""
WORTH, FEW = 0.75, 8
"""A scale is fitted only on at least FEW networks, and only if it reduces the error to less than WORTH times the error without it."""


def clock(device: torch.device) -> str:
    """Return the clock for a device: `events` on a GPU, `thread` (CPU time) for a single CPU thread, else `wall`."""
    if device.type == "cuda":
        return "events"
    return "thread" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"


Timer = Callable[[Callable[[], object]], float]


def timer(device: torch.device) -> Timer:
    """Return a function that runs its argument and returns the seconds that it took on the device.

    A single CPU thread is timed by its own clock, which stops while other processes use the core. On an idle machine it
    agrees with the wall clock.
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
    """Time repeated calls of `run` for `seconds`: at least one and at most `most` calls.

    The first WARM_UP calls, or as many as fit into `seconds`, are not recorded.
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
    """Measure all primitives and `networks` (at least 4) random networks, drawn with `seed`, in one round per item of `rounds`.

    Every second network is used to calibrate the table, the others to check it.
    """
    rng = np.random.default_rng(seed)
    genotypes = [random_genotype(space, rng) for _ in range(networks)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images = torch.randn(batch, *skeleton.image)
        jobs = [
            _job(settled(DerivedNetwork(genotype, space, skeleton), skeleton.image), images, device)
            for genotype in genotypes
        ]
        builds = {build: space.primitives[build[0]](build[1], build[2], True) for build in builds_of(space, skeleton)}
        running = [build for build, primitive in builds.items() if not isinstance(primitive, nn.Identity)]
        for build in running:
            features = torch.randn(batch, build[1], *build[3]).to(memory_format=torch.channels_last)
            jobs.append(_job(builds[build], features, device))

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


def expected_seconds(space: SearchSpace, skeleton: Skeleton, device: torch.device, rounds: int, networks: int) -> float:
    """Return the expected time of `measure` with this number of rounds and networks, in seconds.

    A short measurement gives the time of each primitive of each shape, of a network, and of building a network.
    """
    for _ in range(2):  # the first measurement on a device also loads its libraries
        marks = [time.perf_counter()]
        table = measure(space, skeleton, device, _marking(marks), PROBE_NETWORKS)
    building, *waited = np.diff(marks).tolist()
    primitives = SHOTS * sum(timing.median_s for timing in table.places.values())
    network = (table.check.fastest_s + table.check.slowest_s) / 2
    # A round takes longer than the sum of its measurements if other processes use the core.
    waiting = sum(waited) / PROBE_ROUNDS / (primitives + PROBE_NETWORKS * network)
    return float(building * networks / PROBE_NETWORKS + rounds * waiting * (primitives + networks * network))


def _marking(marks: list[float]) -> Iterator[int]:
    """Yield the numbers of the rounds of a short measurement, and append the time at the start of each and at the end to `marks`."""
    for number in range(PROBE_ROUNDS):
        marks.append(time.perf_counter())
        yield number
    marks.append(time.perf_counter())


def settled(network: nn.Module, image: Image) -> nn.Module:
    """Return the network after its batch norms have collected statistics of random images, as in a trained network.

    With untrained batch norms, activations shrink from cell to cell until arithmetic on them is unrealistically slow.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a mean over all batches
    with torch.no_grad():
        network.train()(torch.randn(4, *image))
    return network


def _job(module: nn.Module, inputs: torch.Tensor, device: torch.device) -> Callable[[], object]:
    """Return a function that runs a module on a tensor, under the same conditions as a retrained network."""
    module = module.eval().to(device)
    return partial(module.to(memory_format=torch.channels_last), inputs.to(device))  # type: ignore[call-overload]


def _rounds(
    jobs: Sequence[Callable[[], object]], shots: Sequence[int], time_of: Timer, rounds: Iterable[int], seed: int
) -> list[list[float]]:
    """Return the measured seconds of every job; each round runs every job `shots` times, in a random order."""
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
    """Return the (scale, fixed) that minimise the mean relative error of scale x `sums` + fixed against `measured`.

    `sums` and `measured` are (networks,) in seconds; fixed is not negative. The scale is 1 unless another value is clearly
    better because primitives take more or less time alone than in a network.
    """
    i, j = np.triu_indices(len(sums), 1)
    ones, zeros = np.ones(len(sums)), np.zeros(len(sums))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (measured[j] - measured[i]) / (sums[j] - sums[i])
        # With absolute errors, an optimal line passes through two of the points, or through one if a bound is active.
        plain = np.stack([ones, measured - sums])
        free = np.hstack([plain, [slopes, measured[i] - slopes * sums[i]], [measured / sums, zeros]])

    def best(lines: np.ndarray) -> tuple[float, float, float]:
        """Return (error, scale, fixed) of the best line with a positive scale and a non-negative `fixed`."""
        valid = lines[:, np.isfinite(lines).all(0) & (lines[0] > 0) & (lines[1] >= 0)]
        errors = np.abs((valid[0][:, None] * sums + valid[1][:, None]) / measured - 1).mean(1)
        return min(zip(errors.tolist(), *valid.tolist(), strict=True), default=(math.inf, 1.0, 0.0))

    (error, *unscaled), (least, *scaled) = best(plain), best(free)
    scale, fixed = scaled if least < WORTH * error and (len(sums) >= FEW or error == math.inf) else unscaled
    return scale, fixed


def _check(predicted: np.ndarray, measured: np.ndarray, all_measured: np.ndarray) -> Check:
    """Return the check of predicted times (networks,) against measured times (networks, rounds).

    `all_measured` also includes the networks used to calibrate the table; noise and drift are computed from it.
    """
    medians, rounds = np.median(measured, 1), measured.shape[1]
    errors = np.abs(predicted / medians - 1)

    def difference(one: np.ndarray, other: np.ndarray) -> float:
        return rounded(np.median(np.abs(np.median(one, 1) / np.median(other, 1) - 1)))

    return Check(
        len(measured),
        rounds,
        rounded(medians.min()),
        rounded(medians.max()),
        _spearman(predicted, medians),
        rounded(np.median(errors)),
        rounded(errors.max()),
        difference(all_measured[:, ::2], all_measured[:, 1::2]),
        difference(all_measured[:, : rounds // 2], all_measured[:, rounds // 2 :]),
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return the rank correlation, or None if all values of `x` or all values of `y` are equal."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where])

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return min(1.0, max(-1.0, rounded(np.corrcoef(ranks(x), ranks(y))[0, 1])))

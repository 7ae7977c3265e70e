"""Time, measured: every primitive at every place of a skeleton on one device, and a table of these that prices whole networks.

A primitive is measured the way it runs in a network: alone, but once at a time, in an order that is shuffled anew in
every round, so that it finds the caches as something else left them. Repeated at once it would be up to three times
faster than it ever is in a network. Whole networks stand in the same rounds: a slow moment of the machine meets all
alike. Half of them give what the parts around the primitives take, the other half says how far to trust the table.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rapdarts.cost.expected import PriceTable, places
from rapdarts.cost.trace import Image
from rapdarts.errors import InputError
from rapdarts.genotype import SKELETON, one_hot, random_genotype, space_name, stem
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.plain_json import Fault, Reader, load, number, reader, record, show
from rapdarts.plain_text import read_text
from rapdarts.plain_yaml import shorten
from rapdarts.space import SearchSpace, Skeleton

FORMAT, VERSION = "rapdarts-latency", 1
MAX_FILE_BYTES = 1_000_000
PRECISION, LAYOUT = "float32", "channels_last"
"""How a retrained network runs."""

WARM_UP = 2
"""Rounds that are not recorded: the first runs choose algorithms and fill caches."""
SHOTS = 4
"""How often a primitive is timed in a round, in which a network is timed once and takes far longer."""
WORTH, FEW = 0.75, 8
"""A scale is fitted where it brings the error of the networks it is fitted to below this share, and they are not fewer."""

Device = torch.device  # in a table, `torch` is the version
Build = tuple[str, int, int, tuple[int, int]]
"""(primitive, channels, stride, (h, w)): what a primitive is built of and fed."""


@dataclass(frozen=True)
class Timing:
    """What `n` measurements of one thing say, in seconds: their median, and what a tenth of them are below and above.

    `n` is 0 where nothing runs, and then all three are 0.
    """

    median_s: float
    p10_s: float
    p90_s: float
    n: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        p10, median, p90 = (_rounded(value) for value in np.percentile(seconds, (10, 50, 90)))
        return Timing(median, p10, p90, len(seconds))


NOTHING = Timing(0.0, 0.0, 0.0, 0)


@dataclass(frozen=True)
class Check:
    """What a table predicts of networks that were measured in the same rounds, but that it was not fitted to.

    Errors are shares of the measured time. `noise` is how far the same network's medians over the odd and over the even
    rounds lie apart, `drift` those over the first and over the last half of them, as shares, in the median over all
    networks: no prediction of another day's measurement can be better. `spearman` is None where all take the same.
    """

    networks: int
    rounds: int
    fastest_s: float
    slowest_s: float
    spearman: float | None
    median_error: float
    max_error: float
    noise: float
    drift: float

    @property
    def reliable(self) -> bool:
        """Whether the table ranks networks (Spearman 0.9) and prices them (10 % in the median) well enough to search by."""
        return self.median_error <= 0.1 and (self.spearman is None or self.spearman >= 0.9)


@dataclass(frozen=True)
class LatencyTable:
    """What a forward pass of `batch` images takes: scale x the sum over the primitives + fixed, in seconds.

    `threads`, `torch`, `precision`, `layout` and `clock` say how it was measured; `where` is what messages call it.
    """

    space: str
    skeleton: Skeleton
    device: str
    threads: int
    torch: str
    batch: int
    precision: str
    layout: str
    clock: str
    scale: float
    fixed_s: float
    places: Mapping[Build, Timing]
    check: Check
    where: str = field(default="the latency table", compare=False)

    def head(self) -> dict[str, Any]:
        """Everything but the places, as plain values in the order of the file."""
        values = {"format": FORMAT, "version": VERSION}
        values |= {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values |= {"skeleton": {name: getattr(self.skeleton, name) for name in SKELETON}, "check": asdict(self.check)}
        return {name: value for name, value in values.items() if name not in ("places", "where")}

    def to_json(self) -> str:
        """The table as a text that `parse` reads back, a place a line."""
        rows = [
            {"primitive": name, "channels": channels, "stride": stride, "size": size, **asdict(timing)}
            for (name, channels, stride, size), timing in self.places.items()
        ]
        lines = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in self.head().items()]
        lines.append('"places": [\n    ' + ",\n    ".join(json.dumps(row, allow_nan=False) for row in rows) + "\n  ]")
        return "{\n  " + ",\n  ".join(lines) + "\n}\n"

    def check_fits(
        self,
        space: SearchSpace,
        skeleton: Skeleton,
        device: Device | None = None,
        threads: int | None = None,
    ) -> None:
        """Raises InputError, saying what differs, where the table was not measured for this space and skeleton.

        With a `device` it must also have been measured on such a one, with this torch, and, where the device is a
        CPU, with `threads` threads, if given; without, it may be that of any machine.
        """
        pairs: list[tuple[str, Any, Any]] = [("space", self.space, space.name)]
        pairs += [(name, getattr(self.skeleton, name), getattr(skeleton, name)) for name in SKELETON]
        if device is not None:
            pairs += [("device", self.device, device_name(device)), ("torch", self.torch, torch.__version__)]
            if device.type == "cpu" and threads is not None:
                pairs.append(("threads", self.threads, threads))
        differ = [(name, mine, asked) for name, mine, asked in pairs if mine != asked]
        if differ:
            measured, wanted = (", ".join(f"{row[0]} {_plain(row[side])}" for row in differ) for side in (1, 2))
            raise InputError(
                f"{self.where} was measured for {measured}, not for {wanted}; measure another with rapdarts measure."
            )
        for build in _builds(space, skeleton):
            if build not in self.places:
                name, channels, stride, (height, width) = build
                here = f"{channels} channels, stride {stride}, {height}x{width}"
                has = f"has no {name} at {here}" if any(name == other[0] for other in self.places) else f"has no {name}"
                raise InputError(f"{self.where} {has}; measure another with rapdarts measure.")

    def prices(self, space: SearchSpace, skeleton: Skeleton) -> tuple[float, np.ndarray]:
        """The fixed seconds, and what each choice adds over all cells of its kind, (kinds, edges, primitives) float64 in seconds.

        Raises InputError as `check_fits` does.
        """
        self.check_fits(space, skeleton)
        return self.fixed_s, self.scale * _summed(space, skeleton, self.places)


def with_latency(table: PriceTable, latency: LatencyTable) -> PriceTable:
    """The price table with the resource `latency`, in seconds, behind the others. Raises InputError where they do not fit."""
    fixed, prices = latency.prices(table.space, table.skeleton)
    return replace(
        table,
        resources=(*table.resources, "latency"),
        fixed=np.append(table.fixed, fixed),
        prices=np.concatenate([table.prices, prices[None]]),
    )


# --- measuring ---------------------------------------------------------------------------------------------------


def device_name(device: torch.device) -> str:
    """What a device is called, so that a table of another one is noticed."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} on {platform.machine()}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, models), "") or platform.processor() or platform.machine()


def clock(device: torch.device) -> str:
    """By what time is taken: `events` on the GPU; on one CPU thread the time for which it really ran; else by the `wall`."""
    if device.type == "cuda":
        return "events"
    return "thread" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"


Timer = Callable[[Callable[[], object]], float]


def timer(device: torch.device) -> Timer:
    """A function that runs another one and gives the seconds it took on the device.

    One thread has a clock of its own, which stands still while other processes have the core: on a machine of one's
    own it shows what the wall clock shows.
    """
    if clock(device) == "events":
        return partial(_by_events, device)
    return _by_thread if clock(device) == "thread" else partial(_by_wall, device)


def _by_thread(run: Callable[[], object]) -> float:
    began = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - began) * 1e-9


def _by_wall(device: torch.device, run: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    run()
    if device.type == "mps":
        torch.mps.synchronize()
    return (time.perf_counter_ns() - began) * 1e-9


def _by_events(device: torch.device, run: Callable[[], object]) -> float:
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) * 1e-3


def measure_network(network: nn.Module, image: Image, batch: int = 1, rounds: int = 50) -> Timing:
    """What a forward pass of `batch` images (channels, height, width) takes, in eval mode, where and as the network stands."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    images = torch.ones(batch, *image, device=device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        (seconds,) = _rounds([partial(network, images)], [1], timer(device), range(rounds), 0)
    finally:
        for module, training in modes:
            module.training = training
    return Timing.of(seconds)


def measure(
    space: SearchSpace,
    skeleton: Skeleton,
    device: torch.device,
    rounds: Iterable[int],
    networks: int = 40,
    batch: int = 1,
    seed: int = 0,
) -> LatencyTable:
    """Times all primitives and `networks` random networks (`seed` draws them, at least 4) in as many rounds as `rounds` gives numbers.

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
        builds = {build: space.primitives[build[0]](build[1], build[2], True) for build in _builds(space, skeleton)}
        running = [build for build, primitive in builds.items() if not isinstance(primitive, nn.Identity)]
        for build in running:
            fed = torch.randn(batch, build[1], *build[3]).to(memory_format=torch.channels_last)
            jobs.append(_job(builds[build], fed, device))

    shots = [1] * networks + [SHOTS] * len(running)
    seconds = _rounds(jobs, shots, timer(device), rounds, seed)
    whole = np.array(seconds[:networks])  # (networks, rounds)
    alone = {build: Timing.of(times) for build, times in zip(running, seconds[networks:], strict=True)}
    timings = {build: alone.get(build, NOTHING) for build in builds}

    prices = _summed(space, skeleton, timings)
    sums = np.array([(prices * one_hot(space, genotype)).sum() for genotype in genotypes])
    scale, fixed = fit(sums[::2], np.median(whole, 1)[::2])
    check = _check(scale * sums[1::2] + fixed, whole[1::2], whole)
    facts = (device_name(device), torch.get_num_threads(), torch.__version__, batch, PRECISION, LAYOUT, clock(device))
    return LatencyTable(space.name, skeleton, *facts, _rounded(scale), _rounded(fixed), timings, check)


def _builds(space: SearchSpace, skeleton: Skeleton) -> list[Build]:
    """Every different thing that may run on an edge of a derived network; `none` is among them only where it may be derived."""
    allowed = space.choosable
    return list(dict.fromkeys(place.build for place in places(space, skeleton) if allowed[place.column]))


def _summed(space: SearchSpace, skeleton: Skeleton, timings: Mapping[Build, Timing]) -> np.ndarray:
    """The medians of the primitives summed over the cells of each kind, (kinds, edges, primitives) float64; 0 for what is never derived."""
    prices = np.zeros(space.mask.shape)
    for place in places(space, skeleton):
        if space.choosable[place.column]:
            prices[place.kind, place.edge, place.column] += timings[place.build].median_s
    return prices


def _settled(network: nn.Module, image: Image) -> nn.Module:
    """The network after its batch norms have seen images, as those of a trained one have.

    Untrained ones let activations shrink from cell to cell, until arithmetic on them is slower than it ever is.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all it has seen
    with torch.no_grad():
        network.train()(torch.randn(4, *image))
    return network


def _job(module: nn.Module, fed: torch.Tensor, device: torch.device) -> Callable[[], object]:
    """The call of a module on a tensor, both as they are in a retrained network."""
    module = module.eval().to(device)
    return partial(module.to(memory_format=torch.channels_last), fed.to(device))  # type: ignore[call-overload]


def _rounds(
    jobs: Sequence[Callable[[], object]], shots: Sequence[int], time_of: Timer, rounds: Iterable[int], seed: int
) -> list[list[float]]:
    """Seconds of every job: in each round each has its number of shots, in an order of its own."""
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
    """(scale, fixed) with the least mean relative error of scale x sums + fixed, both (networks,) in seconds; fixed is not negative.

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
        """(error, scale, fixed) of the best line that can be."""
        able = lines[:, np.isfinite(lines).all(0) & (lines[0] > 0) & (lines[1] >= 0)]
        errors = np.abs((able[0][:, None] * sums + able[1][:, None]) / measured - 1).mean(1)
        return min(zip(errors.tolist(), *able.tolist(), strict=True), default=(math.inf, 1.0, 0.0))

    (error, *unscaled), (least, *scaled) = best(plain), best(free)
    scale, fixed = scaled if least < WORTH * error and (len(sums) >= FEW or error == math.inf) else unscaled
    return scale, fixed


def _check(predicted: np.ndarray, measured: np.ndarray, all_measured: np.ndarray) -> Check:
    """The networks that check, predicted (networks,) and measured (networks, rounds); all networks say how steady the machine was."""
    middle, rounds = np.median(measured, 1), measured.shape[1]
    errors = np.abs(predicted / middle - 1)

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return _rounded(np.median(np.abs(np.median(one, 1) / np.median(other, 1) - 1)))

    return Check(
        len(measured),
        rounds,
        _rounded(middle.min()),
        _rounded(middle.max()),
        _spearman(predicted, middle),
        _rounded(np.median(errors)),
        _rounded(errors.max()),
        apart(all_measured[:, ::2], all_measured[:, 1::2]),
        apart(all_measured[:, : rounds // 2], all_measured[:, rounds // 2 :]),
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """The correlation of the ranks; None where all are alike on one side."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where])

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return min(1.0, max(-1.0, _rounded(np.corrcoef(ranks(x), ranks(y))[0, 1])))


def _rounded(value: float) -> float:
    """Six digits, more than any clock knows."""
    return float(f"{value:.6g}")


# --- reading -----------------------------------------------------------------------------------------------------

SECONDS, WHOLE, COUNT = number(0, 1e6), number(0, 1e6, whole=True), number(1, 1e6, whole=True)
TEXT = reader(
    lambda value: isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable(),
    "a text of up to 200 letters",
)


def _by_type(values: type[Any]) -> dict[str, Reader | None]:
    """A reader for each field of a dataclass that holds a text, a whole number or a number."""
    readers = {"str": TEXT, "int": WHOLE, "float": SECONDS}
    return {entry.name: readers[entry.type] for entry in fields(values) if entry.type in readers}


def _wholes(count: int) -> Reader:
    """A reader of `count` whole numbers, each within the bounds of an image."""
    most = SKELETON["image"]

    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) == count and all(type(n) is int and 1 <= n <= most for n in value)

    return reader(fits, f"{count} whole numbers from 1 to {most}")


def read(path: Path) -> LatencyTable:
    """The table in a file. Raises InputError for what is no regular file, too large, not UTF-8, or not a latency table."""
    where = shorten(str(path))
    larger = f"has more than {MAX_FILE_BYTES:,} bytes, too many for a latency table"
    other = "is not a regular file; give a table that rapdarts measure wrote"
    return parse(read_text(path, where, MAX_FILE_BYTES, larger, other), where)


def parse(text: str, where: str) -> LatencyTable:
    """The table that a JSON text means; `where` names it in messages. Raises InputError, saying which field is wrong."""
    tree = _load(text, where)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise InputError(f"{where} is not a latency table: it must be an object with the format {FORMAT!r}.")
    version = COUNT(tree.get("version"), f"{where}: version")
    if version != VERSION:
        raise InputError(
            f"{where} has version {version}, and this rapdarts reads version {VERSION}; measure another with rapdarts measure."
        )
    readers = {"format": None, "version": None, **_by_type(LatencyTable)}
    del readers["where"]
    readers |= {"space": space_name, "skeleton": _skeleton, "places": _places, "check": _read_check}
    readers |= {"threads": COUNT, "batch": COUNT, "scale": number(0, 1e6, above=True)}
    facts = record(tree, where, readers)
    del facts["format"], facts["version"]
    return LatencyTable(**facts, where=where)


def _load(text: str, where: str) -> Any:
    """The values of a JSON text. Raises InputError."""
    try:
        return load(text, infinite=True)
    except Fault as fault:
        words = {
            "depth": " is nested too deeply for a latency table",
            "key": f": {fault.problem}; keep one",
            "number": f": {shorten(fault.found)} is not a number that can be meant here; measure another table",
        }
        raise InputError(f"{where}{words.get(fault.kind, f', {fault}')}.") from None


def _skeleton(tree: Any, where: str) -> Skeleton:
    counts = {name: number(1, high, whole=True) for name, high in SKELETON.items()}
    facts = record(tree, where, {**counts, "stem": stem, "image": _wholes(3)})
    return Skeleton(**{**facts, "image": tuple(facts["image"])})


def _places(rows: Any, where: str) -> dict[Build, Timing]:
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{where} must be a list of measured primitives, not {show(rows)}.")
    readers = {"primitive": TEXT, "channels": COUNT, "stride": COUNT, "size": _wholes(2), **_by_type(Timing)}
    found: dict[Build, Timing] = {}
    for entry, row in enumerate(rows):
        here = f"{where}, entry {entry}"
        primitive, channels, stride, (height, width), median, p10, p90, n = record(row, here, readers).values()
        build = (primitive, channels, stride, (height, width))
        if build in found:
            raise InputError(f"{here}: this {show(primitive)} stands here twice; keep one.")
        if not p10 <= median <= p90 or (median > 0) != (n > 0):
            raise InputError(f"{here}: p10_s, median_s, p90_s must rise, and be above 0 where n is.")
        found[build] = Timing(median, p10, p90, n)
    return found


def _read_check(tree: Any, where: str) -> Check:
    share = number(-1, 1)
    readers = {"spearman": lambda value, name: None if value is None else share(value, name)}
    return Check(**record(tree, where, _by_type(Check) | readers))


def _plain(value: Any) -> str:
    """A field as one says it: an image is 3x32x32."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)

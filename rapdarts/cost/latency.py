"""Latency tables: the time of every primitive at every place of a skeleton on one device, and the accuracy of predictions."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.architecture.genotype import SKELETON
from rapdarts.architecture.reading import as_space_name, as_stem
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cost.expected import PriceTable, places
from rapdarts.errors import InputError, shorten
from rapdarts.files import seal
from rapdarts.files.json import Fault, ValueReader, number, quote_value, reader, record, strict_loads
from rapdarts.files.text import read_text

FORMAT, VERSION = "rapdarts-latency", 1
MAX_FILE_BYTES = 1_000_000
PRECISION, LAYOUT = "float32", "channels_last"
"""Precision and memory format of networks during the measurement, the same as in retraining."""

Device = torch.device  # an alias, because the table has a field `torch`, the version of PyTorch
Build = tuple[str, int, int, tuple[int, int]]
"""(primitive, channels, stride, (h, w)): how a primitive is built, and the size of its input."""


@dataclass(frozen=True)
class Timing:
    """Median, and 10th and 90th percentiles, of `n` measurements, in seconds.

    If nothing runs, `n` and all three times are 0.
    """

    median_s: float
    p10_s: float
    p90_s: float
    n: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        p10, median, p90 = (rounded(value) for value in np.percentile(seconds, (10, 50, 90)))
        return Timing(median, p10, p90, len(seconds))


NOTHING = Timing(0.0, 0.0, 0.0, 0)


@dataclass(frozen=True)
class Check:
    """Accuracy of a table's predictions for networks that were measured in the same rounds but not used to fit it.

    Errors are relative to the measured time. `noise` is the relative difference between a network's median times over odd and
    even rounds; `drift` is the same difference between the first and the second half of the rounds. Both are medians over all
    networks, and limit the accuracy that a prediction can reach. `spearman` is None if all predicted or all measured times are
    equal.
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
        """True if the table is accurate enough for a search: Spearman at least 0.9, and a median error of at most 10 %."""
        return self.median_error <= 0.1 and (self.spearman is None or self.spearman >= 0.9)


@dataclass(frozen=True)
class LatencyTable:
    """Time of a forward pass of `batch` images in seconds: scale x (sum over the primitives) + fixed.

    `threads`, `torch`, `precision`, `layout` and `clock` record how the time was measured; `where` names the table in
    messages.
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
        """Return all entries of the file except the places, as plain values in the order of the file."""
        values = {"format": FORMAT, "version": VERSION}
        values |= {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values |= {"skeleton": {name: getattr(self.skeleton, name) for name in SKELETON}, "check": asdict(self.check)}
        return {name: value for name, value in values.items() if name not in ("places", "where")}

    def to_json(self) -> str:
        """Return the table as text that `parse` reads back, with one place per line."""
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
        """Raise InputError, naming what differs, if the table was not measured for this space and skeleton.

        If `device` is given, the table must also have been measured on a device of the same name with the installed version of
        PyTorch. On a CPU, the number of `threads`, if given, must match too. Without `device`, a table from any machine is
        accepted.
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
                f"{self.where} was measured for {measured}, not for {wanted}; measure a new table with rapdarts measure."
            )
        for build in builds_of(space, skeleton):
            if build not in self.places:
                name, channels, stride, (height, width) = build
                here = f"{channels} channels, stride {stride}, {height}x{width}"
                has = f"has no {name} at {here}" if any(name == other[0] for other in self.places) else f"has no {name}"
                raise InputError(f"{self.where} {has}; measure a new table with rapdarts measure.")

    @property
    def note(self) -> str:
        """Sentence for the user about the accuracy of the table."""
        check = self.check
        accuracy = (
            f"latency is predicted by {self.where}, with a median error of {check.median_error:.1%} and a maximum error"
            f" of {check.max_error:.1%} on {check.networks} networks that were not used to fit it"
        )
        return accuracy if check.reliable else f"{accuracy}; measure again with more rounds, or on a less busy machine"

    def prices(self, space: SearchSpace, skeleton: Skeleton) -> tuple[float, np.ndarray]:
        """Return the fixed time and the times that the choices add, in seconds.

        The latter are (kinds, edges, primitives) float64, summed over all cells of the same kind. Raises InputError as
        `check_fits` does.
        """
        self.check_fits(space, skeleton)
        return self.fixed_s, self.scale * summed(space, skeleton, self.places)


def with_latency(table: PriceTable, latency: LatencyTable) -> PriceTable:
    """Return the price table with `latency`, in seconds, as an additional last resource.

    Raises InputError if the latency table does not fit the price table's space and skeleton.
    """
    fixed, prices = latency.prices(table.space, table.skeleton)
    return replace(
        table,
        resources=(*table.resources, "latency"),
        fixed=np.append(table.fixed, fixed),
        prices=np.concatenate([table.prices, prices[None]]),
        notes=(*table.notes, latency.note),
    )


def device_name(device: torch.device) -> str:
    """Return the name of a device, as recorded in latency tables."""
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


def builds_of(space: SearchSpace, skeleton: Skeleton) -> list[Build]:
    """Return the distinct `Build` tuples of primitives in derived networks; `none` is included only if it can be derived."""
    allowed = space.choosable
    return list(dict.fromkeys(place.build for place in places(space, skeleton) if allowed[place.column]))


def summed(space: SearchSpace, skeleton: Skeleton, timings: Mapping[Build, Timing]) -> np.ndarray:
    """Return the primitives' median times summed over the cells of each kind, (kinds, edges, primitives) float64.

    The time of a primitive that cannot be derived is 0.
    """
    prices = np.zeros(space.mask.shape)
    for place in places(space, skeleton):
        if space.choosable[place.column]:
            prices[place.kind, place.edge, place.column] += timings[place.build].median_s
    return prices


def rounded(value: float) -> float:
    """Round to six significant digits, more than any clock resolves."""
    return float(f"{value:.6g}")


# --- reading -----------------------------------------------------------------------------------------------------

SECONDS, WHOLE, COUNT = number(0, 1e6), number(0, 1e6, whole=True), number(1, 1e6, whole=True)
TEXT = reader(
    lambda value: isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable(),
    "a string of 1 to 200 printable characters",
)


def _by_type(values: type[Any]) -> dict[str, ValueReader | None]:
    """Return a reader for each field of a dataclass that is a string, an integer or a float."""
    readers = {"str": TEXT, "int": WHOLE, "float": SECONDS}
    return {entry.name: readers[entry.type] for entry in fields(values) if entry.type in readers}


def _wholes(count: int) -> ValueReader:
    """Return a reader of a list of `count` whole numbers, each from 1 to the maximum size of an image."""
    most = SKELETON["image"]

    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) == count and all(type(n) is int and 1 <= n <= most for n in value)

    return reader(fits, f"{count} whole numbers from 1 to {most}")


def read_latency_table(path: Path) -> LatencyTable:
    """Read a latency table from a file.

    Raises InputError if it is not a regular file, is too large, is not UTF-8, or is not a latency table, and DamagedError if it does
    not match its seal.
    """
    where = shorten(str(path))
    larger = f"has more than {MAX_FILE_BYTES:,} bytes, too many for a latency table"
    other = "is not a regular file; pass a table written by rapdarts measure"
    text = read_text(path, where, MAX_FILE_BYTES, larger, other)
    table = parse(text, where)
    if own := seal.seal_of_json(text):
        seal.check_belongs(path, own)
    else:
        seal.report_unsealed(path)
    return table


def parse(text: str, where: str) -> LatencyTable:
    """Return the latency table in a JSON text; `where` names it in messages.

    Raises InputError, naming the invalid field, and DamagedError if the text does not match its seal.
    """
    tree = seal.unseal(_load(text, where), where)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise InputError(f"{where} is not a latency table: it must be a JSON object with the format {FORMAT!r}.")
    version = COUNT(tree.get("version"), f"{where}: version")
    if version != VERSION:
        raise InputError(
            f"{where} has version {version}, but this version of rapdarts reads version {VERSION};"
            " measure a new table with rapdarts measure."
        )
    readers = {"format": None, "version": None, **_by_type(LatencyTable)}
    del readers["where"]
    readers |= {"space": as_space_name, "skeleton": _skeleton, "places": _places, "check": _read_check}
    readers |= {"threads": COUNT, "batch": COUNT, "scale": number(0, 1e6, above=True)}
    facts = record(tree, where, readers)
    del facts["format"], facts["version"]
    return LatencyTable(**facts, where=where)


def _load(text: str, where: str) -> Any:
    """Return the values of a JSON text. Raises InputError if it is malformed."""
    try:
        return strict_loads(text, infinite=True)
    except Fault as fault:
        problems = {
            "depth": " is nested too deeply for a latency table",
            "key": f": {fault.problem}; keep one",
            "number": f": {shorten(fault.found)} is not a valid number here; measure a new table",
        }
        raise InputError(f"{where}{problems.get(fault.kind, f', {fault}')}.") from None


def _skeleton(tree: Any, where: str) -> Skeleton:
    counts = {name: number(1, high, whole=True) for name, high in SKELETON.items()}
    facts = record(tree, where, {**counts, "stem": as_stem, "image": _wholes(3)})
    return Skeleton(**{**facts, "image": tuple(facts["image"])})


def _places(rows: Any, where: str) -> dict[Build, Timing]:
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{where} must be a list of measured primitives, not {quote_value(rows)}.")
    readers = {"primitive": TEXT, "channels": COUNT, "stride": COUNT, "size": _wholes(2), **_by_type(Timing)}
    found: dict[Build, Timing] = {}
    for entry, row in enumerate(rows):
        here = f"{where}, entry {entry}"
        primitive, channels, stride, (height, width), median, p10, p90, n = record(row, here, readers).values()
        build = (primitive, channels, stride, (height, width))
        if build in found:
            raise InputError(
                f"{here}: {quote_value(primitive)} appears twice with the same channels, stride and size; keep one."
            )
        if not p10 <= median <= p90 or (median > 0) != (n > 0):
            raise InputError(
                f"{here}: p10_s, median_s and p90_s must be in ascending order, and median_s and n must both be above 0 or both be 0."
            )
        found[build] = Timing(median, p10, p90, n)
    return found


def _read_check(tree: Any, where: str) -> Check:
    share = number(-1, 1)
    readers = {"spearman": lambda value, name: None if value is None else share(value, name)}
    return Check(**record(tree, where, _by_type(Check) | readers))


def _plain(value: Any) -> str:
    """Format a field for a message; an image is written as 3x32x32."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)

"""Resources, all in one table, and amounts of them as people write and read them: 3.0M, 12MB, 8ms, 2mJ."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rapdarts.errors import InputError, shorten


@dataclass(frozen=True)
class Resource:
    """A resource that networks take: its unit, how it is counted, and the help of its price and of its budget.

    `whole` amounts are integers; `additive` ones are the sum of what the parts of a network take. `count` names the
    function within rapdarts.cost, `(network, image) -> number`, which is also given `precision` and `hardware` if it takes
    them; empty: the resource is measured.
    `convention` says what is counted, with {precision} in bits and {hardware} by name. `budget` is empty where a genotype
    cannot be held below a bound.
    """

    name: str
    unit: str
    whole: bool
    additive: bool
    count: str
    convention: str
    price: str
    budget: str


RESOURCES = {
    resource.name: resource
    for resource in (
        Resource(
            "macs",
            unit="",
            whole=True,
            additive=True,
            count="count.macs",
            convention="multiply-accumulates of one image: convolutions, linear layers and products of activations, no biases",
            price="price of the uniform mixture's multiply-accumulates",
            budget="most multiply-accumulates of an image, such as 500M",
        ),
        Resource(
            "params",
            unit="",
            whole=True,
            additive=True,
            count="count.params",
            convention="weights, biases, and the numbers of batch norms; no buffers",
            price="price of its parameters",
            budget="most parameters, such as 3.0M",
        ),
        Resource(
            "bytes",
            unit="B",
            whole=True,
            additive=True,
            count="count.weight_bytes",
            convention="params at {precision} bits",
            price="price of its bytes of weights",
            budget="most bytes of weights, such as 12MB",
        ),
        Resource(
            "activations",
            unit="",
            whole=True,
            additive=True,
            count="count.activations",
            convention="numbers that convolutions and linear layers put out for one image",
            price="price of what its convolutions and linear layers put out",
            budget="most numbers that convolutions and linear layers put out, such as 9M",
        ),
        Resource(
            "traffic",
            unit="B",
            whole=True,
            additive=True,
            count="count.traffic",
            convention="every operation reads its inputs and weights and writes its output once, at {precision} bits",
            price="price of the bytes it moves",
            budget="most bytes moved for an image, such as 100MB",
        ),
        Resource(
            "energy",
            unit="J",
            whole=False,
            additive=True,
            count="count.energy",
            convention="MACs x (multiply + add), every parameter read from DRAM once; {precision} bits, {hardware}",
            price="price of its energy an image",
            budget="most energy for an image, such as 2mJ",
        ),
        Resource(
            "latency",
            unit="s",
            whole=False,
            additive=True,
            count="",
            convention="seconds of a forward pass, as a table of rapdarts measure predicts them",
            price="price of its time, which needs search.latency",
            budget="longest forward pass, such as 8ms; needs search.latency",
        ),
        Resource(
            "peak_memory",
            unit="B",
            whole=True,
            additive=False,
            count="peak_memory.peak_memory",
            convention="activations held at the worst moment of one image, fp32",
            price="price of its peak of activations",
            budget="",
        ),
    )
}
"""Every resource that can be counted or measured. Prices, budgets, counting and the bill of a network all follow this table:
a new resource is one entry here, and its function in rapdarts.cost."""

PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
BYTES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
PARTS = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9, "p": 1e-12}
"""What may stand before a unit. A count of 3B is 3 billion; 12MB, or 12M of bytes, is 12 x 10^6, and MiB is 2^20."""


def amount(text: str, resource: str, key: str) -> float:
    """An amount of a resource in its unit, from a text such as 500M, 12MB, 8ms or 2mJ.

    Raises InputError, naming `key`, for another unit, or for what is not a positive number.
    """
    unit = RESOURCES[resource].unit
    prefixes = PARTS if unit in ("J", "s") else BYTES if unit == "B" else PREFIXES
    match = re.fullmatch(r"\s*([-+]?[0-9]+(?:_[0-9]+)*\.?[0-9]*(?:[eE][-+]?[0-9]{1,3})?)\s*([A-Za-zµ]*)\s*", text)
    if match is None:
        raise InputError(
            f"{key}={shorten(text)} is no amount; write a number with a unit, such as {example(resource)}."
        )
    number, suffix = float(match.group(1)), match.group(2)
    prefix = suffix.removesuffix(unit) if unit else suffix
    half = unit in ("J", "s") and suffix and not suffix.endswith(unit)  # 8m could be minutes
    if prefix not in prefixes or half:
        raise InputError(
            f"{key}={shorten(text)}: {suffix} is no unit of {resource}; write it like {example(resource)}."
        )
    value = number * prefixes[prefix]
    if not (value > 0 and math.isfinite(value)):
        raise InputError(
            f"{key}={shorten(text)} must be above 0 and finite; write an amount such as {example(resource)}."
        )
    return value


def example(resource: str) -> str:
    """How an amount of a resource may be written."""
    return {"": "3.0M or 3e6", "B": "12MB or 12e6", "J": "2mJ or 0.002", "s": "8ms or 0.008"}[RESOURCES[resource].unit]


def within(limits: Mapping[str, float]) -> str:
    """Upper bounds by resource for the eye: `params <= 3,000,000 and macs <= 500,000,000`."""
    return " and ".join(f"{name} <= {show(limit, name)}" for name, limit in limits.items())


def compact(value: float, resource: str) -> str:
    """An amount as `amount` reads it back, to the last bit and as short as that allows: 3M, 12MB, 8ms."""
    unit = RESOURCES[resource].unit
    prefixes = PARTS if unit in ("J", "s") else {name: PREFIXES[name] for name in ("", "k", "M", "G")}
    texts = [f"{value / factor:.12g}{prefix}{unit}" for prefix, factor in prefixes.items()]
    exact = [text for text in texts if amount(text, resource, resource) == value]
    return min(exact, key=len, default=f"{value:.17g}")


def show(value: float, resource: str) -> str:
    """An amount for the eye: counts and bytes to the last digit, times and energies in a unit that suits them."""
    unit = RESOURCES[resource].unit
    if unit not in ("J", "s"):
        return f"{value:,.0f}{' ' + unit if unit else ''}"
    for prefix in ("n", "µ", "m", ""):
        text = f"{value / PARTS[prefix]:.4g}"
        if abs(float(text)) < 1000:  # compared as rounded: 999.96 ns is 1 µs
            break
    return f"{text} {prefix}{unit}"


def used_line(name: str, share: float, budget: float) -> str:
    """Return a sentence on how much of a budget is used."""
    return f"{100 * share:.1f} % of the budget of {show(budget, name)} {name} is used"


def costs_line(costs: Mapping[str, float]) -> str:
    """Return costs by resource on one line: `macs 1,689,600  params 108,954`."""
    return "  ".join(f"{name} {show(value, name)}" for name, value in costs.items())


def duration(seconds: float) -> str:
    """Return a duration in one unit, for tables: 90 s, 2.5 min, 2.1 h."""
    if round(seconds) < 120:  # compared as rounded: 119.6 s is 2.0 min
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if round(seconds / 60, 1) < 120 else f"{seconds / 3600:.1f} h"


def time_left(seconds: float) -> str:
    """Return a duration to count down, in two units: 45 s, 1 min 30 s, 2 h 5 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

"""Table of all resources, and conversion of their amounts from and to text: 3.0M, 12MB, 8ms, 2mJ."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rapdarts.errors import InputError, shorten


@dataclass(frozen=True)
class Resource:
    """A resource of networks: its unit, how it is counted, and the help texts of its price and its budget.

    Amounts are integers if `whole`, and sums over the parts of a network if `additive`. `count` names the function
    within rapdarts.cost, `(network, image) -> number`, which may also take `precision` and `hardware`; `count` is empty if the
    resource is measured. `convention` describes what is counted; it may contain {precision} (in
    bits) and {hardware} (a name). `budget` is empty if the resource cannot have a budget.
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
            convention="multiply-accumulates for one image: convolutions, linear layers and products of activations, without biases",
            price="price of the multiply-accumulates per image",
            budget="largest number of multiply-accumulates per image, such as 500M",
        ),
        Resource(
            "params",
            unit="",
            whole=True,
            additive=True,
            count="count.params",
            convention="weights, biases, and the parameters of batch norms; no buffers",
            price="price of the parameters",
            budget="largest number of parameters, such as 3.0M",
        ),
        Resource(
            "bytes",
            unit="B",
            whole=True,
            additive=True,
            count="count.weight_bytes",
            convention="params at {precision} bits",
            price="price of the size of the weights",
            budget="largest size of the weights, such as 12MB",
        ),
        Resource(
            "activations",
            unit="",
            whole=True,
            additive=True,
            count="count.activations",
            convention="outputs of convolutions, linear layers and products of activations for one image",
            price="price of the outputs of convolutions, linear layers and products of activations",
            budget="largest number of outputs of convolutions, linear layers and products of activations per image, such as 9M",
        ),
        Resource(
            "traffic",
            unit="B",
            whole=True,
            additive=True,
            count="count.traffic",
            convention="every operation reads its inputs and weights and writes its output once, at {precision} bits",
            price="price of the bytes moved",
            budget="largest number of bytes moved per image, such as 100MB",
        ),
        Resource(
            "energy",
            unit="J",
            whole=False,
            additive=True,
            count="count.energy",
            convention="MACs x (multiply + add), every parameter read from DRAM once; {precision} bits, {hardware}",
            price="price of the energy per image",
            budget="largest energy per image, such as 2mJ",
        ),
        Resource(
            "latency",
            unit="s",
            whole=False,
            additive=True,
            count="",
            convention="time of a forward pass, predicted from a latency table written by rapdarts measure",
            price="price of the time of a forward pass, predicted from search.latency or, if that is empty, measured first",
            budget="longest time of a forward pass, such as 8ms, predicted from search.latency or, if that is empty, measured first",
        ),
        Resource(
            "peak_memory",
            unit="B",
            whole=True,
            additive=False,
            count="peak_memory.peak_memory",
            convention="peak size of the activations of one image, fp32",
            price="price of the peak size of the activations",
            budget="",
        ),
    )
}
"""Every resource that can be counted or measured. Prices, budgets, counts and cost tables all follow this table: a new
resource needs one entry here and a function in rapdarts.cost."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""Pattern for the name of a user-defined resource."""


def unit_of(resource: str) -> str:
    """Return the unit of a resource; user-defined resources have none."""
    return RESOURCES[resource].unit if resource in RESOURCES else ""


PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
BYTES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
PARTS = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9, "p": 1e-12}
"""Prefixes of units. A count of 3B is 3 billion; 12MB, or 12M for a resource in bytes, is 12 x 10^6 bytes; 1MiB is 2^20 bytes."""

SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
"""Units of durations, in seconds."""
PART_OF_DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(min|[smhd])"
DURATION = rf"(?:{PART_OF_DURATION} ?)+"


def amount(text: str, resource: str, key: str) -> float:
    """Return an amount of a resource in its unit, from a string such as 500M, 12MB, 8ms or 2mJ.

    Raises InputError, naming `key`, for an unknown unit or anything else that is not a positive amount.
    """
    unit = unit_of(resource)
    prefixes = PARTS if unit in ("J", "s") else BYTES if unit == "B" else PREFIXES
    match = re.fullmatch(r"\s*([-+]?[0-9]+(?:_[0-9]+)*\.?[0-9]*(?:[eE][-+]?[0-9]{1,3})?)\s*([A-Za-zµ]*)\s*", text)
    if match is None:
        raise InputError(
            f"{key}={shorten(text)} is not an amount of {resource}; write an amount such as {example(resource)}."
        )
    number, suffix = float(match.group(1)), match.group(2)
    prefix = suffix.removesuffix(unit) if unit else suffix
    half = unit in ("J", "s") and suffix and not suffix.endswith(unit)  # 8m could be minutes
    if prefix not in prefixes or half:
        raise InputError(
            f"{key}={shorten(text)}: {suffix} is not a unit of {resource}; write an amount such as {example(resource)}."
        )
    value = number * prefixes[prefix]
    if not (value > 0 and math.isfinite(value)):
        raise InputError(
            f"{key}={shorten(text)} must be above 0 and finite; write an amount such as {example(resource)}."
        )
    return value


def example(resource: str) -> str:
    """Return two examples of how to write an amount of a resource."""
    return {"": "3.0M or 3e6", "B": "12MB or 12e6", "J": "2mJ or 0.002", "s": "8ms or 0.008"}[unit_of(resource)]


def within(limits: Mapping[str, float]) -> str:
    """Return upper bounds by resource for display: `params <= 3,000,000 and macs <= 500,000,000`."""
    return " and ".join(f"{name} <= {show(limit, name)}" for name, limit in limits.items())


def compact(value: float, resource: str) -> str:
    """Return the shortest text that `amount` converts back to exactly this value: 3M, 12MB, 8ms."""
    unit = unit_of(resource)
    prefixes = PARTS if unit in ("J", "s") else {name: PREFIXES[name] for name in ("", "k", "M", "G")}
    texts = [f"{value / factor:.12g}{prefix}{unit}" for prefix, factor in prefixes.items()]
    exact = [text for text in texts if amount(text, resource, resource) == value]
    return min(exact, key=len, default=f"{value:.17g}")


def show(value: float, resource: str) -> str:
    """Return an amount for display: counts and bytes to the last digit, times and energies in a suitable unit."""
    unit = unit_of(resource)
    if resource not in RESOURCES and not float(value).is_integer():
        return f"{value:,.6g}"
    if unit not in ("J", "s"):
        return f"{value:,.0f}{' ' + unit if unit else ''}"
    for prefix in ("n", "µ", "m", ""):
        text = f"{value / PARTS[prefix]:.4g}"
        if abs(float(text)) < 1000:  # compared as rounded: 999.96 ns is 1 µs
            break
    return f"{text} {prefix}{unit}"


def in_words(name: str, cost: float) -> str:
    """Return a cost with the name of its resource: 100,000 params, or 12,000 B (bytes)."""
    return f"{show(cost, name)} ({name})" if unit_of(name) else f"{show(cost, name)} {name}"


def used_line(name: str, share: float, budget: float) -> str:
    """Return a clause that states how much of a budget is used."""
    return f"{100 * share:.1f} % of the {name} budget ({show(budget, name)}) is used"


def costs_line(costs: Mapping[str, float]) -> str:
    """Return costs by resource on one line: `macs 1,689,600  params 108,954`."""
    return "  ".join(f"{name} {show(value, name)}" for name, value in costs.items())


def seconds(text: str, key: str) -> float:
    """Return a duration in seconds, from a text such as 90s, 30m, 2h or 1h30m.

    Raises InputError, naming `key`, for anything else, including a number without a unit, which could be seconds or minutes.
    """
    if not re.fullmatch(DURATION, text.strip()):
        raise InputError(
            f"{key}={shorten(text)} is not a duration; write a number with its unit, such as 90s, 30m or 2h."
        )
    found = sum(float(number) * SECONDS[unit] for number, unit in re.findall(PART_OF_DURATION, text))
    if not found:
        raise InputError(f"{key}={shorten(text)} must be above 0; write a duration such as 90s, 30m or 2h.")
    return found


def duration(seconds: float) -> str:
    """Return a duration in one unit, for tables: 90 s, 2.5 min, 2.1 h."""
    if round(seconds) < 120:  # compared as rounded: 119.6 s is 2.0 min
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if round(seconds / 60, 1) < 120 else f"{seconds / 3600:.1f} h"


def time_left(seconds: float) -> str:
    """Return a remaining time in up to two units: 45 s, 1 min 30 s, 2 h 5 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

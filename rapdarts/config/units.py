"""Amounts of resources as people write and read them: 3.0M, 12MB, 8ms, 2mJ."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from rapdarts.errors import InputError, shorten

UNITS = {
    "macs": "",
    "params": "",
    "bytes": "B",
    "activations": "",
    "traffic": "B",
    "energy": "J",
    "latency": "s",
    "peak_memory": "B",
}
"""Every resource that can be counted or measured, and the unit its amounts are in; counts have none."""

PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
BYTES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
PARTS = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9, "p": 1e-12}
"""What may stand before a unit. A count of 3B is 3 billion; 12MB, or 12M of bytes, is 12 x 10^6, and MiB is 2^20."""


def amount(text: str, resource: str, key: str) -> float:
    """An amount of a resource in its unit, from a text such as 500M, 12MB, 8ms or 2mJ.

    Raises InputError, naming `key`, for another unit, or for what is not a positive number.
    """
    unit = UNITS[resource]
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
    return {"": "3.0M or 3e6", "B": "12MB or 12e6", "J": "2mJ or 0.002", "s": "8ms or 0.008"}[UNITS[resource]]


def within(limits: Mapping[str, float]) -> str:
    """Upper bounds by resource for the eye: `params <= 3,000,000 and macs <= 500,000,000`."""
    return " and ".join(f"{name} <= {show(limit, name)}" for name, limit in limits.items())


def show(value: float, resource: str) -> str:
    """An amount for the eye: counts and bytes to the last digit, times and energies in a unit that suits them."""
    unit = UNITS[resource]
    if unit not in ("J", "s"):
        return f"{value:,.0f}{' ' + unit if unit else ''}"
    for prefix in ("", "m", "µ", "n"):
        if abs(value) >= PARTS[prefix] or prefix == "n":
            return f"{value / PARTS[prefix]:.4g} {prefix}{unit}"
    raise AssertionError("the last prefix takes every value")


def costs_line(costs: Mapping[str, float]) -> str:
    """Return costs by resource on one line: `macs 1,689,600  params 108,954`."""
    return "  ".join(f"{name} {show(value, name)}" for name, value in costs.items())


def duration(seconds: float) -> str:
    """Return a duration in one unit, for tables: 90 s, 2.5 min, 2.1 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def time_left(seconds: float) -> str:
    """Return a duration to count down, in two units: 45 s, 1 min 30 s, 2 h 5 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

"""Reading and display of amounts of resources."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapdarts.config.experiment import BudgetConfig, CostCoefficients
from rapdarts.config.key_values import keys
from rapdarts.config.resources import (
    RESOURCES,
    amount,
    compact,
    duration,
    example,
    in_words,
    show,
    time_left,
    used_line,
)
from rapdarts.cost import count
from rapdarts.cost.layers import CONVENTIONS
from rapdarts.errors import InputError


@pytest.mark.parametrize(
    "text, resource, value",
    [
        ("3.0M", "params", 3e6),
        ("500M", "macs", 5e8),
        ("0.5G", "macs", 5e8),
        ("2.5B", "params", 2.5e9),
        ("3_000_000", "params", 3e6),
        ("9k", "activations", 9e3),
        ("12MB", "bytes", 12e6),
        ("12 MB", "bytes", 12e6),
        ("12M", "bytes", 12e6),
        ("12e6", "bytes", 12e6),
        ("100B", "bytes", 100),
        ("1.5MiB", "traffic", 1.5 * 2**20),
        ("8ms", "latency", 0.008),
        ("150us", "latency", 150e-6),
        ("0.25s", "latency", 0.25),
        ("2mJ", "energy", 0.002),
        ("7µJ", "energy", 7e-6),
    ],
)
def test_amounts_are_read(text: str, resource: str, value: float) -> None:
    assert amount(text, resource, "budget") == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text, resource, words",
    [
        ("3.0MB", "params", "is not a unit of params"),
        ("3 apples", "params", "is not a unit of params"),
        ("8m", "latency", "is not a unit of latency; write an amount such as 8ms"),
        ("8min", "latency", "is not a unit of latency"),
        ("8mS", "latency", "is not a unit of latency"),
        ("12Mb", "bytes", "is not a unit of bytes"),
        ("0", "macs", "must be above 0"),
        ("-3M", "params", "must be above 0"),
        ("1e999", "macs", "must be above 0"),
        ("1e308G", "params", "must be above 0"),
        ("1e-320ns", "latency", "must be above 0"),
        ("1_", "params", "is not an amount"),
        ("1__0k", "params", "is not an amount"),
        ("many", "macs", "is not an amount of macs; write an amount such as 3.0M or 3e6."),
        ("nan", "macs", "is not an amount"),
        ("1e6e6", "macs", "is not an amount"),
    ],
)
def test_invalid_amounts_are_rejected(text: str, resource: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        amount(text, resource, "budget.x")


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_example_is_a_valid_amount(resource: str) -> None:
    first, _, second = example(resource).partition(" or ")
    assert amount(first, resource, "x") > 0 and amount(second, resource, "x") > 0


@given(st.floats(1e-9, 1e3), st.sampled_from(["energy", "latency"]))
def test_displayed_amounts_read_back(value: float, resource: str) -> None:
    assert amount(show(value, resource), resource, "x") == pytest.approx(value, rel=1e-3)


@given(st.floats(1e-9, 1e15), st.sampled_from(list(RESOURCES)))
def test_compact_amounts_read_back_exactly(value: float, resource: str) -> None:
    assert amount(compact(value, resource), resource, "x") == value


def test_compact_amounts() -> None:
    written = [compact(3e6, "params"), compact(100e3, "params"), compact(12e6, "bytes"), compact(0.008, "latency")]
    assert written == ["3M", "100k", "12MB", "8ms"]
    assert [compact(1_234_567, "macs"), compact(2e-3, "energy")] == ["1234567", "2mJ"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ns"),
        (1e-12, "0.001 ns"),
        (999.4e-9, "999.4 ns"),
        (999.94e-9, "999.9 ns"),
        (999.96e-9, "1 µs"),
        (1e-6, "1 µs"),
        (-1e-6, "-1 µs"),
        (1.0004e-6, "1 µs"),
        (999.6e-6, "999.6 µs"),
        (999.96e-6, "1 ms"),
        (1e-3, "1 ms"),
        (999.94e-3, "999.9 ms"),
        (999.96e-3, "1 s"),
        (1.0, "1 s"),
        (999.96, "1000 s"),
    ],
)
def test_times_change_their_unit_after_rounding(seconds: float, shown: str) -> None:
    assert show(seconds, "latency") == shown
    assert show(seconds, "energy") == shown.replace("s", "J")


@given(st.floats(0, 1e4), st.sampled_from([1e-9, 1e-6, 1e-3, 1]))
def test_no_time_is_shown_as_a_thousand_of_a_smaller_unit(value: float, unit: float) -> None:
    number, shown_unit = show(value * unit, "latency").split()
    assert shown_unit == "s" or float(number) < 1000


@pytest.mark.parametrize(
    ("seconds", "in_one_unit", "in_two_units"),
    [
        (0, "0 s", "0 s"),
        (59.4, "59 s", "59 s"),
        (59.6, "60 s", "1 min 0 s"),
        (119.4, "119 s", "1 min 59 s"),
        (119.6, "2.0 min", "2 min 0 s"),
        (120, "2.0 min", "2 min 0 s"),
        (3599.6, "60.0 min", "1 h 0 min"),
        (7196, "119.9 min", "1 h 59 min"),
        (7198, "2.0 h", "1 h 59 min"),
        (7200, "2.0 h", "2 h 0 min"),
    ],
)
def test_durations_change_their_unit_after_rounding(seconds: float, in_one_unit: str, in_two_units: str) -> None:
    assert duration(seconds) == in_one_unit
    assert time_left(seconds) == in_two_units


def test_displayed_amounts() -> None:
    assert show(532_174_464, "macs") == "532,174,464"
    assert [in_words("macs", 1e6), in_words("bytes", 1e6)] == ["1,000,000 macs", "1,000,000 B (bytes)"]
    assert used_line("bytes", 0.951, 12e6) == "95.1 % of the bytes budget (12,000,000 B) is used"
    assert show(13_735_192, "bytes") == "13,735,192 B"
    assert show(0.0046456, "energy") == "4.646 mJ"
    assert show(2e-8, "latency") == "20 ns"


def test_all_tables_list_the_same_resources() -> None:
    """Counts, prices and budgets have the same names, in the order of RESOURCES."""
    priced = [key.name for key in keys(CostCoefficients)]
    bounded = [key.name for key in keys(BudgetConfig)]
    assert priced == list(RESOURCES) and set(RESOURCES) == {*count.COUNTERS, "latency"}
    assert bounded == [name for name in RESOURCES if name != "peak_memory"]
    assert list(count.ADDITIVE) == [name for name in count.COUNTERS if name != "peak_memory"]
    assert {"energy", "latency"} == set(RESOURCES) - count.COUNTED
    assert list(CONVENTIONS) == [*count.COUNTERS, "macs_with_bn_relu", "thop_macs"]
    assert [key.facts["help"] for key in keys(CostCoefficients)] == [one.price for one in RESOURCES.values()]


TOY = """
from dataclasses import replace

from rapdarts.config import resources

toy = replace(resources.RESOURCES["bytes"], name="toys", convention="toys at {precision} bits", budget="most toys")
resources.RESOURCES["toys"] = toy

from torch import nn
from rapdarts.config.experiment import Experiment
from rapdarts.config.key_values import keys
from rapdarts.cost import count, layers

helps = {key.name: key.facts["help"] for key in keys(Experiment)}
assert helps["search.cost.toys"] == toy.price and helps["search.budget.toys"] == "most toys"
assert layers.CONVENTIONS["toys"] == toy.convention
assert "toys" in count.COUNTED and "toys" in count.ADDITIVE
assert count.count(nn.Linear(4, 4), (4, 1, 4), count.resources(16))["toys"] == 2 * 20
"""


def test_a_new_resource_needs_one_entry() -> None:
    """A copy of the resource bytes can be priced, given a budget, and counted at a precision."""
    found = subprocess.run([sys.executable, "-c", TOY], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")

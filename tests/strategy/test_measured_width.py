"""The widest network for a budget on latency, found with few measurements of a latency that grows with the width."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rapdarts.strategy.measured_width import ENOUGH, MOST_WIDTHS, NEAR, START, widest_measured


class Device:
    """A device with a given latency at each width; it records the widths that are measured."""

    def __init__(self, latency: Callable[[int], float], budget: float) -> None:
        self.latency, self.budget = latency, budget
        self.widths: list[int] = []

    def used(self, width: int) -> float:
        self.widths.append(width)
        return self.latency(width) / self.budget


def mixed(width: int) -> float:
    """Return a latency in ms with a fixed part, a part that grows linearly and one that grows quadratically."""
    return 1.0 + 0.02 * width + 0.0005 * width**2


@pytest.mark.parametrize(
    ("budget", "top", "found", "measured"),
    [
        (8.0, 30, 30, [30]),  # the other budgets bind
        (1.9, 30, 26, [30, 15, 26]),  # the widest that fits
        (8.0, None, 98, [16, 64, 128, 98]),  # at 98 channels, 97.6 % of the budget is used; 100 would fit
        (1.05, 30, 2, [30, 15, 7, 3, 2]),
        (0.5, 30, 2, [30, 7, 3, 2]),  # even the narrowest does not fit
        (40.0, 5000, 259, [16, 84, 336, 253, 259]),  # 260 would fit
    ],
)
def test_the_widths_that_are_measured(budget: float, top: int | None, found: int, measured: list[int]) -> None:
    device = Device(mixed, budget)
    assert (widest_measured(device.used, top), device.widths) == (found, measured)


@given(
    fixed=st.floats(0.01, 5),
    linear=st.floats(0, 1),
    quadratic=st.floats(0, 0.1),
    budget=st.floats(0.1, 100),
    top=st.none() | st.integers(2, 65_536),
    noise=st.lists(st.floats(0.8, 1.25), min_size=MOST_WIDTHS, max_size=MOST_WIDTHS),
)
@example(fixed=1, linear=0, quadratic=0, budget=1, top=None, noise=[1.0] * MOST_WIDTHS)
def test_few_widths_are_measured_and_the_result_is_the_widest_that_fits(
    fixed: float, linear: float, quadratic: float, budget: float, top: int | None, noise: list[float]
) -> None:
    errors = iter(noise)
    shares: dict[int, float] = {}

    def latency(width: int) -> float:
        shares[width] = (fixed + linear * width + quadratic * width**2) * next(errors) / budget
        return shares[width] * budget

    device = Device(latency, budget)
    width = widest_measured(device.used, top)
    assert len(device.widths) == len(set(device.widths)) <= MOST_WIDTHS
    assert device.widths[0] == (START if top is None or top > NEAR else top) and all(
        2 <= one <= (top or one) for one in device.widths
    )
    fitting = [one for one in device.widths if shares[one] <= 1]
    assert width in device.widths and width == max(fitting, default=2)


def test_a_width_close_to_the_budget_ends_the_measurements() -> None:
    device = Device(lambda width: ENOUGH if width == START else math.inf, 1.0)
    assert widest_measured(device.used, None) == START and device.widths == [START]

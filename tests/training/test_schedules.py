"""Schedules, compared with the values of the papers' code."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapdarts.training.schedules import SCHEDULES, cosine, drop_path, linear, skip_dropout, warmup


def test_learning_rate_of_pdarts() -> None:
    """The rate is 0.0125 * (1 + cos(pi * epoch / 25)): 0.025 at first, half of that midway, nearly 0 in the last epoch."""
    rates = [cosine(epoch, 25, 0.025) for epoch in range(25)]
    assert rates == pytest.approx([0.0125 * (1 + math.cos(math.pi * epoch / 25)) for epoch in range(25)], abs=1e-15)
    assert rates[0] == 0.025
    assert rates[24] == pytest.approx(9.8566e-5, rel=1e-4)
    assert cosine(5, 10, 0.025) == pytest.approx(0.0125)


def test_learning_rate_of_darts() -> None:
    """The rate falls from 0.025 to 0.001 in 50 epochs."""
    assert cosine(0, 50, 0.025, 0.001) == 0.025
    assert cosine(25, 50, 0.025, 0.001) == pytest.approx(0.013)
    assert cosine(50, 50, 0.025, 0.001) == 0.001


@given(st.integers(1, 600), st.floats(1e-4, 1), st.floats(0, 1))
def test_cosine_falls_from_peak_to_floor(epochs: int, peak: float, part: float) -> None:
    floor = part * peak
    rates = [cosine(epoch, epochs, peak, floor) for epoch in range(epochs + 1)]
    assert rates == sorted(rates, reverse=True)
    assert [rates[0], rates[-1]] == pytest.approx([peak, floor])


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.7])
def test_skip_dropout_of_pdarts(rate: float) -> None:
    """In 10 epochs of warm-up, the rate falls linearly to 15/25; then, it falls from its full value by a factor of exp(-0.2) per epoch."""
    rates = [skip_dropout(epoch, 25, 10, rate) for epoch in range(25)]
    assert rates[:10] == pytest.approx([rate * left / 25 for left in range(24, 14, -1)])
    assert rates[10] == rate
    assert rates[11] == pytest.approx(rate * 0.8187307530779818)
    assert rates[24] == pytest.approx(rate * 0.06081006262521797)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_skip_dropout_without_warm_up() -> None:
    assert skip_dropout(0, 50, 0, 0.3) == 0.3
    assert skip_dropout(5, 50, 0, 0.3) == pytest.approx(0.3 / math.e)
    assert [skip_dropout(epoch, 50, 10, 0.0) for epoch in (0, 9, 10, 49)] == [0, 0, 0, 0]


def test_drop_path_rises_from_zero() -> None:
    rates = [drop_path(epoch, 600, 0.3) for epoch in range(600)]
    assert rates[0] == 0
    assert rates[300] == pytest.approx(0.15)
    assert rates[599] == pytest.approx(0.3 * 599 / 600)
    assert rates == sorted(rates)
    assert drop_path(3, 4, 0.0) == 0


def test_linear_reaches_its_floor_after_the_last_epoch() -> None:
    assert [linear(epoch, 4, 0.5) for epoch in range(5)] == pytest.approx([0.5, 0.375, 0.25, 0.125, 0.0])
    assert [linear(epoch, 4, 0.5, 0.1) for epoch in (0, 1, 4)] == pytest.approx([0.5, 0.4, 0.1])
    assert {"cosine": cosine, "linear": linear} == SCHEDULES


def test_warmup_ends_at_one() -> None:
    assert [warmup(epoch, 5) for epoch in range(7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    assert warmup(0, 0) == 1

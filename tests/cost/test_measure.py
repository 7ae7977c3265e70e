"""Tests of timing: a measurement is repeated for a given time or a given number of times."""

from __future__ import annotations

import torch

from rapdarts.cost.measure import measure_within


def test_measurements_repeat_until_time_or_count_is_reached() -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    found = measure_within(count, torch.device("cpu"), most=7)
    assert found.n == 7 and calls == 7 + 2
    assert 0 <= found.p10_s <= found.median_s <= found.p90_s < 1
    calls = 0
    assert measure_within(count, torch.device("cpu"), seconds=0).n == 1 and calls == 2

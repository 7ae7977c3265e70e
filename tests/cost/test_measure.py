"""Tests of timing: a measurement is repeated for a given time or a given number of times."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from rapdarts.cost import measure
from rapdarts.cost.latency import Check, Timing
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


def test_the_expected_time_computed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building 4 networks takes 2 s; a round takes 0.6 s, twice the sum of its measurements, 4 x 0.05 s and 4 x 0.025 s."""
    clock, calls = [0.0], []
    check = Check(2, 2, 0.02, 0.03, 1.0, 0.0, 0.0, 0.0, 0.0)
    timings = {("one", 4, 1, (8, 8)): Timing(0.03, 0.03, 0.03, 8), ("two", 4, 1, (8, 8)): Timing(0.02, 0.02, 0.02, 8)}

    def measured(_space: Any, _skeleton: Any, _device: Any, rounds: Iterable[int], networks: int) -> Any:
        calls.append(networks)
        clock[0] += 2.0 if len(calls) > 1 else 50.0  # the first measurement loads libraries
        for _ in rounds:
            clock[0] += 0.6
        return SimpleNamespace(places=timings, check=check)

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    found = measure.expected_seconds(cast(Any, None), cast(Any, None), torch.device("cpu"), rounds=40, networks=40)
    # Building 40 networks; in each of 40 rounds, two primitives four times each, and 40 networks, at half speed.
    assert found == pytest.approx(10 * 2.0 + 40 * 2 * (4 * (0.03 + 0.02) + 40 * 0.025))
    assert calls == [4, 4]

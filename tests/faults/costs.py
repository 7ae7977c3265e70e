"""Cost of a checkpoint, measured in pairs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rapdarts.training.checkpoint import save_checkpoint
from tests.faults.series import Outcome, scaled

PAIRS, NUMBERS, CADENCE, SHARE = 60, 4 * 2**20, 60.0, 0.002
"""Pairs in the full series, numbers in the saved tensor (16 MiB), default seconds between checkpoints, and the promised share."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Save a state of 16 MiB and write the same bytes plainly, in turn; compare the median with the default time between saves."""
    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"tensor": torch.randn(NUMBERS)}
    safe, plain = [], []
    for _ in range(scaled(PAIRS, scale, 5)):
        began = time.perf_counter()
        save_checkpoint(folder / "checkpoint", state, {})
        middle = time.perf_counter()
        torch.save(state, folder / "plain")
        safe.append(middle - began)
        plain.append(time.perf_counter() - middle)
    median, simple = statistics.median(safe), statistics.median(plain)
    share = median / CADENCE
    failures = [] if share < SHARE else [f"a save takes {share:.2%} of the default time between saves"]
    note = f"median {1000 * median:.0f} ms ({share:.3%} of 60 s), torch.save alone {1000 * simple:.0f} ms"
    yield Outcome("P6 checkpoint cost", "save of 16 MiB", len(safe), failures, note)

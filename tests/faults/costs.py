"""Cost of checkpoints in a real retraining: the time of a save, and that of the steps after one."""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rapdarts.cli.main import main
from rapdarts.config.experiment import Experiment
from rapdarts.files.run_files import RunFile
from rapdarts.training.run import Run
from tests.faults.series import Outcome, scaled

PAIRS = 60
"""Pairs of an epoch with a checkpoint and one without, in the full series."""

CADENCE, SHARE, SLOWER = Experiment().save_seconds, 0.002, 0.01
"""Default seconds between checkpoints; most of this time that a save may take; most by which the steps after a save may be slower."""

RETRAIN = [
    "retrain",
    "DARTS_V2",
    "digits",
    "threads=1",
    "data.fraction=0.1",
    "skeleton.layers=14",
    "skeleton.channels=28",
]
RETRAIN += ["retrain.ema=0.9", "retrain.batch=24", "retrain.drop_path=0.2"]
"""A retraining whose weights, moving averages and optimiser take about 16 MB."""


@dataclass
class Times:
    """Seconds of the saves, and of the steps by epoch, without the first step of an epoch, which comes before the save."""

    saves: list[float] = field(default_factory=list)
    steps: dict[int, list[float]] = field(default_factory=dict)

    def save(self, original: Callable[[Run], None], run: Run) -> None:
        began = time.perf_counter()
        original(run)
        self.saves.append(time.perf_counter() - began)

    def batches(self, original: Callable[[Run, Any], Iterator[Any]], run: Run, source: Any) -> Iterator[Any]:
        """Yield the batches of an epoch. In every second epoch, a checkpoint is written after the first step."""
        spent = self.steps.setdefault(run.epoch, [])
        for batch in original(run, source):
            run.save_seconds = 0.0 if run.epoch % 2 and not run.step else math.inf
            began = time.perf_counter()
            yield batch
            if run.step:
                spent.append(time.perf_counter() - began)


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Retrain with a checkpoint in every second epoch; compare the saves with the default time between them, and pairs of epochs."""
    pairs, times = scaled(PAIRS, scale, 5), Times()
    save, batches = Run.save, Run.batches
    with (
        patch.object(Run, "save", lambda run: times.save(save, run)),
        patch.object(Run, "batches", lambda run, source: times.batches(batches, run, source)),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()) as printed,
    ):
        code = main([*RETRAIN, f"retrain.epochs={2 * pairs}", f"run={folder}"])
    if code:
        raise RuntimeError(printed.getvalue())
    saves = times.saves[1:-1]  # the first and the last are not in an epoch
    median = statistics.median(saves)
    ratios = [
        statistics.median(times.steps[2 * pair + 1]) / statistics.median(times.steps[2 * pair]) for pair in range(pairs)
    ]
    slower, (low, high) = statistics.median(ratios) - 1, limits(ratios)
    failures = (
        [f"a save takes {median / CADENCE:.2%} of the default time between saves"] if median >= SHARE * CADENCE else []
    )
    failures += [f"the steps after a save take {slower:+.1%} longer"] if slower >= SLOWER else []
    size = (folder / RunFile.CHECKPOINT).stat().st_size / 1e6
    note = (
        f"a save of {size:.0f} MB, checks included, takes {1000 * median:.0f} ms (median), {median / CADENCE:.3%} of {CADENCE:g} s;"
        f" the steps after it take {slower:+.1%} (95 % interval {low - 1:+.1%} to {high - 1:+.1%}, {pairs} pairs of epochs)"
    )
    yield Outcome("P6 checkpoint cost", "saves of a retraining", len(saves), failures, note, sampled=False)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median of a population of which these are a sample, by the ranks of its values."""
    ordered = sorted(values)
    rank = max(0, math.floor(len(values) / 2 - 0.98 * math.sqrt(len(values))))
    return ordered[rank], ordered[-1 - rank]

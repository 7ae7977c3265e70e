"""Mutated files and command lines, and hostile files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import fuzzed
from tests.faults import states
from tests.faults.series import Outcome, scaled
from tests.pages import ROOT

MUTATED, STATES, SEED = 10_000, 300, 1
"""Mutated inputs and changed checkpoints in the full series, and the seed of their mutations."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Give mutated inputs to the command line in this process, then hostile ones, by their tests."""
    folder.mkdir(parents=True, exist_ok=True)
    count = scaled(MUTATED, scale, 100)
    memory = fuzzed.Memory()
    found = [f"{one.name}, {one.number}: {one.what}" for one in fuzzed.fuzz(count, folder, SEED, memory)]
    yield Outcome(
        "P5 mutated inputs", "files and command lines", count, found, f"one took at most {memory.most / 1e6:.0f} MB"
    )
    count = scaled(STATES, scale, 6)
    found, codes = states.trials(folder / "states", count, SEED)
    note = f"{codes['4']} refused, {codes['0'] + codes['5']} resumed"
    yield Outcome("P5 mutated inputs", "checkpoints with a changed state and a valid hash", count, found, note)
    from tests.whole import test_hostile_files as hostile

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/whole/test_hostile_files.py"]
    tested = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = [line for line in tested.stdout.splitlines() if line.startswith("FAILED")]
    failed = failed or ([] if tested.returncode == 0 else [tested.stdout[-300:]])
    yield Outcome("P9 hostile inputs", "refused, or taken as text", hostile.COUNT, failed)

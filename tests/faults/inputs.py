"""Mutated files and command lines, and hostile files."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import fuzzed
from tests.faults.series import Outcome, scaled
from tests.pages import ROOT

MUTATED, SEED = 10_000, 1
"""Mutated inputs in the full series, and the seed of their mutations."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Give mutated inputs to the command line in this process, then hostile ones, by their tests."""
    folder.mkdir(parents=True, exist_ok=True)
    count = scaled(MUTATED, scale, 100)
    found = [f"{one.name}, {one.number}: {one.what}" for one in fuzzed.fuzz(count, folder, SEED)]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    yield Outcome("P5 mutated inputs", "exit code 0, 2 or 4, within 5 s", count, found, f"at most {most:.2f} GB")
    from tests.whole import test_hostile_files as hostile

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/whole/test_hostile_files.py"]
    tested = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = [line for line in tested.stdout.splitlines() if line.startswith("FAILED")]
    failed = failed or ([] if tested.returncode == 0 else [tested.stdout[-300:]])
    yield Outcome("P9 hostile inputs", "refused, or taken as text", hostile.COUNT, failed)

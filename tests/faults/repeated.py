"""Faults that have tests of their own, each run several times: full disks, and jobs of two processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.faults import runs
from tests.faults.series import Outcome, scaled

TIMES = 5
"""Repetitions of every test in the full series."""

TESTS = {
    "P11 full disk": ("full disk, quota and file size limit", "tests/training/test_storage.py", ""),
    "P12 several processes": (
        "dead, hanging, missing, signalled and diverging processes",
        "tests/whole/test_distributed.py",
        "ends or missing or nan or signal or different",
    ),
}
"""For each promise, what is injected, the file with its tests, and an expression that selects them."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Run the tests again and again, each time in a new process."""
    for promise, (kind, file, expression) in TESTS.items():
        passed, failures = 0, []
        for number in range(scaled(TIMES, scale)):
            words = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-rA",
                "-m",
                "proof or not proof",
                file,
            ]
            words += ["-k", expression] if expression else []
            words += [f"--basetemp={folder / promise.split()[0] / str(number)}"]
            folder.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(
                words, cwd=runs.ROOT, env=runs.ENVIRONMENT, capture_output=True, text=True, check=False
            )
            lines = done.stdout.splitlines()
            passed += sum(line.startswith("PASSED ") for line in lines)
            failures += [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
        yield Outcome(promise, kind, max(1, passed + len(failures)), failures or ([] if passed else ["no test ran"]))

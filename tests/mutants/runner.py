"""Mutation tests: break one line in a copy of the package, and run the tests that must notice it.

This module imports nothing of the package: the tests run in forks of its process, and import the copy.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("rapdarts", "search_spaces", "experiments", "tests", "setup.cfg", "pyproject.toml")
"""Folders and files of the repository that the tests need."""

LIMIT = 300
"""Time after which the tests of a mutant are stopped, in seconds; the mutant then counts as killed."""


@dataclass(frozen=True)
class Mutant:
    """A fault in one line of a file: the text `old`, which occurs once, is replaced by `new`; `test` must fail then."""

    file: str
    what: str
    old: str
    new: str
    test: str


@dataclass(frozen=True)
class Outcome:
    """The result of the tests of a mutant: `killed`, `survived` or `broken`, the first test that failed, and the output."""

    mutant: Mutant
    state: str
    by: str
    seconds: float
    output: str = ""

    @property
    def row(self) -> list[str]:
        """The row of the outcome in the table."""
        file = self.mutant.file.removeprefix("rapdarts/")
        return [f"{self.mutant.what} ({file})", self.by or "-", self.state, f"{self.seconds:.1f}"]


HEADINGS = ["mutant", "noticed by", "result", "seconds"]

Runner = Callable[[Path, Sequence[str]], tuple[int, str]]
"""A function that runs tests in a copy of the repository and returns their exit code and output."""


def copy_repository(folder: Path) -> None:
    """Copy what the tests need into an empty folder."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "evidence"))
        else:
            shutil.copy(source, folder / name)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests in a copy of the repository until one fails; return pytest's exit code and output.

    They run in a fork of this process, which has imported torch already: that takes longer than most tests.
    """
    log, end = folder / "output", time.monotonic() + LIMIT
    child = os.fork()
    if child == 0:
        os._exit(_run_here(folder, tests, log))
    done = (0, 0)
    while done[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
        done = os.waitpid(child, os.WNOHANG)
    code = os.waitstatus_to_exitcode(done[1])
    return 1 if code == -signal.SIGKILL else code, log.read_text(encoding="utf-8", errors="replace")


def _run_here(folder: Path, tests: Sequence[str], log: Path) -> int:
    """Run tests with the modules of the copy in this process, and write their output into a file."""
    import pytest

    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    os.environ |= {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in ("rapdarts", "search_spaces", "tests")]:
        del sys.modules[name]
    return int(pytest.main(["-q", "-x", "-rf", "--tb=line", "-p", "no:cacheprovider", *tests]))


def replace_line(folder: Path, mutant: Mutant) -> str:
    """Write the fault into the copy, and return the original text of the file. Raises ValueError unless `old` is in one line."""
    path = folder / mutant.file
    original = path.read_text(encoding="utf-8")
    if original.count(mutant.old) != 1 or "\n" in mutant.old + mutant.new:
        raise ValueError(f"{mutant.file} must have exactly one line with {mutant.old!r}")
    _write_source(path, original.replace(mutant.old, mutant.new))
    return original


def _write_source(path: Path, text: str) -> None:
    """Write a source file and remove its compiled form, which Python would use if size and time in seconds are the same."""
    path.write_text(text, encoding="utf-8")
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def run_mutants(folder: Path, mutants: Sequence[Mutant], run: Runner = run_tests) -> Iterator[Outcome]:
    """Yield the outcome of each mutant in a copy of the repository, which is restored after each of them."""
    for mutant in mutants:
        original, began = replace_line(folder, mutant), time.monotonic()
        try:
            code, output = run(folder, [mutant.test])
        finally:
            _write_source(folder / mutant.file, original)
        state = {0: "survived", 1: "killed"}.get(code, "broken")
        failed = re.search(r"^FAILED \S*?(\w+\.py::.+?)(?: - .*)?$", output, re.M)
        yield Outcome(mutant, state, failed[1] if failed else "", time.monotonic() - began, output)


def report(outcomes: Sequence[Outcome]) -> str:
    """Return the table of the outcomes, a summary, and the output of tests that could not run."""
    killed = sum(outcome.state == "killed" for outcome in outcomes)
    rows = [HEADINGS, *(outcome.row for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    lines.append(f"{killed} of {len(outcomes)} mutants were killed in {minutes:.1f} minutes")
    for outcome in outcomes:
        if outcome.state == "broken":
            lines.append(f"--- {outcome.mutant.what}: the tests could not run\n{outcome.output[-2000:]}")
    return "\n".join(lines)

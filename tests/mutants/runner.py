"""Mutation tests: break one line in a copy of the package, and run the tests that must notice it.

This module imports nothing of the package: the tests run in forks of its process, and import the copy.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("rapdarts", "search_spaces", "experiments", "tests", "setup.cfg", "pyproject.toml")
"""Folders and files of the repository that the tests need."""

LIMIT = 300.0
"""Time after which the tests of a mutant are stopped, in seconds."""

STATES = ("killed", "survived", "broken", "timed out")
"""Results of tests: one failed, all passed, they could not run (an error while collecting or in a fixture), or they took too long."""

ENDS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a process by default."""


@dataclass(frozen=True)
class Mutant:
    """A fault in one line of a file: the text `old`, which occurs once, is replaced by `new`; `test` must fail then."""

    file: str
    what: str
    old: str
    new: str
    test: str


@dataclass(frozen=True)
class Result:
    """The result of tests: one of `STATES`, the first failure (test and type of the error), and the output of pytest."""

    state: str
    by: str = ""
    output: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of the tests of a mutant, and the time that they took."""

    mutant: Mutant
    result: Result
    seconds: float

    @property
    def row(self) -> list[str]:
        """The row of the outcome in the table."""
        file = self.mutant.file.removeprefix("rapdarts/")
        return [f"{self.mutant.what} ({file})", self.result.by or "-", self.result.state, f"{self.seconds:.1f}"]


HEADINGS = ["mutant", "noticed by", "result", "seconds"]

Runner = Callable[[Path, Sequence[str]], Result]
"""A function that runs tests in a copy of the repository."""


class Notice:
    """A plugin of pytest that tells a test that fails from one that could not run; pytest's exit code is 1 for both.

    A test fails in its own body, or by an assertion in one of its fixtures.
    """

    def __init__(self) -> None:
        """Begin without a failure."""
        self.state, self.by = "survived", ""

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        """Keep the first failure."""
        if self.by:
            return
        noticed = getattr(report, "when", "collect") == "call" or call.excinfo.errisinstance(AssertionError)
        file, _, name = node.nodeid.partition("::")
        self.state = "killed" if noticed else "broken"
        self.by = f"{Path(file).name}::{name} ({call.excinfo.typename})"


def copy_repository(folder: Path) -> None:
    """Copy what the tests need into an empty folder."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "evidence"))
        else:
            shutil.copy(source, folder / name)


def run_tests(folder: Path, tests: Sequence[str], limit: float = LIMIT) -> Result:
    """Run tests in a copy of the repository until one fails, for at most `limit` seconds.

    They run in a fork of this process, which has imported torch already: that takes longer than most tests. The fork leads
    a process group, which is killed at the end, so that nothing that the tests started outlives them.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _run_here(folder, tests, writer)
    try:
        os.close(writer)
        in_time = bool(select.select([reader], [], [], limit)[0])
        # Empty if the process ended without a result: it crashed.
        message = os.read(reader, 1 << 16) if in_time else b""
    finally:
        _kill(child)
        os.close(reader)
    output = (folder / "output").read_text(encoding="utf-8", errors="replace")
    state, by = json.loads(message) if message else ("broken" if in_time else "timed out", "")
    return Result(state, by, output)


def _kill(child: int) -> None:
    """Kill a fork of this process and everything in its process group."""
    # It may not have become the leader of its group yet.
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def exit_on_signals() -> None:
    """Exit as after Ctrl-C if a signal asks this process to end: by default it would leave the tests running."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for name in ENDS:
        # A signal may be ignored, as with nohup.
        if signal.getsignal(name) == signal.SIG_DFL:
            signal.signal(name, leave)


def _run_here(folder: Path, tests: Sequence[str], writer: int) -> None:
    """Run tests with the modules of the copy, write state and first failure into a pipe, and end this process."""
    try:
        os.setpgid(0, 0)
        for name in ENDS:
            if callable(signal.getsignal(name)):
                signal.signal(name, signal.SIG_DFL)
        os.write(writer, json.dumps(_run_pytest(folder, tests)).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _run_pytest(folder: Path, tests: Sequence[str]) -> tuple[str, str]:
    """Run tests with the modules of the copy, write their output into a file, and return state and first failure."""
    import pytest

    with open(folder / "output", "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    os.environ |= {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in ("rapdarts", "search_spaces", "tests")]:
        del sys.modules[name]
    notice = Notice()
    code = pytest.main(["-q", "-x", "-rfE", "--tb=line", "-p", "no:cacheprovider", *tests], [notice])
    # Without a failure, a code means that pytest itself could not run the tests, for example because one does not exist.
    return (notice.state if notice.by or not code else "broken"), notice.by


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
            result = run(folder, [mutant.test])
        finally:
            _write_source(folder / mutant.file, original)
        yield Outcome(mutant, result, time.monotonic() - began)


def report(outcomes: Sequence[Outcome]) -> str:
    """Return the table of the outcomes, a summary, and the output of tests that could not run or did not end."""
    rows = [HEADINGS, *(outcome.row for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    counts = Counter(outcome.result.state for outcome in outcomes)
    others = "".join(f", {counts[state]} {state}" for state in STATES[1:] if counts[state])
    lines.append(f"{counts['killed']} of {len(outcomes)} mutants were killed in {minutes:.1f} minutes{others}")
    for outcome in outcomes:
        if outcome.result.state in ("broken", "timed out"):
            lines.append(f"--- {outcome.mutant.what}: {outcome.result.state}\n{outcome.result.output[-2000:]}")
    return "\n".join(lines)

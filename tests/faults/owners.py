"""Two processes in one run folder, restarts right after a kill, and the same command several times."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from rapdarts.files.run_files import RunFile
from tests.faults import runs
from tests.faults.series import Outcome, scaled

STARTS, RESTARTS, REPEATS = 100, 50, 10
"""Double starts, restarts after a kill, and equal runs in the full series."""

IN_USE, TAKEN = 3, 2
"""Exit codes of a command whose run folder is in use, and of one whose run folder already holds a run."""

PREEMPTED = 75
"""Exit code of a run that a signal has stopped."""

PATIENCE = 300.0
"""Seconds after which two processes are killed that have not ended."""

WITHIN = 1.0
"""Seconds within which a command is refused because the folder is in use, besides the time that it takes to start."""

SEVERAL = 10
"""Number of double starts after which the time that two commands take to start is measured again."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Start everything twice; restart right after a kill; repeat one run."""
    yield double_starts(folder / "twice", scaled(STARTS, scale))
    yield restarts(folder / "again", scaled(RESTARTS, scale))
    yield repeats(folder / "same", scaled(REPEATS, scale, 2))


def double_starts(folder: Path, count: int) -> Outcome:
    """Start a run in the same new folder from two processes at once: exactly one proceeds, the other one is refused without waiting."""
    failures, refused, starts = list[str](), dict[int, float](), list[float]()
    for trial in range(count):
        if trial % SEVERAL == 0:
            starts += start_twice(folder / f"taken-{trial}")
        codes, taken = pair(runs.command("search", folder / str(trial)))
        if sorted(codes) not in ([IN_USE, PREEMPTED], [0, IN_USE]):
            failures.append(f"pair {trial}: exit codes {sorted(codes)}")
        elif taken is not None:
            refused[trial] = taken
    limit = max(starts) + WITHIN
    failures += [f"pair {trial}: refused after {taken:.1f} s" for trial, taken in refused.items() if taken > limit]
    slowest = max(refused.values(), default=0.0)
    note = f"refused after {slowest:.1f} s at the latest; the limit is {limit:.1f} s, of which {max(starts):.1f} s are for two starts"
    return Outcome("P10 one owner", "two starts in one folder", count, failures, note)


def start_twice(folder: Path) -> list[float]:
    """Return the seconds until two commands are refused that are started at once in a folder that holds a run."""
    folder.mkdir(parents=True)
    (folder / RunFile.RESULT).touch()
    began, ended = time.monotonic(), []
    for process in [runs.start(runs.command("search", folder)) for _ in range(2)]:
        _, printed = process.communicate()
        ended.append(time.monotonic() - began)
        if process.returncode != TAKEN:
            raise RuntimeError(printed)
    return ended


def pair(words: list[str]) -> tuple[list[int], float | None]:
    """Start a command twice at once, and stop one when the other is refused; return the exit codes and the seconds until the refusal."""
    began, processes, refused = time.monotonic(), [runs.start(words) for _ in range(2)], None
    while any(process.poll() is None for process in processes) and time.monotonic() - began < PATIENCE:
        for process, other in (processes, processes[::-1]):
            if refused is None and process.poll() == IN_USE:
                refused = time.monotonic() - began
                os.killpg(other.pid, signal.SIGTERM)  # it proceeds, and need not finish
        time.sleep(0.02)
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    return [process.returncode for process in processes], refused


def restarts(folder: Path, count: int) -> Outcome:
    """Kill a run, and resume it at once: the lock of the dead process never stands in the way."""
    failures: list[str] = []
    words = runs.command("search", folder / "run", "save_seconds=0", "search.epochs=1000")
    for trial in range(count):
        process = runs.start([*words, "resume=true"] if trial else words)
        record, deadline = folder / "run" / "metrics.jsonl", time.monotonic() + 120
        lines = record.read_bytes().count(b"\n") if record.exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            if record.exists() and record.read_bytes().count(b"\n") > lines:
                break
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        _, printed = process.communicate()
        if process.returncode != -signal.SIGKILL:
            failures.append(f"restart {trial} ended with {process.returncode}: {printed[-300:]}")
    return Outcome("P10 one owner", "restart right after a kill", count, failures)


def repeats(folder: Path, count: int) -> Outcome:
    """Run the same command in several folders, and compare all bits."""
    prints = []
    for trial in range(count):
        code, printed = runs.finish(runs.command("search with a budget", folder / str(trial)))
        prints.append(runs.fingerprint(folder / str(trial)) if code == 0 else printed)
    failures = [f"run {trial} differs from the first" for trial, one in enumerate(prints) if one != prints[0]]
    return Outcome("P13 repeatability", "the same search on the same machine", count, failures)

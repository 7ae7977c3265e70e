"""Two processes in one run folder, restarts right after a kill, and the same command several times."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import runs
from tests.faults.series import Outcome, scaled

STARTS, RESTARTS, REPEATS = 100, 50, 10
"""Double starts, restarts after a kill, and equal runs in the full series."""

IN_USE = 3
"""Exit code of a command whose run folder is in use."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Start everything twice; restart right after a kill; repeat one run."""
    yield double_starts(folder / "twice", scaled(STARTS, scale))
    yield restarts(folder / "again", scaled(RESTARTS, scale))
    yield repeats(folder / "same", scaled(REPEATS, scale, 2))


def double_starts(folder: Path, count: int) -> Outcome:
    """Start a run in the same new folder from two processes at once: exactly one proceeds, the other one is refused."""
    failures, refused = [], []
    for trial in range(count):
        words = runs.command("search", folder / str(trial))
        began, pair = time.monotonic(), [runs.start(words) for _ in range(2)]
        codes: dict[int, int | None] = {}
        while len(codes) < 2 and time.monotonic() - began < 300:
            for number, process in enumerate(pair):
                if number not in codes and process.poll() is not None:
                    codes[number] = process.returncode
                    if process.returncode == IN_USE:
                        refused.append(time.monotonic() - began)
                        os.killpg(pair[1 - number].pid, signal.SIGTERM)  # the other one proceeds; it need not finish
            time.sleep(0.02)
        for process in pair:
            process.communicate()
        if sorted(code or 0 for code in codes.values()) not in ([IN_USE, 75], [0, IN_USE]):
            failures.append(f"pair {trial}: exit codes {sorted(map(str, codes.values()))}")
    slowest = f"refused {max(refused):.1f} s after the start at the latest, imports included" if refused else ""
    return Outcome("P10 one owner", "two starts in one folder", count, failures, slowest)


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

"""Runs that are killed at random moments and resumed: their results must be those of runs that were never stopped."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import runs
from tests.faults.series import Outcome, say, scaled

RUNS, KILLS = 5, 5
"""Runs of each kind, and kills of each run, in the full series."""

SAVING = ("save_seconds=0", "save_seconds=0.5", "save_seconds=60")
"""Times between checkpoints, in turn: after every step, sometimes, and only where a stage ends."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Kill runs of every kind at random moments, with one and with two threads, until each has been killed often enough."""
    count = scaled(RUNS, scale)
    search = folder / "searched"
    code, printed = runs.finish(runs.command("search", search))
    if code:
        raise RuntimeError(printed)
    for kind in runs.KINDS:
        kills, failures = 0, []
        for number in range(count):
            threads = f"threads={1 + number % 2}"
            place = folder / f"{list(runs.KINDS).index(kind)}-{number}"
            said, killed = killed_run(kind, place, search, [threads, f"seed={number}"], number)
            kills += killed
            failures += [f"{kind}, run {number}: {one}" for one in said]
        say(f"{kind}: {count} runs, {kills} kills, {len(failures)} failures")
        yield Outcome("P1 exact resume", f"{kind}, {count} runs", kills, failures)


def killed_run(kind: str, place: Path, search: Path, keys: list[str], number: int) -> tuple[list[str], int]:
    """Kill one run several times, finish it, and compare it with a run that was never stopped.

    Return what failed, and the number of kills. A run that ends before it is killed is not killed again.
    """
    generator = random.Random(f"{kind} {number}")
    began = time.monotonic()
    code, printed = runs.finish(runs.command(kind, place / "whole", *keys, search=search))
    if code:
        return [f"the run that was never stopped ended with {code}: {printed[-500:]}"], 0
    seconds = time.monotonic() - began
    words = runs.command(kind, place / "killed", *keys, SAVING[number % len(SAVING)], search=search)
    kills = 0
    while kills < KILLS:
        process = runs.start([*words, "resume=true"] if (place / "killed").exists() else words)
        time.sleep(generator.uniform(0.1, 1.0) * seconds)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    else:
        process = runs.start([*words, "resume=true"])
    _, printed = process.communicate(timeout=600)
    if process.returncode:
        return [f"a restart ended with {process.returncode}: {printed[-500:]}"], kills
    whole, killed = runs.fingerprint(place / "whole"), runs.fingerprint(place / "killed")
    differing = sorted(name for name in whole.keys() | killed.keys() if whole.get(name) != killed.get(name))
    return ([f"differs in {', '.join(differing)}"] if differing else []), kills

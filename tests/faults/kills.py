"""Runs that are killed at random moments and resumed: their results must be those of runs that were never stopped."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import runs
from tests.faults.series import Outcome, say, scaled

RUNS, LONG, KILLS = 5, {"find": 2, "search with replicas": 4, "second-order search": 4}, 5
"""Runs of each kind, or fewer where they take long, and kills of each run, in the full series: 200 kills of 40 runs."""

LATEST, EARLIER = 0.8, 0.7
"""Latest moment of a kill, as a share of the time of a whole run, and its factor after a run that ended before it was killed."""

SAVING = ("save_seconds=0", "save_seconds=0.5", "save_seconds=60")
"""Times between checkpoints, in turn: after every step, sometimes, and only where a stage ends."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Kill runs of every kind at random moments, with one and with two threads, until each has been killed often enough."""
    search = folder / "searched"
    code, printed = runs.finish(runs.command("search", search))
    if code:
        raise RuntimeError(printed)
    for kind in runs.KINDS:
        full, kills, failures = LONG.get(kind, RUNS), 0, list[str]()
        count, total = scaled(full, scale), scaled(full * KILLS, scale)
        for number in range(count):
            threads = f"threads={1 + number % 2}"
            place = folder / f"{list(runs.KINDS).index(kind)}-{number}"
            said, killed = killed_run(
                kind, place, search, [threads, f"seed={number}"], number, math.ceil(total / count)
            )
            kills += killed
            failures += [f"{kind}, run {number}: {one}" for one in said]
        if kills < total:
            failures.append(f"{kind}: only {kills} of {total} kills took place")
        say(f"{kind}: {count} runs, {kills} kills, {len(failures)} failures")
        yield Outcome("P1 exact resume", kind, kills, failures, f"kills of {count} runs")


def killed_run(
    kind: str, place: Path, search: Path, keys: list[str], number: int, wanted: int
) -> tuple[list[str], int]:
    """Kill one run `wanted` times, finish it, and compare it with a run that was never stopped.

    A run that ends before it is killed is compared as well, and started anew; it is then killed earlier. Return what failed, and
    the number of kills.
    """
    generator, kills, latest = random.Random(f"{kind} {number}"), 0, LATEST
    began = time.monotonic()
    code, printed = runs.finish(runs.command(kind, place / "whole", *keys, search=search))
    if code:
        return [f"the run that was never stopped ended with {code}: {printed[-500:]}"], 0
    seconds, expected = time.monotonic() - began, runs.fingerprint(place / "whole")
    words = runs.command(kind, place / "killed", *keys, SAVING[number % len(SAVING)], search=search)
    while True:
        process = runs.start([*words, "resume=true"] if (place / "killed").exists() else words)
        if kills < wanted:
            time.sleep(generator.uniform(0.1, 1.0) * latest * seconds)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
                continue
        _, printed = process.communicate(timeout=600)
        if process.returncode:
            return [f"a restart ended with {process.returncode}: {printed[-500:]}"], kills
        if differing := runs.differing(expected, runs.fingerprint(place / "killed")):
            return [f"differs in {', '.join(differing)}"], kills
        if kills == wanted:
            return [], kills
        latest *= EARLIER
        shutil.rmtree(place / "killed")

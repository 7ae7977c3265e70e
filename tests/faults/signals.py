"""Signals at random moments of every kind of run: answered within seconds, with everything saved."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import runs
from tests.faults.series import Outcome, say, scaled

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
COUNT = 200
"""Signals in the full series."""

WITHIN = 2.0
"""Seconds within which a signal is answered, beside the time of a step, which these runs take in far less."""

STARTED = 1.0
"""Seconds after which a process handles signals: Python and the command line have started."""

PREEMPTED = 75
"""Exit code of a run that a signal has stopped."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Send signals to runs of every kind, each in turn, until they are stopped; then finish the runs and compare their results."""
    search = folder / "searched"
    runs.finish(runs.command("search", search))
    each = scaled(COUNT / len(runs.KINDS), scale)
    trials, failures, taken = 0, [], []
    for kind in runs.KINDS:
        place, generator = folder / str(list(runs.KINDS).index(kind)), random.Random(kind)
        began = time.monotonic()
        runs.finish(runs.command(kind, place / "whole", search=search))
        seconds, expected = time.monotonic() - began, runs.fingerprint(place / "whole")
        sent = 0
        for number in range(10 * each):
            if sent == each:
                break
            words = runs.command(kind, place / str(number), search=search)
            code, answered, printed = interrupted(words, STARTED + generator.random() * seconds, SIGNALS[sent % 4])
            if answered is None:
                continue  # the run had ended
            sent += 1
            taken.append(answered)
            if code not in (PREEMPTED, 0) or answered > WITHIN:
                failures.append(
                    f"{kind}: {SIGNALS[(sent - 1) % 4].name}: exit code {code} after {answered:.1f} s: {printed[-300:]}"
                )
            code, printed = runs.finish([*words, "resume=true"])
            if code or runs.fingerprint(place / str(number)) != expected:
                failures.append(f"{kind}: resumed with exit code {code}, and with other results: {printed[-300:]}")
        trials += sent
        say(f"{kind}: {sent} signals, {len(failures)} failures so far")
    taken.sort()
    note = f"median {taken[len(taken) // 2]:.2f} s, 95 % within {taken[int(0.95 * len(taken))]:.2f} s, at most {taken[-1]:.2f} s"
    yield Outcome("P7 signals", "TERM, INT, HUP and USR1 at random moments", trials, failures, note)


def interrupted(words: list[str], after: float, number: signal.Signals) -> tuple[int, float | None, str]:
    """Start a run and send a signal after some seconds; return its exit code, the seconds until it ended, and what it printed.

    The seconds are None if it had ended before the signal.
    """
    process = runs.start(words)
    time.sleep(after)
    if process.poll() is not None:
        process.communicate()
        return process.returncode, None, ""
    began = time.monotonic()
    os.kill(process.pid, number)
    _, printed = process.communicate(timeout=120)
    return process.returncode, time.monotonic() - began, printed

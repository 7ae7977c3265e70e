"""Signals in every phase of every command: answered within seconds, with everything saved."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import SIGNALS
from tests.faults import runs
from tests.faults.series import Outcome, say, scaled

COUNT, LONG = 200, {"find": 8, "deriving": 12}
"""Signals in the full series, and in phases that come late."""

WITHIN, STEP = 2.0, 0.2
"""Seconds within which a signal is answered, and those that a training step takes at most in these runs."""

MARGIN = 3.0
"""Seconds that a command would go on after the latest signal, so that one that ignores it does not end in time."""

TIMEOUT = 60.0
"""Seconds after which a command is killed."""

PREEMPTED = 75
"""Exit code of a command that a signal has stopped."""

SAMPLE = 10
"""Number of interrupted runs of which the first is finished and compared with a run that was never stopped."""

TEST_IMAGES = 40_000
"""Images on which the network is tested, which takes several seconds."""

SHORT = [
    "search.layers=[3]",
    "search.candidates=[0]",
    "search.skip_dropout=[0.3]",
    "search.epochs=1",
    "search.warmup_epochs=0",
]
RETRAIN = ["retrain", "DARTS_V2", "data.name=npz", "data.path={images}", *runs.TRAINING[1:], "threads=1"]

COMMANDS: dict[str, list[str]] = {
    "search": [*runs.KINDS["search"], "search.epochs=4", "search.warmup_epochs=2"],
    "large search": [*runs.KINDS["search"], *SHORT, "skeleton.layers=200"],
    "retrain": [*RETRAIN, "retrain.epochs=10"],
    "test": [*RETRAIN, "retrain.epochs=1"],
    "rank": [*runs.KINDS["ranking"], "rank.epochs=10"],
    "random": [*runs.KINDS["random baseline"], "retrain.epochs=10"],
    "find": runs.KINDS["find"],
    "evaluate": ["evaluate", "{network}", "threads=1"],
    "export": ["export", "{network}", "to=onnx"],
}
"""Commands without the place that they write to. `{search}` and `{network}` are the folders of finished runs, `{images}` a file."""

WRITES = {"evaluate": "", "export": "out="}
"""Keys of the file that a command writes, for commands without a run folder."""

HANDLED, FOLDER, STEPS, RECORDED, END = "handlers", "folder", "steps", "records", "end"
"""Events in the course of a command: it handles signals, has a run folder, takes steps, has recorded all epochs, ends."""

PHASES = {
    "reading the data and opening the folder": ("search", HANDLED, FOLDER),
    "search steps and the next supernet": ("search", STEPS, RECORDED),
    "counting costs and building a supernet": ("large search", FOLDER, STEPS),
    "deriving": ("large search", RECORDED, END),
    "retraining": ("retrain", STEPS, RECORDED),
    "testing the network": ("test", RECORDED, END),
    "ranking": ("rank", STEPS, RECORDED),
    "random baseline": ("random", STEPS, RECORDED),
    "find": ("find", HANDLED, END),
    "evaluate": ("evaluate", HANDLED, END),
    "export": ("export", HANDLED, END),
}
"""Commands, and the events at which their phases begin and end."""


@dataclass
class Whole:
    """A command that no signal stops: the seconds from its start to its events, its records, and what it has computed."""

    times: dict[str, float] = field(default_factory=dict)
    records: int = 0
    expected: dict[str, object] = field(default_factory=dict)


@dataclass
class Tally:
    """The results of all trials."""

    taken: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    compared: int = 0


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Send signals in every phase, spread evenly over its duration; finish and compare one in ten of the interrupted runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for (
        number
    ) in SIGNALS:  # a job started by nohup or in the background ignores some, and its commands would do the same
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    save_images(folder / "images.npz")
    known: dict[str, Whole] = {}
    each, tally = math.ceil((COUNT - sum(LONG.values())) / (len(PHASES) - len(LONG))), Tally()
    for phase, (command, begins, ends) in PHASES.items():
        if command not in known:
            known[command] = uninterrupted(command, folder)
        interrupt(phase, command, (begins, ends), known[command], folder, scaled(LONG.get(phase, each), scale), tally)
        say(f"{phase}: {len(tally.taken)} signals, {len(tally.failures)} failures so far")
    yield Outcome("P7 signals", "TERM, INT, HUP and USR1 in every phase", len(tally.taken), tally.failures, note(tally))


def note(tally: Tally) -> str:
    """Return the times until the signals were answered, and the number of runs that were compared, as text."""
    if not tally.taken:
        return ""
    taken = sorted(tally.taken)
    late = taken[min(len(taken) - 1, math.ceil(0.95 * len(taken)) - 1)]
    times = f"median {taken[len(taken) // 2]:.2f} s, 95 % within {late:.2f} s, at most {taken[-1]:.2f} s"
    return f"{len(PHASES)} phases; {times}; {tally.compared} of the interrupted runs were finished and compared"


def save_images(path: Path) -> None:
    """Write a data set with few training images and many test images."""
    rng = np.random.default_rng(0)
    count = TEST_IMAGES + 200
    pixels = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    np.savez(path, x=pixels, y=np.arange(count) % 10, test=np.arange(count) >= 200)


def words_of(command: str, folder: Path, place: Path) -> list[str]:
    """Return the words of a command that writes to `place`."""
    places = {"search": folder / "search", "network": folder / "retrain", "images": folder / "images.npz"}
    words = [word.format(**places) for word in COMMANDS[command]]
    key = WRITES.get(command, "run=")
    return [*runs.PROGRAM, *words, *([f"{key}{place}"] if key else [])]


def uninterrupted(command: str, folder: Path) -> Whole:
    """Run a command to its end, and observe when its phases begin."""
    found, place = Whole(), folder / command
    process, began = runs.start(words_of(command, folder, place)), time.monotonic()
    while process.poll() is None:
        now = time.monotonic() - began
        for event in (HANDLED, FOLDER, STEPS):
            if event not in found.times and happened(event, process, place, 0):
                found.times[event] = now
        if (count := records(place)) > found.records:
            found.records, found.times[RECORDED] = count, now
        time.sleep(0.01)
    found.times[END] = time.monotonic() - began
    _, printed = process.communicate()
    if process.returncode:
        raise RuntimeError(printed)
    found.expected = runs.fingerprint(place) if place.is_dir() else {}
    return found


def happened(event: str, process: subprocess.Popen[str], place: Path, count: int) -> bool:
    """Return whether an event has happened in a process that writes to `place`, where `count` is the number of all its records."""
    if event == HANDLED:
        try:
            caught = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").partition("SigCgt:")[2].split()
        except OSError:  # it has ended
            return False
        return bool(caught and int(caught[0], 16) >> (signal.SIGTERM - 1) & 1)
    if event == RECORDED:
        return records(place) >= count
    return (place / (RunFile.ENVIRONMENT if event == FOLDER else RunFile.CHECKPOINT)).exists()


def records(place: Path) -> int:
    """Return the number of records of a run."""
    path = place / RunFile.METRICS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def interrupt(
    phase: str, command: str, events: tuple[str, str], known: Whole, folder: Path, count: int, tally: Tally
) -> None:
    """Send `count` signals in a phase, each to a process of its own."""
    begins, ends = (known.times[event] for event in events)
    duration = min(ends, known.times[END] - MARGIN) - begins
    if duration <= 0:
        tally.failures.append(f"{phase}: the command goes on for less than {MARGIN:g} s")
        return
    generator, sent = random.Random(phase), 0
    for trial in range(3 * count):
        if sent == count:
            return
        place = folder / f"{list(PHASES).index(phase)}-{trial}"
        words, number = words_of(command, folder, place), SIGNALS[sent % len(SIGNALS)]
        moment = (sent + generator.random()) / count * duration
        code, taken, printed = answer(words, place, events[0], known.records, moment, number)
        if taken is None or (code == 0 and taken < WITHIN):
            continue  # it had ended, or was about to: it was faster than the run that was never stopped
        sent += 1
        tally.taken.append(taken)
        what = f"{phase}, {number.name} after {moment:.1f} s"
        if code != PREEMPTED or taken > WITHIN + STEP or "Traceback" in printed:
            tally.failures.append(f"{what}: exit code {code} after {taken:.1f} s: {printed[-300:]}")
        else:
            tally.failures += [f"{what}: {one}" for one in kept(command, words, place, known, tally)]
    if sent < count:
        tally.failures.append(f"{phase}: only {sent} of {count} signals were sent before the command ended")


def answer(
    words: list[str], place: Path, begins: str, count: int, moment: float, number: signal.Signals
) -> tuple[int, float | None, str]:
    """Start a command, and send a signal some time after an event; return its exit code, the seconds until it ended, and its messages.

    The seconds are None if it had ended before the signal.
    """
    process = runs.start(words)
    while process.poll() is None and not happened(begins, process, place, count):
        time.sleep(0.01)
    time.sleep(moment)
    if process.poll() is not None:
        return process.returncode, None, process.communicate()[1]
    began = time.monotonic()
    os.kill(process.pid, number)
    try:
        _, printed = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, printed = process.communicate()
    return process.returncode, time.monotonic() - began, printed


def kept(command: str, words: list[str], place: Path, known: Whole, tally: Tally) -> Iterator[str]:
    """Yield what is wrong with the files of an interrupted command. Finish and compare one in SAMPLE of the runs."""
    if left := sorted(path.name for path in place.parent.rglob("*.tmp")):
        yield f"it left {', '.join(left)}"
    if command in WRITES:
        if left := sorted(path.name for path in place.parent.glob(f"{place.name}*")):
            yield f"it was stopped, and left {', '.join(left)}"
    elif len(tally.taken) % SAMPLE == 1:
        tally.compared += 1
        code, printed = runs.finish([*words, "resume=true"] if place.exists() else words)
        if code:
            yield f"resumed with exit code {code}: {printed[-300:]}"
        elif differing := runs.differing(known.expected, runs.fingerprint(place)):
            yield f"resumed, and differs in {', '.join(differing)}"

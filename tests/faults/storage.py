"""Storage errors planted in system calls of a short training: nothing saved is lost; the run goes on or ends with exit code 6."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rapdarts.errors import RapdartsError
from rapdarts.files.run_files import RunFile
from rapdarts.training import checkpoint
from rapdarts.training.packing import unpack
from rapdarts.training.run import MOST_FAILURES
from tests import full_disk
from tests.faults.series import Outcome, scaled
from tests.faults.system import Call, told

ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO)
EACH = 50
"""Injections of every error in the full series, in turn at every file and operation."""

SAVED = (RunFile.CHECKPOINT, RunFile.CHECKPOINT_BEFORE)
STEPS = full_disk.EPOCHS * full_disk.Numbers.steps
STORAGE = 6
"""Exit code of a run that could not write a file."""

Site = tuple[str, str]
"""A file of a run, and an operation on it."""


@dataclass
class Fault:
    """An error in the calls from `first` to `last` at one site; the calls at all sites are counted."""

    site: Site = ("", "")
    first: int = 0
    last: int = 0
    number: int = 0
    calls: Counter[Site] = field(default_factory=Counter)
    failed: int = 0
    renamed: str = ""

    @property
    def persists(self) -> bool:
        return self.last > self.first + 1

    def __call__(self, call: Call) -> None:
        """Count a call, and raise the error if it is its turn."""
        if call.operation == "rename":
            self.renamed = call.file
        site = self.renamed if call.operation == "sync of the folder" else call.file, call.operation
        place = self.calls[site]
        self.calls[site] += 1
        if site == self.site and self.first <= place < self.last:
            self.failed += 1
            path = str(call.path) if call.operation in ("open", "open again", "rename") else None
            raise OSError(self.number, os.strerror(self.number), path)


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Plant each error at each file and operation in turn, for one call or for all later ones; judge and resume each run."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = Fault()
    code, printed, _ = trained(folder / "whole", whole)
    if code:
        raise RuntimeError(printed)
    sites = [*whole.calls]
    for number in ERRORS:
        generator, failures = random.Random(number), list[str]()
        count = scaled(EACH, scale)
        order = generator.sample(sites, len(sites))
        for trial in range(count):
            site, persists = order[trial % len(order)], bool(generator.randrange(2))
            first = generator.randrange(whole.calls[site])
            fault = Fault(site, first, 10**9 if persists else first + 1, number)
            what = f"{os.strerror(number)} at {site[1]} {first} of {site[0]}{' and all later ones' if persists else ''}"
            place = folder / f"{number}-{trial}"
            failures += [f"{what}: {one}" for one in wrong(place, fault, whole.calls[site])]
            shutil.rmtree(place, ignore_errors=True)
        yield Outcome("P11 storage errors", os.strerror(number), count, failures, f"{len(sites)} files and operations")


def trained(folder: Path, fault: Fault, resume: bool = False) -> tuple[int, str, list[float]]:
    """Train with a planted error; return the exit code, the messages and the weights in all states that were reported as saved."""
    saved: list[float] = []
    save = checkpoint.save_packed

    def saving(path: Path, packed: Any, origin: Any) -> None:
        save(path, packed, origin)
        saved.append(weight(unpack(deepcopy(packed))))

    with told(fault), patch.object(checkpoint, "save_packed", saving), redirect_stderr(io.StringIO()) as printed:
        code = full_disk.train(folder, resume)
    return code, printed.getvalue(), saved


def weight(state: Any) -> float:
    """Return the number of steps that a state has taken, by its weights; -1 if they differ from each other."""
    weights = state["objects"]["things"]["weights"]
    return float(weights[0]) if bool((weights == weights[0]).all()) else -1.0


def wrong(folder: Path, fault: Fault, calls: int) -> Iterator[str]:
    """Train with a planted error, and yield what is wrong; `calls` is the number of calls at its place in a run without it."""
    code, printed, saved = trained(folder, fault)
    expected = expected_code(fault, calls)
    if not fault.failed:
        yield "it did not occur"
    if code != expected:
        yield f"exit code {code} instead of {expected}: {printed[-300:]}"
    if "Traceback" in printed:
        yield "a traceback"
    yield from silent(folder, fault, calls, code, printed)
    yield from lost(folder, code, saved)
    if code:
        again, printed, _ = trained(folder, Fault(), resume=True)
        if again:
            yield f"resumed with exit code {again}: {printed[-300:]}"
        yield from lost(folder, again, saved)


def expected_code(fault: Fault, calls: int) -> int:
    """Return the exit code of a run with a planted error; `calls` is the number of calls at its place in a run without it."""
    file, operation = fault.site
    if file in SAVED:
        return (
            STORAGE if fault.persists or fault.first == calls - 1 else 0
        )  # after the last save, no later one can succeed
    if file == RunFile.METRICS and operation == "append":
        return 0
    if file == RunFile.STATUS:  # if it cannot be replaced, it is overwritten, if it is there
        return 0 if fault.first or operation == "sync of the folder" else STORAGE
    return STORAGE


def silent(folder: Path, fault: Fault, calls: int, code: int, printed: str) -> Iterator[str]:
    """Yield what the messages of a run with a planted error do not say."""
    file = fault.site[0]
    if not (code or file in SAVED):
        return  # a record is written later, and the status is written in place
    path = str(folder / (RunFile.CHECKPOINT if file in SAVED else file))
    for words in (path, os.strerror(fault.number)):
        if words not in printed:
            yield f"the messages do not contain {words!r}: {printed[-300:]}"
    failures = min(MOST_FAILURES - 1, calls - fault.first) if fault.persists else 1
    for number in range(1, failures + 1 if file in SAVED else 1):
        if f"(failure {number} of {MOST_FAILURES})" not in printed:
            yield f"failure {number} was not reported: {printed[-300:]}"


def lost(folder: Path, code: int, saved: list[float]) -> Iterator[str]:
    """Yield what is missing or left over in a folder after a run."""
    if left := [path.name for path in folder.rglob("*.tmp")]:
        yield f"it left {', '.join(left)}"
    try:
        found = checkpoint.load_checkpoint(folder / RunFile.CHECKPOINT, {})
    except RapdartsError as error:
        yield str(error)
        return
    newest = weight(found[0]) if found else -1.0
    if (found and (newest < 0 or found[1])) or newest < max(saved, default=-1.0):
        yield f"the checkpoint is of step {newest}, and {saved[-1:]} was reported as saved: {found and found[1]}"
    path = folder / RunFile.STATUS
    if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("exit_code", code) != code:
        yield f"its status is {path.read_text(encoding='utf-8').strip()}"
    if code == 0 and (newest, len(lines := (folder / RunFile.METRICS).read_text().splitlines())) != (
        STEPS,
        full_disk.EPOCHS,
    ):
        yield f"it ended at step {newest}, with {len(lines)} records"

"""Raw results: one JSON file per task under experiments/evidence, every row with its command, date, machine and CPU time."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rapdarts.cost.latency import device_name
from rapdarts.files.atomic import write_atomically
from rapdarts.training.device import training_device

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "evidence"
WORK = ROOT / "runs" / "evidence"
"""Folder for temporary data and runs."""

Rows = dict[str, Any]


def load(task: str) -> Rows:
    """Return the results of a task.

    The keys are `searches` (by variant and seed), `cells` (of a bank) and `trained` (accuracies by genotype and seed). Some
    tasks also have `naswot`, `budgeted`, `find`, `recipes` and `pace`.
    """
    file = FOLDER / f"{task}.json"
    empty: Rows = {"searches": {}, "cells": [], "trained": {}}
    return empty | (json.loads(file.read_text(encoding="utf-8")) if file.exists() else {})


def save(task: str, rows: Rows) -> None:
    """Write the results of a task, one row per line."""
    write_atomically(FOLDER / f"{task}.json", _text(rows, 0) + "\n")


def keep(task: str, value: Any, *place: str) -> None:
    """Write one result of a task under a path of keys, without losing results that other processes write at the same time."""
    with _alone():
        _keep(task, value, place)


def begin(task: str, value: Any, *place: str) -> Any:
    """Return the result of a task under a path of keys; set it to `value` first if there is none."""
    with _alone():
        level: Any = load(task)
        for name in place:
            level = level.get(name, {})
        if level:
            return level
        _keep(task, value, place)
    return value


def _keep(task: str, value: Any, place: Sequence[str]) -> None:
    """Read the results of a task, set one of them, and write them back."""
    rows = load(task)
    level = rows
    for name in place[:-1]:
        level = level.setdefault(name, {})
    level[place[-1]] = value
    if all(name.isdecimal() for name in level):  # sort seeds, which finish in any order
        ordered = sorted(level.items(), key=lambda item: int(item[0]))
        level.clear()
        level.update(ordered)
    save(task, rows)


@contextmanager
def _alone() -> Iterator[None]:
    """Lock the results, so that no other process changes them within the block."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def origin() -> dict[str, str]:
    """Return the command, date and machine for a new row."""
    return {
        "command": shlex.join(["python", "-m", "tests.evidence", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": device_name(training_device("cpu", 1)),
    }


def origin_of(row: Mapping[str, Any], series: Mapping[str, Any]) -> dict[str, str]:
    """Return the command, date and machine of a row, which are those of its series unless it has its own."""
    return {fact: row.get(fact, series[fact]) for fact in ("command", "date", "machine")}


def own_origin(series: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of a new row's origin that differ from those of its series."""
    return {name: value for name, value in origin().items() if series.get(name) != value}


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Give the `with` block a path for the folder of a run, which is removed afterwards; each process has its own."""
    folder = WORK / f"{name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder)


def say(line: str) -> None:
    """Print progress."""
    print(line, file=sys.stderr, flush=True)


def _text(value: Any, depth: int) -> str:
    """Return JSON with one line per entry for the first three levels, and for deeper values that contain mappings."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not held or (depth >= 3 and not any(isinstance(one, dict) for one in held)):
        return json.dumps(value, allow_nan=False)
    pad, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, list):
        return "[" + pad + f",{pad}".join(_text(one, depth + 1) for one in value) + end + "]"
    items = (f"{json.dumps(name)}: {_text(one, depth + 1)}" for name, one in value.items())
    return "{" + pad + f",{pad}".join(items) + end + "}"

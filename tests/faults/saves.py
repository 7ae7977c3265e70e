"""Checkpoints that are written all the time while the process is killed: a valid state is always there."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rapdarts.errors import RapdartsError
from rapdarts.training.checkpoint import load_checkpoint, save_checkpoint
from tests.faults.series import Outcome, scaled

ORIGIN = {"command": "search"}
KILLS = 1000
"""Kills during saving in the full series."""

SAVES = 4
"""Saves, on average, within which a process is killed."""

NUMBERS = 200_000
"""Numbers in the tensor of a saved state, which make a file of 0.8 MB."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Kill a process that saves all the time."""
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    yield torn_writes(folder / "torn", scaled(KILLS, scale))


def state_of(number: int) -> dict[str, Any]:
    """Return a state whose tensor can be checked against its number."""
    return {"number": number, "tensor": torch.full((NUMBERS,), float(number))}


def saving(path: Path, first: int, saved: int | None = None) -> None:
    """Save states with increasing numbers for ever, and write the number of each to the descriptor `saved` after it is saved."""
    for number in range(first, 10**9):
        save_checkpoint(path, state_of(number), ORIGIN)
        if saved is not None:
            os.write(saved, f"{number}\n".encode())


def problem(path: Path, least: int) -> str:
    """Return what is wrong with the newest state at a path, of which state `least` was reported as saved; empty if nothing is."""
    try:
        found = load_checkpoint(path, ORIGIN)
    except RapdartsError as error:
        return str(error)
    if found is None:
        return "there is no checkpoint" if least >= 0 else ""
    state, _ = found
    if not torch.equal(state["tensor"], state_of(state["number"])["tensor"]):
        return f"state {state['number']} has the values of another one"
    return (
        f"state {state['number']} is older than {least}, which was reported as saved" if state["number"] < least else ""
    )


def torn_writes(folder: Path, count: int) -> Outcome:
    """Kill a forked process that saves all the time, again and again, and read the state after each kill."""
    folder.mkdir(parents=True)
    path, failures, generator, number, saved = folder / "checkpoint", [], random.Random(0), 0, 0
    began = time.monotonic()
    for _ in range(SAVES):
        save_checkpoint(path, state_of(0), ORIGIN)
    longest = time.monotonic() - began  # a process is killed within its first SAVES saves
    for trial in range(count):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                saving(path, number, writing)
            finally:
                os._exit(1)
        os.close(writing)
        select.select([reading], [], [], 60)  # until it has saved once
        time.sleep(generator.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading) as pipe:
            reported = [int(line) for line in pipe.read().split("\n")[:-1]]
        saved += len(reported)
        number = max([number - 1, *reported])
        if said := problem(path, number):
            failures.append(f"kill {trial}: {said}")
        number += 1
    if saved < count / 2:
        failures.append(f"only {saved} states were saved by {count} processes, so that few saves can have been cut")
    return Outcome("P2 torn write", "kill while saving without pause", count, failures, f"{saved:,} states saved")

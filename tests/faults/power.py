"""Loss of power while checkpoints are written: a valid state is on the disk at every moment, and every state that was reported as saved."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from rapdarts.training.checkpoint import save_checkpoint
from tests.faults.saves import ORIGIN, problem, saving, state_of
from tests.faults.series import Outcome, say, scaled
from tests.faults.system import Call, told

SNAPSHOTS, SAVES = 60, 4
"""Snapshots of file systems in the full series, and saves whose system calls are recorded."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Check what a loss of power can leave between any two system calls of a save; take snapshots of disks that are written to."""
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    yield interrupted_calls(folder / "calls")
    yield from snapshots_of_disks(folder / "disks", scaled(SNAPSHOTS, scale, 3))


# --- system calls --------------------------------------------------------------------------------------------------

Files = tuple[tuple[str, bytes], ...]
"""Names and contents of the files of a folder."""


@dataclass
class Disk:
    """A folder on a disk: what is there for certain, and what may be there because it was not synced yet.

    Files are numbered; `names` are the files by name for the processes, and `synced` those that a loss of power leaves. `pending` are
    entries of the folder that were made since: the new name, the old one, if any, and the file. Of these, any may be lost.
    """

    names: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, str, int]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)

    def make(self, call: Call) -> None:
        """Make a call that writes."""
        name = call.path.name
        if call.operation == "open":
            self._enter(name, "", len(self.contents))
            self.contents.append(b"")
            self.kept.append(b"")
        elif call.operation == "write":
            self.contents[self.names[name]] += call.content
        elif call.operation == "sync":
            self.kept[self.names[name]] = self.contents[self.names[name]]
        elif call.operation == "rename" and call.target:
            self._enter(call.target.name, name, self.names.pop(name))
        elif call.operation == "sync of the folder":
            self.synced, self.pending = dict(self.names), []
        else:
            raise AssertionError(call)

    def _enter(self, name: str, old: str, file: int) -> None:
        self.names[name] = file
        self.pending.append((name, old, file))

    def remains(self) -> Iterator[Files]:
        """Yield all that a loss of power can leave: every subset of the entries, and every version of files that are not synced."""
        for taken in itertools.product((False, True), repeat=len(self.pending)):
            names = dict(self.synced)
            for (name, old, file), is_there in zip(self.pending, taken, strict=True):
                if is_there:
                    names.pop(old, None)
                    names[name] = file
            for contents in itertools.product(*(self._versions(file) for file in names.values())):
                yield tuple(zip(names, contents, strict=True))

    def _versions(self, file: int) -> Sequence[bytes]:
        """Return what a file may hold: what was synced, the rest in part, as zeros, or as a whole."""
        kept, content = self.kept[file], self.contents[file]
        rest = content[len(kept) :]
        return list(dict.fromkeys((kept, kept + rest[: len(rest) // 2], kept + bytes(len(rest)), content)))


def interrupted_calls(folder: Path) -> Outcome:
    """Record the system calls of several saves, and read all that a loss of power can leave after each of them."""
    place = folder / "saved"
    place.mkdir(parents=True)
    calls: list[Call | int] = []
    with told(calls.append):
        for number in range(SAVES):
            save_checkpoint(place / "checkpoint", state_of(number), ORIGIN)
            calls.append(number)
    disk, newest, failures, seen = Disk(), -1, list[str](), set[tuple[Files, int]]()
    for position, call in enumerate(calls):
        if isinstance(call, int):
            newest = call
        else:
            disk.make(call)
        for files in disk.remains():
            if (files, newest) not in seen:
                seen.add((files, newest))
                if said := problem_of(folder / str(len(seen)), files, newest):
                    failures.append(f"{after(call)} ({position}): {said}")
    return Outcome(
        "P3 power loss",
        f"every state between the {len(calls) - SAVES} system calls of {SAVES} saves",
        len(seen),
        failures,
        sampled=False,
    )


def after(call: Call | int) -> str:
    """Return the position of a loss of power, as text."""
    return f"after save {call}" if isinstance(call, int) else f"after the {call.operation} of {call.file}"


def problem_of(folder: Path, files: Files, least: int) -> str:
    """Return what is wrong with files that a loss of power has left, of which state `least` was reported as saved."""
    folder.mkdir()
    try:
        for name, content in files:
            (folder / name).write_bytes(content)
        return problem(folder / "checkpoint", least)
    finally:
        shutil.rmtree(folder)


# --- disks ---------------------------------------------------------------------------------------------------------

MOUNTS = {"ext4": "", "ext4, noauto_da_alloc": "noauto_da_alloc", "ext4, data=writeback": "data=writeback"}
"""Mount options by the kind of file system."""


def snapshots_of_disks(folder: Path, count: int) -> Iterator[Outcome]:
    """Save to a file system in a file; copy that file at random moments, as a loss of power would leave it; mount and read the copy."""
    folder.mkdir(parents=True)
    for kind, options in MOUNTS.items():
        trials = count // len(MOUNTS)
        image, mounted, copied = (folder / name for name in ("disk", "mounted", "copied"))
        for place in (mounted, copied):
            place.mkdir(exist_ok=True)
        image.write_bytes(bytes(48 * 2**20))
        try:
            run("mkfs.ext4", "-q", "-F", str(image))
            run("mount", "-o", ",".join(filter(None, ["loop", options])), str(image), str(mounted))
        except (OSError, subprocess.CalledProcessError):
            say(f"P3 power loss, {kind}: not tried, because nothing can be mounted here")
            return
        try:
            failures = snapshots(image, mounted, copied, trials)
        finally:
            run("umount", str(mounted))
        yield Outcome("P3 power loss", f"snapshots of {kind}", trials, failures)


def snapshots(image: Path, mounted: Path, copied: Path, count: int) -> list[str]:
    """Copy the image of a mounted file system at random moments while a process saves to it; return what is wrong with the copies."""
    failures, generator, newest = [], random.Random(1), -1
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            saving(mounted / "checkpoint", 0, writing)
        finally:
            os._exit(1)
    os.set_blocking(reading, False)
    copy = image.with_name("copy")
    try:
        for trial in range(count):
            time.sleep(generator.uniform(0.1, 0.6))
            newest = max([newest, *drained(reading)])
            os.kill(child, signal.SIGSTOP)  # nothing is written while the image is copied, as after a loss of power
            shutil.copyfile(image, copy)
            os.kill(child, signal.SIGCONT)
            run("mount", "-o", "loop", str(copy), str(copied))
            try:
                said = problem(copied / "checkpoint", newest)
            finally:
                run("umount", str(copied))
            failures += [f"snapshot {trial}: {said}"] if said else []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    return failures if newest >= 0 else [*failures, "no state was saved"]


def drained(descriptor: int) -> list[int]:
    """Return the numbers that can be read from a pipe without waiting."""
    found = b""
    try:
        while part := os.read(descriptor, 65536):
            found += part
    except BlockingIOError:
        pass
    return [int(line) for line in found.split(b"\n") if line]


def run(*words: str) -> None:
    """Run a program quietly. Raises CalledProcessError if it fails, and OSError if there is no such program."""
    subprocess.run(words, check=True, capture_output=True)

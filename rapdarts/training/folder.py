"""The folder of a run: create or reopen it, lock it, and record the configuration and the environment in it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.config import experiment as configuration
from rapdarts.config import given, key_values, resolve
from rapdarts.errors import BusyError, DamagedError, InputError, plural
from rapdarts.files import atomic as files
from rapdarts.files.regular import read_bytes
from rapdarts.files.run_files import MOST_RECORD_BYTES, RunFile, begun
from rapdarts.training import checkpoint
from rapdarts.training.log import Screen
from rapdarts.version import __version__

RECORDS = frozenset(
    (
        RunFile.CONFIG,
        RunFile.ENVIRONMENT,
        RunFile.HARDWARE,
        RunFile.LOCK,
        RunFile.METRICS,
        RunFile.STATUS,
        "tensorboard",
    )
)
"""Names in the folder of a run that has computed nothing yet."""


@contextmanager
def claimed(
    verb: str,
    config: configuration.Experiment,
    launch: configuration.Launch,
    name: str,
    origin: Mapping[str, str],
    processes: int,
    screen: Screen,
    about: Sequence[str],
) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Lock the run folder, and yield the folder and the state to resume from (None if the run starts from the beginning).

    A checkpoint must have the given `origin`. Raises InputError, BusyError, StorageError or DamagedError, each before
    anything in the folder is changed. If the `with` block raises InputError before the run saves anything, a new folder is removed.
    """
    folder, is_new = _make_folder(launch, f"{verb}-{name}")
    try:
        descriptor = os.open(folder / RunFile.LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise files.storage_error(folder, error, of_run=True) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"the run folder {folder} is in use by another process; wait for it, or choose another folder with run=PATH."
            ) from None
        # All checks come before the first change to the folder.
        config = _checked(folder, config, launch.resume)
        resumed = _load(folder, origin, screen) if launch.resume else None
        environment = _environment_of(folder, verb, config.device, processes, screen)
        files.remove_leftovers(folder)
        files.write_atomically(folder / RunFile.CONFIG, key_values.save_yaml(config))
        files.write_atomically(folder / RunFile.ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        together = f", {processes} processes" if processes > 1 else ""
        threads = f"the CPU with {plural(environment['threads'], 'thread')}"
        for line in about:
            screen.say(line)
        screen.say(f"{verb} {name} in {folder}, on {environment['gpu'] or threads}{together}")
        yield folder, resumed
    except InputError:
        if is_new:
            _discard(folder)
        raise
    finally:
        os.close(descriptor)


def _discard(folder: Path) -> None:
    """Remove the folder of a run that has saved nothing, unless it holds any other file."""
    if not begun(folder) and RECORDS.issuperset(os.listdir(folder)):
        shutil.rmtree(folder, ignore_errors=True)


def _make_folder(launch: configuration.Launch, name: str) -> tuple[Path, bool]:
    """Return the folder of a run, and whether it is new."""
    try:
        if launch.run:
            folder = Path(launch.run)
            is_new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            return folder, is_new
        if launch.resume:
            raise InputError("resume=true needs run=PATH, the folder of the run to continue.")
        for number in range(1, 1_000_000):
            folder = Path("runs") / f"{name}-{number}"
            try:
                folder.mkdir(parents=True)  # fails if another launch has just created it
                return folder, True
            except FileExistsError:
                continue
        raise InputError("runs/ has no free folder name left; choose a folder with run=PATH.")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise files.storage_error(Path(launch.run or "runs"), error, of_run=True) from None
        raise InputError(f"run={launch.run!r} is not a usable path; choose another.") from None


def check_free(folder: Path) -> None:
    """Raise InputError if a folder holds a run that has saved anything."""
    if begun(folder):
        raise InputError(
            f"{folder} already holds a run; add resume=true (in Python: resume=True) to continue it, or choose another folder"
            " with run=PATH."
        )


def _checked(folder: Path, config: configuration.Experiment, resume: bool) -> configuration.Experiment:
    """Return the configuration to save. Raises InputError if the run in the folder has a different one."""
    if not begun(folder):
        return config  # a run that failed before it saved anything has nothing to lose
    if not resume:
        check_free(folder)
    old, config = resolve.experiment_of_run(folder), given.as_begun(config, folder)
    changed = [line for line in key_values.differences(old, config) if line.partition(":")[0] not in resolve.HARMLESS]
    if changed:
        raise InputError(
            f"{folder} was started with a different configuration ({'; '.join(changed)}); resume with the same keys."
        )
    return config


def _load(folder: Path, origin: Mapping[str, str], screen: Screen) -> dict[str, Any] | None:
    """Return the state to resume from, or None if the run was stopped before its first checkpoint."""
    found, finished = (
        checkpoint.load_checkpoint(folder / RunFile.CHECKPOINT, origin),
        (folder / RunFile.RESULT).exists(),
    )
    if found is not None:
        state, damage = found
        resuming = f"{damage}; resuming from the previous one" if damage else f"resuming {folder} from its checkpoint"
        screen.say(f"{folder} is finished; writing its result again" if finished and not damage else resuming)
        return state
    if finished:
        raise DamagedError(
            f"{folder} holds results but no checkpoint to continue from; start a new run in another folder with run=PATH."
        )
    screen.say(f"no checkpoint in {folder}: starting from the beginning")
    return None


def _environment_of(folder: Path, verb: str, device: str, processes: int, screen: Screen) -> dict[str, Any]:
    """Return the content of environment.json: the environments in which the run was started and resumed. Also report changes."""
    now, path = _environment(verb, device, processes), folder / RunFile.ENVIRONMENT
    try:
        first = {"processes": 1, **json.loads(read_bytes(path, most=MOST_RECORD_BYTES))}
    except (InputError, ValueError, TypeError, RecursionError):
        return now
    changed = [
        f"{name} {first.get(name)} -> {now[name]}" for name in now if name != "command" and first.get(name) != now[name]
    ]
    if changed:
        screen.say(f"the environment has changed, so the result may not be bit-identical: {', '.join(changed)}")
    return {**first, "resumed": [*first.get("resumed", []), now]}


def _environment(verb: str, device: str, processes: int) -> dict[str, Any]:
    """Return the environment that results may depend on; results are bit-identical only in equal environments."""
    return {
        "verb": verb,
        "command": sys.argv[1:],
        "device": device,
        "rapdarts": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "gpu": torch.cuda.get_device_name() if device != "cpu" and torch.cuda.is_available() else None,
    }

"""Claiming the folder of a run: create it, and hold its lock before data are read. This module does not import torch."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.given import as_begun
from rapdarts.config.key_values import differences
from rapdarts.errors import BusyError, InputError, RapdartsError, StorageError, warn
from rapdarts.files import atomic as files
from rapdarts.files.regular import NotRegular, opened
from rapdarts.files.run_files import CHECKPOINT_HEAD, RESULTS, RunFile, begun, verb_of
from rapdarts.files.seal import IN_YAML
from rapdarts.training.status import Status

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

UNDECIDED = ("skeleton.", "search.space", "rank.epochs")
"""Beginnings of the settings that are completed only when the data of a run and its network are known."""

UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems that have no locks, such as some network file systems."""

PATIENCE = 0.2
"""Time, in seconds, for which a lock that is held is tried again."""


@dataclass(frozen=True)
class Claim(Launch):
    """A launch whose folder, `run`, exists and is locked by this process; `opened` is set when the run in it is opened."""

    opened: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)


@contextmanager
def claimed(verb: str, launch: Launch, name: str) -> Iterator[Launch]:
    """Create the run folder, if necessary, and hold its lock; yield a launch that names the folder.

    A launch that is already a claim is yielded unchanged; so is the launch of another process than the first of a job. Raises
    InputError, BusyError or StorageError, each before anything in the folder is changed. If the `with` block raises an error before
    the run saves anything, a new folder is removed; after the first step, only InputError does so.
    """
    if isinstance(launch, Claim) or os.environ.get("RANK", "0") not in ("", "0"):
        yield launch
        return
    folder, above = _make_folder(launch, f"{verb}-{name}")
    _check_usable(folder, launch.resume)
    try:
        descriptor = _lock(folder)
    except StorageError:
        if above is not None and {*os.listdir(folder)} <= {RunFile.LOCK}:
            _discard(folder, above)
        raise
    try:
        if not launch.resume:
            check_free(folder)  # again, because another process may have used the folder before it was locked
        yield Claim(str(folder), launch.resume)
    except BaseException as error:
        if above is not None and (isinstance(error, InputError) or is_empty(folder)):
            _discard(folder, above)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def reserved(verb: str, launch: Launch, name: str, config: Experiment) -> Iterator[Launch]:
    """Claim the folder that a launch names; no other process can use a folder that is still to be named. Raises the errors of `claimed`.

    If a run with the settings `config` cannot be resumed, for example because its data are missing, status.json says so.
    """
    # Several processes claim it in `session.reserved_by_first`.
    if not launch.run or os.environ.get("WORLD_SIZE", "1") != "1":
        yield launch
        return
    with reserved_alone(verb, launch, name, config) as claim:
        yield claim


@contextmanager
def reserved_alone(verb: str, launch: Launch, name: str, config: Experiment) -> Iterator[Launch]:
    """Claim the folder that a launch names for this process, as `reserved` describes."""
    with claimed(verb, launch, name) as claim, _recorded(claim, config):
        yield claim


@contextmanager
def _recorded(launch: Launch, config: Experiment) -> Iterator[None]:
    """Record an error in status.json if it ends the block before the run to resume is opened."""
    try:
        yield
    except BaseException as error:
        folder, opened = Path(launch.run), isinstance(launch, Claim) and launch.opened.is_set()
        if launch.resume and not opened and not is_empty(folder) and _has_settings(folder, config):
            with suppress(RapdartsError):  # the disk is full; the first error is the one to report
                Status(folder, begun=True).end(error)
        raise


def _has_settings(folder: Path, config: Experiment) -> bool:
    """Return whether the run in a folder has these settings, as far as they are known before its data are read."""
    if not begun(folder):
        return True  # it has nothing to lose
    try:
        changed = differences(resolve.experiment_of_run(folder), as_begun(config, folder))
    except (RapdartsError, AttributeError):  # damaged, or without a resource that the user defines
        return False
    of_like = ("search.",) if config.search.random.like else ()  # a baseline takes them from the search that it names
    names = (line.partition(":")[0] for line in changed)
    return all(name in resolve.HARMLESS or name.startswith((*UNDECIDED, *of_like)) for name in names)


def check_free(folder: Path) -> None:
    """Raise InputError if a folder holds a run that has saved anything, or results without it."""
    if begun(folder):
        raise InputError(
            f"{folder} already holds a run; add resume=true (in Python: resume=True) to continue it, or choose another folder"
            " with run=PATH."
        )
    if left := sorted(name for name in os.listdir(folder) if name in RESULTS):
        raise InputError(
            f"{folder} holds results of a run ({', '.join(left)}), which are not overwritten; choose another folder with run=PATH."
        )


def _check_usable(folder: Path, resume: bool) -> None:
    """Raise InputError if a folder holds a run that is not to be resumed, or anything else than a run, and BusyError if it is in use."""
    if not resume and begun(folder):
        _check_unused(folder)
        check_free(folder)
    if not (is_empty(folder) or _is_of_run(folder) or (resume and begun(folder))):
        raise InputError(
            f"{folder} is not empty and not the folder of a run, so nothing is written there; choose a new folder with run=PATH."
        )
    if not resume:
        check_free(folder)


def is_empty(folder: Path) -> bool:
    """Return whether a folder has no entries but those of a run that was stopped before it wrote its configuration, or TensorBoard's."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise files.storage_error(folder, error, of_run=True) from None
    return all(name in (RunFile.LOCK, "tensorboard") or files.TEMPORARY.fullmatch(name) for name in names)


def _is_of_run(folder: Path) -> bool:
    """Return whether rapdarts wrote the configuration, the environment or a checkpoint in a folder."""
    names = (RunFile.CONFIG, RunFile.CHECKPOINT, RunFile.CHECKPOINT_BEFORE)
    heads = [_head(folder / name) for name in names]
    is_sealed = IN_YAML.match(heads[0].decode("utf-8", "replace")) is not None
    return is_sealed or bool(verb_of(folder)) or any(head.startswith(CHECKPOINT_HEAD) for head in heads[1:])


def _head(path: Path) -> bytes:
    """Return the first bytes of a regular file; empty for anything else."""
    with suppress(OSError, NotRegular), opened(path) as file:
        return file.read(200)
    return b""


def _check_unused(folder: Path) -> None:
    """Raise BusyError if another process holds the lock of a folder, in which nothing is changed."""
    with suppress(OSError, NotRegular), opened(folder / RunFile.LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(folder) from None


def _in_use(folder: Path) -> BusyError:
    return BusyError(
        f"the run folder {folder} is in use by another process; wait for it, or choose another folder with run=PATH."
    )


def _lock(folder: Path) -> int:
    """Return the descriptor of the folder's lock. Raises BusyError if another process holds it, InputError and StorageError.

    Waits for a moment before it gives up, because another process may only be checking whether the folder is in use.
    """
    path, deadline = folder / RunFile.LOCK, time.monotonic() + PATIENCE
    while True:
        try:
            # O_NOFOLLOW: a link planted at this path is rejected, not followed. O_NONBLOCK: a FIFO does not wait.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
            if _taken(descriptor, path):
                return descriptor
        except FileNotFoundError:  # the previous owner has removed the folder
            raise _in_use(folder) from None
        except OSError as error:
            raise files.storage_error(path, error, of_run=True) from None
        if time.monotonic() > deadline:
            raise _in_use(folder)
        time.sleep(PATIENCE / 10)


def _taken(descriptor: int, path: Path) -> bool:
    """Lock an open file, and return whether this process now owns the folder; otherwise, and after an error, close the file."""
    is_owner, has_locks = False, True
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{path} is not a regular file; remove it, or choose another folder with run=PATH.")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            has_locks = error.errno not in UNSUPPORTED
            if has_locks:
                raise
        # The previous owner may have removed the folder after the file was opened, and another process may have created it again.
        is_owner = os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not is_owner:
            os.close(descriptor)
    if is_owner and not has_locks:
        warn(f"the file system of {path.parent} has no locks, so a second run in this folder would not be noticed")
    return is_owner


def _make_folder(launch: Launch, name: str) -> tuple[Path, Path | None]:
    """Return the folder of a run, and the uppermost folder that was created for it, or None if the folder was there."""
    try:
        if launch.run:
            folder = Path(launch.run)
            above = _missing(folder)
            if file := next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None):
                raise InputError(f"run={folder}: {file} is not a folder; choose another path with run=PATH.")
            folder.mkdir(parents=True, exist_ok=True)
            return folder, above
        if launch.resume:
            raise InputError("resume=true needs run=PATH, the folder of the run to continue.")
        for number in range(1, 1_000_000):
            folder = Path("runs") / f"{name}-{number}"
            above = _missing(folder)
            try:
                folder.mkdir(parents=True)  # fails if another launch has just created it
                return folder, above
            except FileExistsError:
                continue
        raise InputError("runs/ has no free folder name left; choose a folder with run=PATH.")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise files.storage_error(Path(launch.run or "runs"), error, of_run=True) from None
        raise InputError(f"run={launch.run!r} is not a usable path; choose another.") from None


def _missing(folder: Path) -> Path | None:
    """Return the uppermost part of a path that does not exist, or None if all of it exists."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    return missing[-1] if missing else None


def _discard(folder: Path, above: Path) -> None:
    """Remove the folder of a run that has saved nothing, unless it holds any other file, and the empty folders up to `above`."""
    if begun(folder) or not RECORDS.issuperset(os.listdir(folder)):
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # not empty
        while folder != above:
            folder = folder.parent
            folder.rmdir()

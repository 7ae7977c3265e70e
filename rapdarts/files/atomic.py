"""Atomic writing: files are written next to the target, synced to disk, then moved into place in one step."""

from __future__ import annotations

import errno
import itertools
import os
import re
import resource
import secrets
import shutil
from pathlib import Path

from rapdarts.errors import InputError, StorageError, shorten
from rapdarts.files.run_files import RUN_FILES, RunFile
from rapdarts.interruptions import completing

MARKS = (RunFile.ENVIRONMENT, RunFile.ALPHAS)
"""Files that only run folders contain."""

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
"""Names of the temporary files of `write_atomically`."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the content of a file in one step: readers see the old or the new content, even after a crash.

    A signal that arrives in the meantime takes effect afterwards. On failure, raises StorageError with the path and the reason,
    and leaves no temporary file.
    """
    with completing():
        _write(path, content.encode() if isinstance(content, str) else content)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        # O_EXCL and O_NOFOLLOW: a link planted at this path is rejected, not followed.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error, len(data)) from None


def make_folders(root: Path, path: Path) -> None:
    """Create the folders between `root` and a file `path` below it. Raises StorageError, also for a link, which may lead anywhere."""
    try:
        for folder in reversed(path.relative_to(root).parents[:-1]):
            if (root / folder).is_symlink():
                raise OSError(errno.ELOOP, f"{root / folder} is a link")
            (root / folder).mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(path, error, of_run=True) from None


def set_aside(path: Path) -> Path:
    """Move a damaged file, or what has taken its place, to a name that is not in use, `<path>.damaged` or one with a number.

    Returns the new path. Raises StorageError.
    """
    names = (f"{path.name}.damaged{number or ''}" for number in itertools.count())
    kept = next(place for name in names if not os.path.lexists(place := path.with_name(name)))
    try:
        os.replace(path, kept)
    except OSError as error:
        raise storage_error(path, error, of_run=True) from None
    return kept


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files left by a killed process; call this only while holding the folder's lock."""
    for leftover in folder.rglob(".*.tmp"):
        if TEMPORARY.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError, needed: int = 0, of_run: bool = False) -> StorageError:
    """Return the error to raise for a path that cannot be written; `needed` is its size in bytes, and `of_run` marks a run folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        room, remedy = _room(path, error.errno)
        return StorageError(
            f"{path} cannot be written: {error.strerror} (it needs {megabytes(needed)}{room}). {remedy}."
        )
    remedy = "Choose another place with run=PATH" if of_run else "Choose another path"
    fact = f"{_short(path)} cannot be written: {error.strerror}."
    found = StorageError(f"{fact} {remedy}.")
    found.fact = fact
    return found


def _short(path: Path) -> str:
    """Return a path as messages quote it; a name that is too long for the file system is cut."""
    text = str(path)
    return text if len(text) <= 1000 else f"{text[:997]}..."


def _room(path: Path, reason: int) -> tuple[str, str]:
    """Return a clause with the space that is left for a file, and a remedy; `reason` is the errno of a lack of space."""
    if reason == errno.EFBIG:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        known = limit != resource.RLIM_INFINITY
        room = f", and the limit on the size of a file is {megabytes(limit)}" if known else ""
        return room, "Raise the limit (ulimit -f), or choose another file system"
    if reason == errno.EDQUOT:  # the free space of the file system says nothing about the quota
        return "", "Free some space"
    try:
        return f", and {megabytes(shutil.disk_usage(path.parent).free)} are free", "Free some space"
    except OSError:
        return "", "Free some space"


def megabytes(size: int) -> str:
    """Return a number of bytes as messages show it: 16.8 MB, or 215 bytes below 0.1 MB."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def file_to_write(path: str | os.PathLike[str], key: str = "out") -> Path:
    """Return the path of a file to write, given by the user as `key`; call this before a long computation.

    Raises InputError if the path does not name a file, if its folder does not exist, or if it names a file that only run folders
    contain.
    """
    file, given = Path(path), f"{key}={shorten(os.fspath(path))}"
    if not file.name or os.path.isdir(file):
        raise InputError(f"{given} is not the name of a file; use the path of a file.")
    if not os.path.isdir(file.parent):
        raise InputError(
            f"{given}: there is no folder {shorten(str(file.parent))}; create it first, or choose another path."
        )
    records = (one / mark for one in Path(os.path.abspath(file)).parents[:3] for mark in MARKS)
    if file.name in RUN_FILES and os.path.isfile(file) and any(map(os.path.isfile, records)):
        raise InputError(f"{given} is part of the record of a run and would be overwritten; choose another file.")
    return file

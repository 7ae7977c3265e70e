"""Files that are whole or absent: written beside the target, forced to disk, then put in its place in one step."""

from __future__ import annotations

import errno
import os
import re
import secrets
from pathlib import Path

from rapdarts.errors import InputError, StorageError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
"""Names of the temporary files that `write` makes."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file by new content in one step: a reader sees the old or the new, also after a crash.

    Raises StorageError, naming the path and the reason, and leaves no temporary file.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        # O_EXCL and O_NOFOLLOW: a link planted under this name is refused, not followed.
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


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems keep no folders to sync
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left; call it only while holding the folder's lock."""
    for leftover in folder.rglob(".*.tmp"):
        if TEMPORARY.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError, needed: int = 0) -> StorageError:
    """Return the error that says why a file cannot be written; `needed` is its size in bytes."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            f"{path} cannot be written: {error.strerror} (it needs {needed / 1e6:.1f} MB). Free some space."
        )
    return StorageError(f"{path} cannot be written: {error.strerror}. Choose another place with run=PATH or out=FILE.")


def file_to_write(path: str) -> Path:
    """Return the path of a file to write. Raises InputError where it names none."""
    if not Path(path).name:
        raise InputError(f"out={path} names no file; write the path of one.")
    return Path(path)

"""Open files that a user names: only regular files, up to a given size.

A FIFO would block the command until another program writes to it, and a device such as /dev/zero never ends.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from rapdarts.errors import InputError

MOST_BYTES = 2**31 - 1
"""Maximum size of a file that is read whole, unless its format has a smaller one."""


class NotRegular(Exception):
    """A path names a folder, a FIFO, a device or a socket."""


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises NotRegular, and OSError or ValueError as `open` does."""
    # Opening some devices has an effect, so the type is checked first. It is checked again on the open file, because the path may
    # have been replaced in the meantime; O_NONBLOCK keeps a FIFO from blocking.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NotRegular
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegular
    return file


def open_regular(path: Path, where: str = "", most: int | None = None, larger: str = "", other: str = "") -> BinaryIO:
    """Open a regular file of up to `most` bytes for reading; `where` names it in messages (default: its path).

    Raises InputError, with the text `larger` for a larger file and `other` for a folder, a FIFO or a device.
    """
    where = where or str(path)
    try:
        file = opened(path)
    except NotRegular:
        raise InputError(f"{where} {other or 'is not a regular file'}.") from None
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}.") from None
    except ValueError:  # a NUL byte in the path
        raise InputError(f"{where!r} is not the name of a file.") from None
    size = os.fstat(file.fileno()).st_size
    if most is not None and size > most:
        file.close()
        raise InputError(f"{where} {larger or f'has {size:,} bytes; at most {most:,} can be read'}.")
    return file


def read_bytes(path: Path, where: str = "", most: int = MOST_BYTES, larger: str = "", other: str = "") -> bytes:
    """Return the content of a file. Raises InputError as `open_regular` does."""
    with open_regular(path, where, most, larger, other) as file:
        try:
            content = file.read(most + 1)  # files in /proc have more than the size that they state
        except OSError as error:
            raise InputError(f"{where or path} cannot be read: {error.strerror}.") from None
    if len(content) > most:
        raise InputError(f"{where or path} {larger or f'has more than {most:,} bytes'}.")
    return content

"""Reading of text files: anything that is not a regular file, is too large, or is not UTF-8 raises InputError."""

from __future__ import annotations

import stat
from pathlib import Path

from rapdarts.errors import InputError


def read_text(path: Path, where: str, most: int, larger: str, other: str = "is not a regular file") -> str:
    """Return the text of a file of up to `most` bytes; `where` names it in messages.

    Raises InputError, with the text `larger` for a larger file and `other` for a folder, a FIFO or a device.
    """
    try:
        # Check before opening: opening a FIFO would block until there is a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{where} {other}.")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}.") from None
    except ValueError:  # a NUL byte in the path
        raise InputError(f"{where!r} is not the name of a file.") from None
    if len(raw) > most:
        raise InputError(f"{where} {larger}.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        other_text = raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw
        found = "it looks like UTF-16 or binary" if other_text else f"byte {error.start}"
        raise InputError(f"{where} is not UTF-8 text ({found}); save it as UTF-8.") from None

"""Read text files; raise InputError for anything that is not a regular file, is too large, or is not UTF-8."""

from __future__ import annotations

from pathlib import Path

from rapdarts.errors import InputError
from rapdarts.files.regular import read_bytes


def read_text(path: Path, where: str, most: int, larger: str, other: str = "") -> str:
    """Return the text of a file of up to `most` bytes; `where` names it in messages.

    Raises InputError as `rapdarts.files.regular.open_regular` does, and for a file that is not UTF-8 text.
    """
    raw = read_bytes(path, where, most, larger, other)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if is_binary(raw):
            raise InputError(f"{where} is a binary file, not text.") from None
        utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw
        found = "it looks like UTF-16" if utf16 else f"invalid byte at offset {error.start}"
        raise InputError(f"{where} is not UTF-8 text ({found}); save it as UTF-8.") from None


def is_binary(raw: bytes) -> bool:
    """Return whether bytes are not text: they begin like a pickle, or contain NUL but are not UTF-16."""
    head = raw[:4096]
    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff")) or 4 * head.count(0) > len(head)
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    return pickled or (b"\0" in head and not (utf16 and _is_utf16(head)))


def _is_utf16(head: bytes) -> bool:
    """Return whether bytes, decoded as UTF-16, are mostly printable characters."""
    text = head[: len(head) // 2 * 2].decode(
        "utf-16-be" if head[:1] == b"\0" or head[:2] == b"\xfe\xff" else "utf-16-le", "replace"
    )
    return sum(letter.isprintable() or letter.isspace() or letter == "\ufeff" for letter in text) > 0.9 * len(text)

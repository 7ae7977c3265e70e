"""Output of a command: results to stdout as text or JSON, remarks to stderr, files written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rapdarts.cli.arguments import Call
from rapdarts.errors import InputError, StorageError


def answer(call: Call, value: Any, words: str) -> None:
    """Says a result: `value` as JSON where that was asked for, else `words`."""
    out(json.dumps(value, indent=2, allow_nan=False) if call.json else words)


def out(text: str, end: str = "\n") -> None:
    """Writes a result. Raises StorageError, unless it is only that whoever read our output has left."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:  # Python writes once more at its end, and would complain then
            os.dup2(nowhere.fileno(), 1)
        if not isinstance(error, BrokenPipeError):
            raise StorageError(f"standard output cannot be written: {error.strerror}.") from None


def deliver(text: str, path: str) -> None:
    """A text that is itself the result: to a file if one is named, else to stdout."""
    if path:
        write(path, text)
        say(f"written to {path}")
    else:
        out(text, end="")


def write(path: str, content: str | bytes) -> None:
    """A whole file or none. Raises InputError where the path names no file."""
    from rapdarts.files import atomic as files

    if not Path(path).name:
        raise InputError(f"out={path} names no file; write the path of one.")
    files.write(Path(path), content)


def say(words: str) -> None:
    """A remark, to stderr."""
    if sys.stderr is not None:  # print(file=None) would go to stdout
        with suppress(OSError):
            print(words, file=sys.stderr)

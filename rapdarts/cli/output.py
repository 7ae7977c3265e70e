"""Output of commands: results to stdout or to a file, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

from rapdarts.cli.arguments import Call
from rapdarts.errors import StorageError


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


def say(words: str) -> None:
    """A remark, to stderr."""
    if sys.stderr is not None:  # print(file=None) would go to stdout
        with suppress(OSError):
            print(words, file=sys.stderr)

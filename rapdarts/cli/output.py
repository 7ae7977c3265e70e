"""Output of commands: results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

from rapdarts.cli.arguments import Call
from rapdarts.errors import StorageError, printable


def answer(call: Call, value: Any, words: str) -> None:
    """Print a result: `value` as JSON if requested, else `words`."""
    out(json.dumps(value, indent=2, allow_nan=False) if call.json else words)


def out(text: str, end: str = "\n") -> None:
    """Write a result to stdout. Raises StorageError on failure, unless the reader of a pipe has closed it."""
    try:
        print(printable(text, lines=True), end=end, flush=True)
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:  # Python flushes again at exit, which would fail
            os.dup2(nowhere.fileno(), 1)
        if not isinstance(error, BrokenPipeError):
            raise StorageError(f"cannot write to standard output: {error.strerror}.") from None


def say(words: str) -> None:
    """Print a remark on one line of stderr."""
    if sys.stderr is not None:  # print(file=None) would go to stdout
        with suppress(OSError):
            print(printable(words), file=sys.stderr)

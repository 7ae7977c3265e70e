"""One command line, taken apart, and the ways in which it is answered."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapdarts.config import knobs
from rapdarts.errors import InputError, StorageError
from rapdarts.files.yaml import shorten

OUTPUTS = ("out", "plot")
"""The keys that name a file to write."""

RECORD = frozenset(
    {
        "alphas.json",
        "best.json",
        "best.safetensors",
        "candidates.json",
        "checkpoint",
        "checkpoint.previous",
        "config.yaml",
        "environment.json",
        "genotype.json",
        "genotypes.json",
        "hardware.yaml",
        "latency.json",
        "lock",
        "metrics.jsonl",
        "network.safetensors",
        "ranking.json",
        "result.json",
        "status.json",
    }
)
"""What runs call the files that they write: in their folders, nobody else does."""


@dataclass
class Call:
    """One command line, taken apart: plain words, key=value settings, and switches."""

    verb: str
    words: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    json: bool = False
    print_config: bool = False
    debug: bool = False
    help: bool = False
    space: str = ""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The settings as (key, value)."""
        return [knobs.split_override(text) for text in self.settings]

    def target(self, what: str) -> str:
        """The first word. Raises InputError, saying what it should be, if there is none."""
        if not any(self.words[:1]):
            raise InputError(f"rapdarts {self.verb} needs {what}; see rapdarts {self.verb} --help.")
        return self.words[0]

    def expect(self, most: int) -> None:
        """Raises InputError for words that the verb has no use for."""
        if len(self.words) > most:
            extra = shorten(repr(self.words[most]))
            raise InputError(
                f"rapdarts {self.verb} does not know what to do with {extra}; write settings as key=value."
            )

    def check_outputs(self) -> None:
        """Raises InputError where a result would take the place of a file that is read, or that a run keeps as its record."""
        pairs = [(key.strip(), value) for key, _, value in (text.partition("=") for text in self.settings)]
        for key, path in pairs:
            if key not in OUTPUTS or not os.path.isfile(path):
                continue
            read = [self.space, *self.words, *(value for other, value in pairs if other not in OUTPUTS)]
            if any(os.path.exists(file) and os.path.samefile(file, path) for file in read):
                raise InputError(
                    f"{key}={shorten(path)} is what this command reads, and would be lost; name another file."
                )
            file, named = Path(os.path.abspath(path)), [Path(os.path.abspath(word)) for word in self.words]
            folders = [one for one in file.parents[:3] if one in named or os.path.isfile(one / "environment.json")]
            if folders and file.name in RECORD:
                raise InputError(
                    f"{key}={shorten(path)} is part of the record of a run, and would be lost; name another file."
                )


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

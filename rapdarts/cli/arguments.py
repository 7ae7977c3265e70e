"""Parse a command line and check its arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rapdarts.config import key_values
from rapdarts.errors import InputError, nearest, shorten

SWITCHES = {
    "--help": "print this help",
    "--debug": "show the traceback of an error",
    "--json": "print the result as JSON",
    "--print-config": "print the resolved configuration, as a starting point for your own YAML file, and exit",
    "--space": "run your own Python file and take the search space from it",
}

OUTPUTS = ("out", "plot")
"""Keys whose values are paths of output files."""

SETTING = re.compile(r"[^/=(\[{|\n]*=")
"""Pattern for the beginning of key=value. It rejects paths that contain an equals sign, such as runs/lr=0.1."""
GENOTYPE = re.compile(r"\s*\w+\s*=\s*[\w.]*Genotype\s*\(")
"""Pattern for the beginning of a named genotype, as in a Python file: NAME = Genotype(."""


@dataclass
class Call:
    """A parsed command line: plain words, key=value settings, and switches."""

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
        """Settings as (key, value) pairs."""
        return [key_values.split_override(text) for text in self.settings]

    @property
    def values(self) -> dict[str, str]:
        """Values by key; if a key is repeated, its last value."""
        return dict(self.pairs)

    @property
    def space_file(self) -> Path | None:
        """Python file given by --space, if any."""
        return Path(self.space) if self.space else None

    def word(self, place: int) -> str:
        """Return the plain word at a position, or an empty string."""
        return self.words[place] if len(self.words) > place else ""

    def target(self, what: str) -> str:
        """Return the first word, or raise InputError with a message that the command needs `what`."""
        if not any(self.words[:1]):
            raise InputError(f"rapdarts {self.verb} needs {what}; see rapdarts {self.verb} --help.")
        return self.words[0]

    def expect(self, most: int) -> None:
        """Raise InputError if there are more than `most` words."""
        if len(self.words) > most:
            extra = shorten(repr(self.words[most]))
            raise InputError(f"rapdarts {self.verb} got an unexpected argument {extra}; write settings as key=value.")

    def check_outputs(self) -> None:
        """Raise InputError if an output would overwrite a file that the command reads."""
        pairs = [(key.strip(), value) for key, _, value in (text.partition("=") for text in self.settings)]
        for key, path in pairs:
            if key not in OUTPUTS or not os.path.isfile(path):
                continue
            words = [*self.words, *(word.rpartition(":")[0] for word in self.words)]  # FILE:NAME reads FILE
            read = [self.space, *words, *(value for other, value in pairs if other not in OUTPUTS)]
            if any(os.path.exists(file) and os.path.samefile(file, path) for file in read):
                raise InputError(
                    f"{key}={shorten(path)} is an input of this command and would be overwritten; choose another file."
                )


def parse(verb: str, arguments: Sequence[str], switches: Sequence[str]) -> Call:
    """Return the parsed command line of a command with these switches. Raises InputError for any other switch."""
    call, words = Call(verb), iter(arguments)
    for word in words:
        switch, equals, value = word.partition("=")
        if not word.startswith("-"):
            (call.settings if SETTING.match(word) and not GENOTYPE.match(word) else call.words).append(word)
        elif word == "-h":
            call.help = True
        elif switch not in switches:
            known, hint = ", ".join(switches), "Settings take no dashes; write seed=1."
            if near := nearest(switch[2:], [name[2:] for name in switches]):
                hint = f"The nearest is --{near}."
            raise InputError(f"rapdarts {verb} has no switch {shorten(repr(switch))}; its switches are {known}. {hint}")
        elif switch == "--space":
            call.space = value or next(words, "")
            if not call.space:
                raise InputError("--space needs the path of a Python file.")
        elif equals:
            raise InputError(f"{switch} takes no value; write only {switch}.")
        else:
            setattr(call, switch[2:].replace("-", "_"), True)
    return call

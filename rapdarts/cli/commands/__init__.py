"""The commands: each takes its command line, calls one function of the library, and answers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from rapdarts.cli.arguments import Call


def command(verb: str) -> Callable[[Call], None]:
    """Return the function of a command, `VERB` in the module of that name here."""
    run: Callable[[Call], None] = getattr(import_module(f"{__name__}.{verb}"), verb)
    return run

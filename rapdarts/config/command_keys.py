"""Options of the commands that do not start a run; a key that only other commands take is answered with these commands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from rapdarts.config import command_options
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.key_suggestions import keys_of, suggest_key
from rapdarts.config.key_values import keys, parse_settings, verb_of
from rapdarts.errors import InputError

LAUNCHED = ("find", "search", "rank", "retrain")
"""Commands that start a run, each with a section of this name in an experiment; all of them take the keys outside these sections."""


Options = TypeVar("Options")


def parse_options(schema: type[Options], settings: Sequence[tuple[str, Any]]) -> Options:
    """Return the options of a command from (key, value) pairs. Raises InputError as `parse_settings` does."""
    verb, names = verb_of(schema), [key.name for key in keys(schema)]
    for given, _ in settings:
        others = commands_with(given)
        if not others or verb in others or keys_of(given, names):
            continue
        clause = suggest_key(given, names, "", verb)
        if not clause.startswith("use ") and not clause.endswith(f" {given.rpartition('.')[2]}"):
            several = " and ".join(filter(None, (", ".join(others[:-1]), others[-1])))
            use = "uses" if len(others) == 1 else "use"
            raise InputError(
                f"there is no key {given!r}; rapdarts {several} {use} it, but rapdarts {verb} does not; see rapdarts {verb} --help."
            )
    return parse_settings(schema, settings)


def commands_with(given: str) -> list[str]:
    """Return the commands with a key whose full name is `given` or ends with it."""
    return [
        verb for verb, names in _keys_by_command().items() if any(f".{name}".endswith(f".{given}") for name in names)
    ]


@cache
def _keys_by_command() -> dict[str, list[str]]:
    """Return the full names of the keys of each command."""
    experiment = [key.name for key in keys(Experiment)]
    shared = [key.name for key in keys(Launch)]
    shared += [name for name in experiment if name.partition(".")[0] not in LAUNCHED]
    found = {verb: [*shared, *(name for name in experiment if name.startswith(f"{verb}."))] for verb in LAUNCHED}
    schemas = [one for one in vars(command_options).values() if isinstance(one, type) and verb_of(one)]
    return found | {verb_of(schema): [key.name for key in keys(schema)] for schema in schemas}

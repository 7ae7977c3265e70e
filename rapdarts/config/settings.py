"""Settings as a program gives them: mappings and keywords, made into an experiment, a command's options and a run's place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.knobs import full_name, parse_settings

Settings = Mapping[str, Any]
Pairs = list[tuple[str, Any]]
Options = TypeVar("Options")


def read_experiment(
    verb: str,
    given: str | os.PathLike[str] | Experiment | Settings,
    settings: Settings | None,
    keys: Settings,
    in_memory: bool = False,
) -> tuple[Experiment, str, Pairs]:
    """Return the experiment, what its runs are called, and the (key, value) pairs that were given beside a file or a value.

    `in_memory` says that a program gives the data. A key without its section is looked for in `verb`'s own first.
    """
    pairs, name = [*pairs_of(settings or {}), *pairs_of(keys)], ""
    if isinstance(given, Experiment):
        config = resolve.changed_experiment(given, pairs, verb)
    elif isinstance(given, Mapping):
        pairs = [*pairs_of(given), *pairs]
        config = resolve.resolve_experiment("", pairs, verb)
    else:
        config, name = resolve.resolve_experiment(os.fspath(given), pairs, verb), Path(given).stem
    if in_memory:
        config = replace(config, data=replace(config.data, name="memory", path=""))
    return config, name or config.data.name, pairs


def continued(
    given: str | os.PathLike[str] | Experiment | Settings,
    settings: Settings | None,
    keys: Settings,
    run: str | os.PathLike[str],
    resume: bool,
) -> str | os.PathLike[str] | Experiment | Settings:
    """Return the experiment that was given, or that of the run which is to continue where none was."""
    if given != "":
        return given
    place = launch_of([*pairs_of(settings or {}), *pairs_of(keys)], run, resume)
    return resolve.experiment_of_run(Path(place.run)) if place.resume else given


def launch_of(pairs: Pairs, run: str | os.PathLike[str] = "", resume: bool = False) -> Launch:
    """Return the place of a run, which may stand among the keys too. Raises InputError."""
    folder = [("run", os.fspath(run))] if os.fspath(run) else []
    return resolve.resolve_launch([*pairs, *folder, *([("resume", True)] if resume else [])])


def command_options(schema: type[Options], settings: Settings | None, keys: Settings) -> tuple[Options, frozenset[str]]:
    """Return a command's options, and the full names of those that were given. Raises InputError."""
    pairs = [*pairs_of(settings or {}), *pairs_of(keys)]
    return parse_settings(schema, pairs), frozenset(full_name(schema, key) for key, _ in pairs)


def pairs_of(settings: Settings, prefix: str = "") -> Pairs:
    """Return (dotted key, value) of a mapping, and of the mappings in it."""
    found: Pairs = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += pairs_of(value, f"{prefix}{key}.")
        else:
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            found.append((f"{prefix}{key}", list(plain) if isinstance(plain, tuple) else plain))
    return found


def names_in(part: str, pairs: Iterable[tuple[str, Any]], verb: str) -> dict[str, str]:
    """Return the given keys that belong to a section of an experiment, with their full names."""
    return resolve.keys_given_in(part, list(pairs), verb)

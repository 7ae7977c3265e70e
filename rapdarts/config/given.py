"""Settings from a command line or a program: the experiment, the folder of its run, and a command's options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rapdarts.config.command_keys import parse_options
from rapdarts.config.experiment import PLACED, DataConfig, Experiment, Launch, budget_limits
from rapdarts.config.key_values import full_name, plain
from rapdarts.config.resolve import (
    Pairs,
    changed_experiment,
    experiment_of_run,
    keys_given_in,
    resolve_experiment,
    resolve_launch,
)
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import COMMANDS, RunFile, begun, resuming, verb_of

AnyPath = str | os.PathLike[str]
Settings = Mapping[str, Any]
Options = TypeVar("Options")

ON_GENOTYPES = ("search.budget.", "search.rule", "search.max_skips", "search.skip_paths", "search.spend")
"""Prefixes of the keys that choose a genotype; a retraining rejects them."""


@dataclass(frozen=True)
class Given:
    """A resolved experiment, the name of its run (`called`), the given (key, value) `pairs`, and the `launch` settings among them."""

    config: Experiment
    called: str
    pairs: Pairs
    launch: Launch


def find_experiment(
    verb: str,
    experiment: AnyPath | Experiment | Settings,
    settings: Settings | None,
    keys: Settings,
    run: AnyPath = "",
    resume: bool = False,
    *,
    origin: Path | None = None,
    in_memory: bool = False,
) -> Given:
    """Return the given experiment or, if none is given, the experiment of the run to resume or of the run `origin`.

    `experiment` is a name, a file, an `Experiment`, or a mapping that overrides the defaults. `settings` and `keys` override the
    experiment; a key without its section is looked up in the section of `verb` first. `origin` is the run folder that a
    network comes from, and `in_memory` means that a program gives the data. Raises InputError if no argument
    determines the data, or if `origin` has different data and data.name does not confirm the new data.
    """
    named, called, base = plain(experiment), "", None
    pairs = [*pairs_of(settings or {}), *pairs_of(keys)]
    if isinstance(named, Mapping):
        pairs, named = [*pairs_of(named), *pairs], ""
    launch = launch_of(verb, pairs, run, resume)
    confirmed = in_memory or "data.name" in keys_given_in("data", pairs, verb).values()
    if isinstance(named, Experiment):
        base = named
    elif os.fspath(named):
        called = Path(named).stem
    elif experiment == "":
        base = _unnamed(verb, launch, origin, confirmed)
    if base is None:
        config = resolve_experiment(os.fspath(named), pairs, verb)
    else:
        config = changed_experiment(base, pairs, verb)
    if origin is not None and experiment != "" and not confirmed:
        check_same_data(origin, config.data, called or "given")
    if in_memory:
        config = replace(config, data=replace(config.data, name="memory", path=""))
    if verb == "find":
        config = with_own_budgets(config, pairs)
    if launch.resume and begun(Path(launch.run)):
        config = as_begun(config, Path(launch.run))
    return Given(config, _called(config.data, called), pairs, launch)


def with_own_budgets(config: Experiment, pairs: Pairs) -> Experiment:
    """Return the experiment without the default budgets of its file if `pairs` set any budget."""
    given = {name.rpartition(".")[2] for name in keys_given_in("search", pairs, "find").values() if ".budget." in name}
    budget = config.search.budget
    if given:
        budget = replace(budget, **{name: None for name in budget_limits(budget) if name not in given})
    return replace(config, search=replace(config.search, budget=budget))


def _called(data: DataConfig, experiment: str) -> str:
    """Return the name of a run, taken from the user's own data, the experiment or the data set, in this order."""
    return data.called if data.name in (*PLACED, "memory") or not experiment else experiment


def _unnamed(verb: str, launch: Launch, origin: Path | None, confirmed: bool) -> Experiment | None:
    """Return the experiment of the run to resume or of the run `origin`, or None if the data are given and the defaults apply."""
    if launch.resume and (origin is None or os.path.isfile(Path(launch.run) / RunFile.CONFIG)):
        return experiment_of_run(Path(launch.run))
    if origin is not None and os.path.isfile(origin / RunFile.RANKING):
        raise InputError(
            f"{shorten(str(origin))} is a ranking, which trains its networks only briefly; add the experiment to train with,"
            " such as digits."
        )
    if origin is not None:
        return experiment_of_run(origin)
    if confirmed:
        return None
    if verb == "retrain":
        raise InputError("rapdarts retrain needs an experiment after the network, such as digits.")
    raise InputError(f"rapdarts {verb} needs an experiment, such as digits; see rapdarts {verb} --help.")


def as_begun(config: Experiment, folder: Path) -> Experiment:
    """Return the experiment of a run to resume, with the run's own values in place of `auto`.

    Runs of older versions have explicit values for keys that now default to `auto`, and may allow `none` on derived edges. If the
    configuration of the run is lost, the experiment is returned unchanged, and the run's checkpoint tells whether it fits.
    """
    if not os.path.isfile(folder / RunFile.CONFIG):
        return config
    search, own = config.search, experiment_of_run(folder).search
    search = replace(
        search,
        rule=own.rule if search.rule == "auto" else search.rule,
        max_skips=own.max_skips if search.max_skips < 0 else search.max_skips,
        spend=own.spend if search.spend < 0 else search.spend,
        derive_none=search.derive_none or own.derive_none,
        skip_paths=own.skip_paths if search.skip_paths == "auto" else search.skip_paths,
    )
    return replace(config, search=search)


def place_of(data: DataConfig) -> tuple[str, str]:
    """Return the name of the data, and the absolute path of the user's own data; equal values mean the same data, except in memory."""
    return data.name, os.path.realpath(data.path) if data.name in PLACED else ""


def check_same_data(folder: Path, asked: DataConfig, experiment: str) -> None:
    """Raise InputError if an experiment and the run in `folder` use different data; the message names the key that confirms the change."""
    own = experiment_of_run(folder).data
    if place_of(own) != place_of(asked):
        run, other = (f"{data.name} {data.path}".strip() for data in (own, asked))
        raise InputError(
            f"{folder} is a run on {run}, but the experiment {shorten(experiment)} uses {other}; leave the"
            f" experiment out to use the run's data, or confirm the other data with data.name={asked.name}."
        )


def check_genotype_keys(pairs: Pairs) -> None:
    """Raise InputError for a key that chooses a genotype, such as a budget; a retraining trains exactly the given genotype."""
    for key, name in keys_given_in("search", pairs, "retrain").items():
        if name.startswith(ON_GENOTYPES):
            raise InputError(
                f"rapdarts retrain trains a given genotype and does not use {key}=; derive another genotype with"
                f" rapdarts derive RUN {name.removeprefix('search.')}={shorten(str(dict(pairs)[key]))} out=FILE (in Python,"
                " rapdarts.derive), and retrain it."
            )


def launch_of(verb: str, pairs: Pairs, run: AnyPath = "", resume: bool = False) -> Launch:
    """Return the run folder, which may also be given among the keys, and whether to resume.

    Raises InputError, for example if another command than `verb` started the run to resume.
    """
    folder = [("run", os.fspath(run))] if os.fspath(run) else []
    launch = resolve_launch([*pairs, *folder, *([("resume", True)] if resume else [])])
    if launch.resume and begun(Path(launch.run)):
        own = COMMANDS.get(verb_of(Path(launch.run)), verb).split()[0]
        if own != verb:
            raise InputError(f"{launch.run} is a run of rapdarts {own}; use {resuming(Path(launch.run))}.")
    return launch


def command_options(schema: type[Options], settings: Settings | None, keys: Settings) -> tuple[Options, frozenset[str]]:
    """Return the options of a command, and the full names of the given keys. Raises InputError."""
    pairs = [*pairs_of(settings or {}), *pairs_of(keys)]
    return parse_options(schema, pairs), frozenset(full_name(schema, key) for key, _ in pairs)


def pairs_of(settings: Settings, prefix: str = "") -> Pairs:
    """Return the (dotted key, value) pairs of a nested mapping, which may be an OmegaConf configuration."""
    found: Pairs = []
    for key, value in plain(settings).items():
        if isinstance(value, Mapping):
            found += pairs_of(value, f"{prefix}{key}.")
        else:
            item = getattr(value, "file", value)  # a measured latency table is passed on as its file
            item = os.fspath(item) if isinstance(item, os.PathLike) else item
            found.append((f"{prefix}{key}", list(item) if isinstance(item, tuple) else item))
    return found

"""Experiments put together: an experiment file over the presets it names, the command line on top, and what must fit together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rapdarts.config.experiment import Experiment, Launch, budget_limits, check_device
from rapdarts.config.key_values import Key, checked, full_name, get, keys, parse_settings
from rapdarts.config.presets import PRESETS
from rapdarts.errors import InputError, shorten, suggestion
from rapdarts.files.run_files import RunFile
from rapdarts.files.yaml import read_yaml

HARMLESS = ("save_seconds", "threads", "device", "data.path", "data.download", "search.checkpoint")
"""Knobs that may change at a resume. Other threads and another device round otherwise, and the run says so then."""


Pairs = list[tuple[str, Any]]

OLDER = {"search.spend": 0.0, "search.derive_none": True, "search.skip_paths": "any"}
"""What runs did that are older than these keys."""


def resolve_experiment(name_or_path: str, given: Sequence[tuple[str, Any]], section: str = "") -> Experiment:
    """Return the experiment that a user names (one that ships, or a YAML file), with the (key, value) pairs of the command line on top.

    A file means the same to every verb; on the command line a key without its section is looked for in `section`
    first. Raises InputError for an unknown name, an unreadable file, or a wrong key, type or range.
    """
    return _completed(_file_settings(experiment_file(name_or_path)) if name_or_path else [], given, section)


def changed_experiment(config: Experiment, given: Sequence[tuple[str, Any]], section: str = "") -> Experiment:
    """Return a copy of an experiment, with (key, value) pairs on top as in `resolve_experiment`. Raises InputError."""
    return _completed([(key.name, get(config, key.name)) for key in keys(Experiment)], given, section)


def _completed(settings: Pairs, given: Sequence[tuple[str, Any]], section: str) -> Experiment:
    """The experiment of settings under their full names, with the pairs of a command line on top."""
    named = checked(Experiment, _split(given)[1], section, beside=Launch)
    config = parse_settings(Experiment, settings + _presets(named, settings) + named)
    check_experiment(config)
    return config


def resolve_launch(given: Sequence[tuple[str, Any]]) -> Launch:
    """Return the folder of the run that the pairs describe, and whether it resumes. Raises InputError."""
    found = parse_settings(Launch, _split(given)[0])
    if found.resume and not found.run:
        raise InputError("resume=true needs run=PATH, the folder of the run to continue.")
    return found


def keys_given_in(part: str, given: Sequence[tuple[str, Any]], section: str) -> dict[str, str]:
    """Return the keys of the section `part` that the pairs of a command line set: as they were given, with their full names."""
    names = {key: full_name(Experiment, key, section, beside=Launch) for key, _ in _split(given)[1]}
    return {key: name for key, name in names.items() if name.startswith(f"{part}.")}


def _split(given: Sequence[tuple[str, Any]]) -> tuple[Pairs, Pairs]:
    """The pairs of the launch, and those of the experiment."""
    of_launch = {key.name for key in keys(Launch)}
    return [pair for pair in given if pair[0] in of_launch], [pair for pair in given if pair[0] not in of_launch]


def _file_settings(path: Path) -> list[tuple[str, Any]]:
    """The settings of an experiment file under their full names, checked, over what its strategy and recipe preset."""
    sections = {key.name.rpartition(".")[0] for key in keys(Experiment)}
    written = [(key, value) for key, value in read_yaml(path) if not (value is None and key in sections)]
    named = checked(Experiment, written, where=str(path))
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: the key {name} stands here twice; keep one.")
    return _presets(named, []) + named


def _presets(named: Pairs, before: Pairs) -> Pairs:
    """Return the presets of what `named` chooses; they lie under `named`, and over the settings `before`."""
    defaults = {key.name: key.default for key in keys(Experiment)}
    found: Pairs = []
    for chooser, presets in PRESETS.items():
        chosen, old = dict(named).get(chooser), dict(before).get(chooser, defaults[chooser])
        if chosen in presets:
            names = presets.get(old, {}) | presets[chosen]
            found += [(name, presets[chosen].get(name, defaults[name])) for name in names]
    return found


def check_experiment(config: Experiment) -> None:
    """Check what no range of a single knob can say. Raises InputError."""
    search = config.search
    stages = len(search.layers)
    if not stages:
        raise InputError("search.layers is empty; give one depth a stage.")
    for name in ("candidates", "skip_dropout"):
        if len(getattr(search, name)) != stages:
            raise InputError(
                f"search.{name} has {len(getattr(search, name))} entries but search.layers has {stages}; give one a stage."
            )
    if any(later == 0 for later in search.candidates[1:]):
        raise InputError("search.candidates: only the first stage keeps all (0); later ones give a number.")
    if search.warmup_epochs >= search.epochs:
        raise InputError(
            f"search.warmup_epochs={search.warmup_epochs} leaves no epoch of {search.epochs} to train alpha; make it smaller."
        )
    if search.channels % search.partial_channels:
        raise InputError(
            f"search.partial_channels={search.partial_channels} does not divide search.channels={search.channels};"
            " give a divisor of it, or 1."
        )
    for section_name, section in (("search", search), ("retrain", config.retrain)):
        if section.lr_min > section.lr:
            raise InputError(
                f"{section_name}.lr_min={section.lr_min} is above {section_name}.lr={section.lr}; make it smaller."
            )
    retrain = config.retrain
    if retrain.warmup_epochs >= retrain.epochs and retrain.warmup_epochs:
        raise InputError(
            f"retrain.warmup_epochs={retrain.warmup_epochs} (of the recipe, if not of yours) leaves no epoch of {retrain.epochs} at"
            " the full learning rate; make it smaller, such as retrain.warmup_epochs=0."
        )
    if retrain.nesterov and not retrain.momentum:
        raise InputError("retrain.nesterov=true needs a momentum; add retrain.momentum=0.9, or leave it out.")
    limits = budget_limits(search.budget)
    if config.skeleton.channels == 0 and not limits:
        raise InputError("skeleton.channels=auto needs a budget to fill, such as budget.params=3.0M; or give a number.")
    if search.strategy == "random" and config.skeleton.channels == 0:
        raise InputError("strategy=random does not choose a width; set skeleton.channels to a number.")
    if search.strategy == "random" and limits and search.random.macs:
        raise InputError("search.random.macs and search.budget cannot be combined; remove one.")
    if search.latency and search.precision != 32:
        raise InputError(
            f"latency tables are measured in fp32, which search.precision={search.precision} is not; leave one of them out."
        )
    if not search.latency and (search.cost.latency or "latency" in limits):
        raise InputError(
            "a price or budget on latency needs search.latency=FILE, a table that rapdarts measure writes."
        )
    if len(config.data.mean) != len(config.data.std):
        raise InputError("data.mean and data.std must have the same length; give both, or neither.")
    check_device(config.device)


def experiment_of_run(folder: Path) -> Experiment:
    """Return the configuration that a run folder keeps. Raises InputError where there is none."""
    file = folder / RunFile.CONFIG
    if not os.path.isfile(file):
        raise InputError(f"{shorten(str(folder))} is not a run folder: it has no config.yaml.")
    pairs = list(read_yaml(file))
    return parse_settings(Experiment, [*(OLDER | dict(pairs)).items()], where=str(file))


def experiment_of_alphas(file: Path, needed: bool) -> Experiment:
    """Return the configuration beside an alphas.json; where there is none and none is `needed`, the defaults. Raises InputError."""
    beside = file.parent / RunFile.CONFIG
    return experiment_of_run(file.parent) if needed or os.path.isfile(beside) else Experiment()


def config_digest(config: Experiment) -> str:
    """Return the sha256 of all knobs that shape the result, as hex."""
    import hashlib  # takes longer to load than an experiment to resolve

    lines = [
        f"{key.name}={_digested(key, get(config, key.name))!r}" for key in keys(Experiment) if key.name not in HARMLESS
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digested(key: Key, value: Any) -> Any:
    """A value as it goes into a digest: amounts as texts of a plain number, as they always did."""
    return value if not key.facts["amount"] else "" if value is None else f"{value:.17g}"


def experiment_folder() -> Path:
    """Return the folder of the experiments that ship: beside the package in a checkout, inside it once installed."""
    packaged = Path(__file__).parents[1] / "experiments"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "experiments"


def experiment_names() -> list[str]:
    """Return the names of the experiments that ship."""
    return sorted(file.stem for file in experiment_folder().glob("*.yaml"))


def experiment_file(name_or_path: str) -> Path:
    """Return the YAML file of an experiment. Raises InputError, naming the nearest, for one that is not there."""
    path = Path(name_or_path)
    if os.path.isfile(path / RunFile.CONFIG):
        raise InputError(
            f"{shorten(name_or_path)} is a run folder, not an experiment; continue it with run={shorten(name_or_path)}"
            f" resume=true, or take its settings with {path / RunFile.CONFIG}."
        )
    if path.suffix in {".yaml", ".yml"}:
        if not os.path.isfile(path):
            raise InputError(f"there is no experiment file {shorten(name_or_path)}; change its path.")
        return path
    known = experiment_names()
    if name_or_path not in known:
        hint = suggestion(name_or_path, known)
        raise InputError(
            f"there is no experiment {shorten(repr(name_or_path))}; {hint}; a file of yours ends in .yaml."
        )
    return experiment_folder() / f"{name_or_path}.yaml"

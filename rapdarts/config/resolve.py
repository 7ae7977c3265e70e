"""Resolution of experiments: presets, then the experiment file, then the command line, and checks across knobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rapdarts.config.experiment import DataConfig, Experiment, Launch, SearchConfig, budget_limits, check_device
from rapdarts.config.finding import check_find
from rapdarts.config.key_values import Key, checked, full_name, get, keys, parse_settings
from rapdarts.config.own_resources import experiment_schema, names_in
from rapdarts.config.presets import PRESETS
from rapdarts.errors import DamagedError, InputError, plural, shorten, suggestion
from rapdarts.files.run_files import RunFile, begun
from rapdarts.files.yaml import load_yaml, read_yaml, text_of_yaml

HARMLESS = ("save_seconds", "threads", "device", "data.path", "data.download", "search.checkpoint", "search.kernels")
"""Knobs that may change when a run resumes. Rounding depends on threads, device and kernels; changes of the first two are reported."""


Pairs = list[tuple[str, Any]]

OLDER = {"search.spend": 0.0, "search.derive_none": True, "search.skip_paths": "any"}
"""Values of keys that are missing from runs of older versions; the defaults of all other missing keys are their older values."""

LATER = (
    *OLDER,
    "data.layout",
    "data.range",
    "find.",
    "retrain.class_weights",
    "search.class_weights",
    "search.kernels",
    "search.relax",
    "search.replicas",
)
"""Beginnings of the keys that are missing from config.yaml files of version 0.1.0, which have no seal."""


def resolve_experiment(name_or_path: str, given: Sequence[tuple[str, Any]], section: str = "") -> Experiment:
    """Return a shipped experiment, or the one in a YAML file, overridden by the (key, value) pairs of the command line.

    A file has the same meaning for every command. On the command line, a key without its section is looked up in `section` first.
    Raises InputError for an unknown name, an unreadable file, or a wrong key, type or range.
    """
    return _completed(_file_settings(experiment_file(name_or_path)) if name_or_path else [], given, section)


def changed_experiment(config: Experiment, given: Sequence[tuple[str, Any]], section: str = "") -> Experiment:
    """Return a copy of an experiment overridden by (key, value) pairs, as in `resolve_experiment`. Raises InputError."""
    return _completed([(key.name, get(config, key.name)) for key in keys(type(config))], given, section)


def _completed(settings: Pairs, given: Sequence[tuple[str, Any]], section: str) -> Experiment:
    """Return the experiment that `settings` with full names describe, overridden by the pairs of a command line."""
    schema = experiment_schema(*names_in(dict(settings)))
    named = checked(schema, _split(given)[1], section, beside=Launch)
    config = parse_settings(schema, settings + _presets(named, settings) + named)
    check_experiment(config)
    return config


def resolve_launch(given: Sequence[tuple[str, Any]]) -> Launch:
    """Return the run folder that the pairs describe, and whether to resume the run. Raises InputError."""
    found = parse_settings(Launch, _split(given)[0])
    if found.resume and not found.run:
        raise InputError("resume=true needs run=PATH, the folder of the run to continue.")
    return found


def keys_given_in(part: str, given: Sequence[tuple[str, Any]], section: str) -> dict[str, str]:
    """Return the keys of the section `part` that a command line sets, as a mapping from given keys to full names."""
    names = {key: full_name(experiment_schema(), key, section, beside=Launch) for key, _ in _split(given)[1]}
    return {key: name for key, name in names.items() if name.startswith(f"{part}.")}


def _split(given: Sequence[tuple[str, Any]]) -> tuple[Pairs, Pairs]:
    """Split pairs into launch settings and experiment settings."""
    of_launch = {key.name for key in keys(Launch)}
    return [pair for pair in given if pair[0] in of_launch], [pair for pair in given if pair[0] not in of_launch]


def _file_settings(path: Path) -> list[tuple[str, Any]]:
    """Return the presets of an experiment file's strategy and recipe, followed by its checked settings, with full names."""
    sections = {key.name.rpartition(".")[0] for key in keys(Experiment)}
    written = [(key, value) for key, value in read_yaml(path) if not (value is None and key in sections)]
    of_run = names_in(dict(written)) if path.name == RunFile.CONFIG else ()
    named = checked(experiment_schema(*of_run), written, where=str(path))
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: the key {name} appears twice; keep one.")
    return _presets(named, []) + named


def _presets(named: Pairs, before: Pairs) -> Pairs:
    """Return the presets of the values in `named`; `named` overrides them, and they override the settings `before`."""
    defaults = {key.name: key.default for key in keys(Experiment)}
    found: Pairs = []
    for chooser, presets in PRESETS.items():
        chosen, old = dict(named).get(chooser), dict(before).get(chooser, defaults[chooser])
        if chosen in presets:
            names = presets.get(old, {}) | presets[chosen]
            found += [(name, presets[chosen].get(name, defaults[name])) for name in names]
    return found


def check_experiment(config: Experiment) -> None:
    """Raise InputError if a combination of knobs is invalid."""
    search = config.search
    stages = len(search.layers)
    if not stages:
        raise InputError("search.layers is empty; set one depth per stage.")
    for name in ("candidates", "skip_dropout"):
        if len(getattr(search, name)) != stages:
            raise InputError(
                f"search.{name} needs {plural(stages, 'value')}, one for each stage in search.layers; it has {len(getattr(search, name))}."
            )
    if any(later == 0 for later in search.candidates[1:]):
        raise InputError(
            "search.candidates: only the first stage may keep all candidates (0); use a positive number for every later stage."
        )
    if search.warmup_epochs >= search.epochs:
        raise InputError(
            f"search.warmup_epochs={search.warmup_epochs} leaves no epoch of search.epochs={search.epochs} to train alpha;"
            " reduce search.warmup_epochs."
        )
    if search.kernels == "triton" and search.supernet == "plain":
        raise InputError(
            "search.kernels=triton needs the batched supernet; set search.supernet=batched, or search.kernels=auto."
        )
    if search.channels % search.partial_channels:
        raise InputError(
            f"search.partial_channels={search.partial_channels} does not divide search.channels={search.channels};"
            f" use a divisor of {search.channels}, such as 1."
        )
    for section_name, section in (("search", search), ("retrain", config.retrain)):
        if section.lr_min > section.lr:
            raise InputError(
                f"{section_name}.lr_min={section.lr_min} is above {section_name}.lr={section.lr}; reduce {section_name}.lr_min."
            )
    retrain = config.retrain
    if retrain.warmup_epochs >= retrain.epochs and retrain.warmup_epochs:
        raise InputError(
            f"retrain.warmup_epochs={retrain.warmup_epochs} (set by you or by the recipe) leaves no epoch of"
            f" retrain.epochs={retrain.epochs} at the full learning rate; set a smaller value, such as retrain.warmup_epochs=0."
        )
    if retrain.nesterov and not retrain.momentum:
        raise InputError(
            "retrain.nesterov=true needs momentum; add retrain.momentum=0.9, or set retrain.nesterov=false."
        )
    limits = budget_limits(search.budget)
    if config.skeleton.channels == 0 and not limits:
        raise InputError(
            "skeleton.channels=auto needs a budget; add one, such as budget.params=3.0M, or set skeleton.channels to a number."
        )
    if search.strategy == "random" and config.skeleton.channels == 0:
        raise InputError("strategy=random does not choose a width; set skeleton.channels to a number.")
    if search.strategy == "random" and limits and search.random.macs:
        raise InputError("search.random.macs and search.budget cannot be combined; remove one.")
    _check_latency(config)
    check_data_settings(config.data)
    check_find(config.find)
    check_device(config.device)


def check_data_settings(data: DataConfig) -> None:
    """Raise InputError if a list in the section `data` is invalid."""
    if data.range and not (len(data.range) == 2 and data.range[0] < data.range[1]):
        given = ",".join(f"{value:g}" for value in data.range)
        raise InputError(f"data.range={given} must be two values, the smaller one first, such as data.range=0,1.")
    if len(data.mean) != len(data.std):
        raise InputError(
            "data.mean and data.std must have the same length; set one number per channel in each, or leave both out."
        )


def _check_latency(config: Experiment) -> None:
    """Raise InputError if other settings make it impossible to measure latency or to look it up."""
    search = config.search
    if (search.latency or wants_latency(search)) and search.precision != 32:
        raise InputError(
            f"latency is measured in fp32 and cannot be combined with search.precision={search.precision}; leave out one of the two."
        )
    if wants_latency(search) and not search.latency and search.latency_of:
        raise InputError(
            f"search.latency_of={search.latency_of} needs a latency table that was measured on that device; add"
            " search.latency=FILE."
        )


def check_one_width(config: Experiment) -> None:
    """Raise InputError if a search would have to measure latency at several widths."""
    if config.skeleton.channels == 0 and wants_latency(config.search) and not config.search.latency:
        raise InputError(
            "skeleton.channels=auto cannot be used with a price or a budget on latency in a search, which measures it at one width; set"
            " skeleton.channels to a number, or use rapdarts find."
        )


def wants_latency(search: SearchConfig) -> bool:
    """Return whether a search needs a latency table; prices do not count for a random baseline."""
    priced = search.cost.latency > 0 and search.strategy != "random"
    return priced or search.budget.latency is not None


def experiment_of_run(folder: Path) -> Experiment:
    """Return the configuration saved in a run folder.

    Raises InputError if there is none, and DamagedError if it is damaged, lacks keys, or is not that of the finished run.
    """
    from rapdarts.files import seal  # help does not need it

    file = folder / RunFile.CONFIG
    if not os.path.lexists(file):
        if begun(folder):
            raise InputError(
                f"{file} is missing; repeat the whole command that started the run, with resume=true (environment.json has the command)."
            )
        raise InputError(f"{shorten(str(folder))} is not a run folder (no config.yaml); check its path.")
    text = text_of_yaml(file)
    sealed, written = seal.check_yaml(text, file), dict(load_yaml(text, file))
    if not sealed:
        seal.report_unsealed(file)
        _check_complete(written, file)
    pairs = OLDER | written
    config = parse_settings(experiment_schema(*names_in(pairs)), [*pairs.items()], where=str(file))
    if sealed:
        seal.check_belongs(file, run_digest(config))
    return config


def _check_complete(written: Mapping[str, Any], file: Path) -> None:
    """Raise DamagedError if a configuration without a seal lacks a key that every version wrote, as a file cut short does."""
    missing = [key.name for key in keys(Experiment) if key.name not in written and not key.name.startswith(LATER)]
    if missing:
        raise DamagedError(f"{file} is damaged or was edited: {shorten(', '.join(missing))} is missing; add it again.")


def experiment_of_alphas(file: Path, needed: bool) -> Experiment:
    """Return the configuration next to an alphas.json, or the defaults if there is none and it is not `needed`. Raises InputError."""
    beside = file.parent / RunFile.CONFIG
    return experiment_of_run(file.parent) if needed or os.path.isfile(beside) else Experiment()


def config_digest(config: Experiment) -> str:
    """Return the sha256 of all knobs that affect the result of a search or a training, as hex."""
    return _digest(config, [key for key in keys(type(config)) if not key.name.startswith("find.")])


def run_digest(config: Experiment) -> str:
    """Return the sha256, as hex, of all settings that may not change when a run resumes.

    Settings with the value that runs without the key have are left out, so that the digest of a run stays valid when keys are added.
    """
    known = keys(type(config))
    return _digest(config, [key for key in known if get(config, key.name) != OLDER.get(key.name, key.default)])


def _digest(config: Experiment, among: Sequence[Key]) -> str:
    """Return the sha256, as hex, of some settings with their names, without the HARMLESS ones."""
    import hashlib  # importing it takes longer than resolving an experiment

    lines = [f"{key.name}={_digested(key, get(config, key.name))!r}" for key in among if key.name not in HARMLESS]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digested(key: Key, value: Any) -> Any:
    """Return a value for the digest; amounts become strings of plain numbers, so that digests of older versions stay valid."""
    return value if not key.facts["amount"] else "" if value is None else f"{value:.17g}"


def experiment_folder() -> Path:
    """Return the folder of the shipped experiments: next to the package in a checkout, inside it after installation."""
    packaged = Path(__file__).parents[1] / "experiments"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "experiments"


def experiment_names() -> list[str]:
    """Return the names of the shipped experiments."""
    return sorted(file.stem for file in experiment_folder().glob("*.yaml"))


def experiment_file(name_or_path: str) -> Path:
    """Return the YAML file of an experiment. Raises InputError, which suggests the nearest name, if there is no such experiment."""
    path = Path(name_or_path)
    if os.path.isfile(path / RunFile.CONFIG):
        raise InputError(
            f"{shorten(name_or_path)} is a run folder, not an experiment; resume it with run={shorten(name_or_path)}"
            f" resume=true, or pass {path / RunFile.CONFIG} to use its settings."
        )
    if path.suffix in {".yaml", ".yml"}:
        if not os.path.isfile(path):
            raise InputError(f"there is no experiment file {shorten(name_or_path)}; check its path.")
        return path
    known = experiment_names()
    if name_or_path not in known:
        hint = suggestion(name_or_path, known)
        raise InputError(
            f"there is no experiment {shorten(repr(name_or_path))}; {hint}. The name of your own file must end in .yaml."
        )
    return experiment_folder() / f"{name_or_path}.yaml"

"""The folder of a run: check it, read the state to resume from, and record the configuration and the environment in it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.config import experiment as configuration
from rapdarts.config import given, key_values, resolve
from rapdarts.errors import DamagedError, InputError, plural
from rapdarts.files import atomic as files
from rapdarts.files import seal
from rapdarts.files.run_files import RESULTS, RunFile, begun
from rapdarts.interruptions import during
from rapdarts.training import checkpoint
from rapdarts.training.log import Screen
from rapdarts.training.state import check_state, with_records
from rapdarts.version import __version__

CONFIGURATION = "configuration"
"""Name, in the origin of a checkpoint, of the digest of the settings that may not change."""


@dataclass(frozen=True)
class Begin:
    """The start of a run: its folder, the facts that identify it, and the state to resume from; None if it starts from the beginning."""

    folder: str
    origin: dict[str, str]
    resumed: dict[str, Any] | None


def prepare(
    verb: str,
    config: configuration.Experiment,
    launch: configuration.Launch,
    name: str,
    origin: dict[str, str],
    processes: int,
    screen: Screen,
    about: Sequence[str],
) -> Begin:
    """Read the state to resume from in a folder whose lock is held, and write the configuration and the environment.

    `config` and `origin` are those of `check_same_run`. Raises StorageError or DamagedError.
    """
    folder = Path(launch.run)
    resumed = _load(folder, origin, screen) if launch.resume else None
    environment = _environment_of(folder, verb, config.device, processes, screen)
    files.remove_leftovers(folder)
    files.write_atomically(folder / RunFile.CONFIG, seal.seal_yaml(key_values.save_yaml(config)))
    files.write_atomically(folder / RunFile.ENVIRONMENT, seal.seal_json(json.dumps(environment, indent=2) + "\n"))
    together = f", {processes} processes" if processes > 1 else ""
    threads = f"the CPU with {plural(environment['threads'], 'thread')}"
    for line in about:
        screen.say(line)
    screen.say(f"{verb} {name} in {folder}, on {environment['gpu'] or threads}{together}")
    return Begin(str(folder), origin, resumed)


def check_same_run(
    launch: configuration.Launch, config: configuration.Experiment, origin: Mapping[str, str]
) -> tuple[configuration.Experiment, dict[str, str]]:
    """Return the configuration to save, and the origin of the checkpoints of a run: its digest, and the given facts.

    Raises InputError or DamagedError if the folder holds a run with another configuration or origin. Nothing is wrong with that run.
    """
    folder = Path(launch.run)
    # The configuration comes first: another seed also changes the fingerprint of the data.
    config = _checked(folder, config)
    origin = {CONFIGURATION: resolve.run_digest(config), **origin}
    if launch.resume:
        checkpoint.check_origin(folder / RunFile.CHECKPOINT, origin)
    return config, origin


def _checked(folder: Path, config: configuration.Experiment) -> configuration.Experiment:
    """Return the configuration to save. Raises InputError if the run in the folder has a different one."""
    if not begun(folder):
        return config  # a run that failed before it saved anything has nothing to lose
    if not os.path.isfile(folder / RunFile.CONFIG):
        if CONFIGURATION not in checkpoint.origin_of(folder / RunFile.CHECKPOINT):
            raise DamagedError(
                f"{folder} has no config.yaml, and no checkpoint that records the settings; start a new run in another"
                " folder with run=PATH."
            )
        return config  # the checkpoint is compared with it
    old, config = resolve.experiment_of_run(folder), given.as_begun(config, folder)
    changed = [line for line in key_values.differences(old, config) if line.partition(":")[0] not in resolve.HARMLESS]
    if changed:
        raise InputError(
            f"{folder} was started with a different configuration ({'; '.join(changed)}); resume with the same keys."
        )
    return config


@during("reading the checkpoint")
def _load(folder: Path, origin: Mapping[str, str], screen: Screen) -> dict[str, Any] | None:
    """Return the state to resume from, or None if the run was stopped before its first checkpoint."""
    found = checkpoint.load_checkpoint(folder / RunFile.CHECKPOINT, origin, check_state)
    finished = (folder / RunFile.RESULT).exists()
    if found is not None:
        state, damage = found
        resuming = f"{damage}; resuming from the previous one" if damage else f"resuming {folder} from its checkpoint"
        screen.say(f"{folder} is finished; writing its result again" if finished and not damage else resuming)
        return with_records(state, folder / RunFile.METRICS)
    if finished or any((folder / name).exists() for name in RESULTS):
        raise DamagedError(
            f"{folder} holds results but no checkpoint to continue from; start a new run in another folder with run=PATH."
        )
    screen.say(f"no checkpoint in {folder}: starting from the beginning")
    return None


def _environment_of(folder: Path, verb: str, device: str, processes: int, screen: Screen) -> dict[str, Any]:
    """Return the content of environment.json: the environments in which the run was started and resumed. Also report changes."""
    now, path = _environment(verb, device, processes), folder / RunFile.ENVIRONMENT
    if not os.path.lexists(path):
        return now
    try:
        first = {"processes": 1, **seal.read_sealed(path)}
        if not isinstance(first.get("resumed", []), list):
            raise DamagedError(f"{path} is damaged (resumed is not a list).")
    except DamagedError:  # nothing that the training needs is in it
        kept = files.set_aside(path)
        screen.say(
            f"{path} is damaged; it is kept as {kept}, and replaced by one without the earlier environments of the run"
        )
        return now
    changed = [
        f"{name} {first.get(name)} -> {now[name]}" for name in now if name != "command" and first.get(name) != now[name]
    ]
    if changed:
        screen.say(f"the environment has changed, so the result may not be bit-identical: {', '.join(changed)}")
    return {**first, "resumed": [*first.get("resumed", []), now]}


def _environment(verb: str, device: str, processes: int) -> dict[str, Any]:
    """Return the environment that results may depend on; results are bit-identical only in equal environments."""
    return {
        "verb": verb,
        "command": sys.argv[1:],
        "device": device,
        "rapdarts": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "gpu": torch.cuda.get_device_name() if device != "cpu" and torch.cuda.is_available() else None,
    }

"""The experiment that a command line names: by its word, by the run that continues, or by the run folder it begins from."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from rapdarts.cli.arguments import Call
from rapdarts.cli.output import out
from rapdarts.config import key_values, resolve
from rapdarts.config.experiment import Experiment
from rapdarts.config.resolve import continued, launch_of, read_experiment
from rapdarts.deploy.space_lookup import find_space
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile


def resolve_call(call: Call, missing: str, place: int = 0, run: str = "") -> Experiment:
    """Return the experiment of a command line: the word at `place`, else that of the run to continue or of the folder `run`.

    Raises InputError, which says what is `missing`, where there is none.
    """
    own = resolve.experiment_of_run(Path(run)) if os.path.isfile(Path(run) / RunFile.CONFIG) else None
    if not (call.word(place) or own or launch_of(call.pairs).resume):
        raise InputError(missing)
    given = call.word(place) or own or continued("", call.values, {}, "", False)
    config, _, _ = read_experiment(call.verb, given, call.values, {})
    if call.space:
        config = replace(config, search=replace(config.search, space=find_space(call.space_file).name))
    return config


def print_config(call: Call, config: Experiment) -> None:
    """Print the resolved configuration."""
    out(json.dumps(asdict(config), indent=2) + "\n" if call.json else key_values.save_yaml(config), end="")

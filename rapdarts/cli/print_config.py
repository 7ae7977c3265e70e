"""Resolve the experiment of a command line, and print it for --print-config."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from rapdarts.cli.arguments import Call
from rapdarts.cli.output import out
from rapdarts.config import key_values
from rapdarts.config.experiment import Experiment
from rapdarts.config.given import find_experiment
from rapdarts.deploy.space_lookup import find_space


def resolve_call(call: Call, place: int = 0, origin: Path | None = None) -> Experiment:
    """Return the experiment of a command line. The word at `place` may name it; `origin` is the run folder of a network.

    For --print-config, `search.space` is set to the name of the space in the Python file of --space.
    """
    config = find_experiment(call.verb, call.word(place), call.values, {}, origin=origin).config
    if call.space and call.print_config:
        config = replace(config, search=replace(config.search, space=find_space(call.space_file).name))
    return config


def print_config(call: Call, config: Experiment) -> None:
    """Print the resolved configuration."""
    out(json.dumps(asdict(config), indent=2) + "\n" if call.json else key_values.save_yaml(config), end="")

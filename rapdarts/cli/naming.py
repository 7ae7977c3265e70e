"""What a command line names, made into the things themselves: experiments, spaces, genotypes, networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.cli.arguments import Call
from rapdarts.cli.help import COMMANDS
from rapdarts.cli.output import out
from rapdarts.config import knobs, resolve
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.units import show
from rapdarts.errors import InputError

if TYPE_CHECKING:
    from rapdarts.architecture.space import SearchSpace
    from rapdarts.loops.launch import Plan


def experiment_asked(
    call: Call, name: str, unless_given: Sequence[tuple[str, Any]] = ()
) -> tuple[Experiment | None, Launch]:
    """The experiment and where it is to run; None where only the configuration was asked for, and has been printed.

    `unless_given` are settings over the experiment's file and under the command line.
    """
    config = resolve.resolve_experiment(name, [*unless_given, *call.pairs], COMMANDS[call.verb].section)
    launch = resolve.resolve_launch(call.pairs)
    if call.space:
        config = replace(config, search=replace(config.search, space=space_asked("", call.space).name))
    if not call.print_config:
        return config, launch
    out(json.dumps(asdict(config), indent=2) + "\n" if call.json else knobs.save_yaml(config), end="")
    return None, launch


def space_asked(name: str, file: str) -> SearchSpace:
    """The space in the user's own file if one was named, or the one that ships under that name."""
    from rapdarts.deploy.lookup import named_space, space_from_file

    space = space_from_file(Path(file)) if file else named_space(name)
    if file:
        from rapdarts.networks.primitives import check_primitives

        check_primitives(space, file)
    if name and space.name != name:
        raise InputError(f"--space {file} holds the space {space.name}, but {name} is asked for.")
    return space


def plan_asked(call: Call, target: str) -> Plan:
    """How the network that a user names is built on a data set. Raises InputError as `launches.plan_for` does."""
    from rapdarts.loops.launch import plan_for

    asked = resolve.keys_given_in("skeleton", call.pairs, call.verb)
    return plan_for(target, lambda name: space_asked(name, call.space), asked, "--space" if call.space else "")


def costs_line(costs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {show(value, name)}" for name, value in costs.items())

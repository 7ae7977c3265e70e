"""What a command line names, made into the things themselves: experiments, spaces, genotypes, networks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rapdarts
from rapdarts import config as configuration
from rapdarts import knobs
from rapdarts.call import Call, out
from rapdarts.config import Experiment, Launch, SearchConfig
from rapdarts.errors import InputError
from rapdarts.help import COMMANDS
from rapdarts.plain_yaml import shorten
from rapdarts.quantities import show

if TYPE_CHECKING:
    from rapdarts.blueprint import Blueprint
    from rapdarts.genotype import Genotype
    from rapdarts.space import SearchSpace
    from rapdarts.training.data import DataSet


def experiment_asked(
    call: Call, name: str, unless_given: Sequence[tuple[str, Any]] = ()
) -> tuple[Experiment | None, Launch]:
    """The experiment and where it is to run; None where only the configuration was asked for, and has been printed.

    `unless_given` are settings over the experiment's file and under the command line.
    """
    config = configuration.experiment(name, [*unless_given, *call.pairs], COMMANDS[call.verb].section)
    launch = configuration.launch(call.pairs)
    if call.space:
        config.search.space = space_asked("", call.space).name
    if not call.print_config:
        return config, launch
    out(json.dumps(asdict(config), indent=2) + "\n" if call.json else knobs.save_yaml(config), end="")
    return None, launch


def space_asked(name: str, file: str) -> SearchSpace:
    """The space in the user's own file if one was named, or the one that ships under that name."""
    from rapdarts.space import named_space, space_from_file

    space = space_from_file(Path(file)) if file else named_space(name)
    if file:
        from rapdarts.networks.primitives import check_primitives

        check_primitives(space, file)
    if name and space.name != name:
        raise InputError(f"--space {file} holds the space {space.name}, but {name} is asked for.")
    return space


def source(file: str) -> str:
    """What a file of the user's says: the run remembers it, and notices a change."""
    return Path(file).read_text(encoding="utf-8", errors="replace") if os.path.isfile(file) else ""


def blueprints(call: Call, target: str) -> Callable[[Experiment, DataSet], Blueprint]:
    """The network a user names, as it is to be built on a data set: a reference network, or that of a genotype.

    Of a genotype, the skeleton that is built is noted in the experiment. Raises InputError, before any data are read,
    for what cannot be built or keys that mean nothing for it.
    """
    from rapdarts.blueprint import DerivedBlueprint, ReferenceBlueprint
    from rapdarts.genotype import validate
    from rapdarts.loops.search import deployment_skeleton, skeleton_to_build
    from rapdarts.networks.reference import REFERENCE, find

    asked = [key for key, value in call.pairs if configuration.touches("skeleton", [(key, value)], call.verb)]
    name = find(target)
    if name is not None:
        if asked or call.space:
            useless = f"{asked[0]}=" if asked else "--space"
            raise InputError(f"{name} is a reference network, which has no use for {useless}; leave it out.")
        return lambda config, data: ReferenceBlueprint(name, data.image, data.classes)

    genotype, where = genotype_asked(target, REFERENCE)
    space = space_asked(genotype.space, call.space)
    validate(genotype, space, where)

    def derived(config: Experiment, data: DataSet) -> Blueprint:
        wanted = config.skeleton
        skeleton = deployment_skeleton(wanted, data) if asked else skeleton_to_build(genotype, wanted, data)
        config.skeleton = replace(wanted, layers=skeleton.layers, channels=skeleton.channels, stem=skeleton.stem)
        return DerivedBlueprint(genotype, space, skeleton)

    return derived


def genotype_asked(target: str, others: Iterable[str] = ()) -> tuple[Genotype, str]:
    """The genotype a user names, and how to call it in a message: a literature name, a file, or a run folder's.

    `others` are names of networks that would have done as well.
    """
    from rapdarts.genotype import read
    from rapdarts.literature import LITERATURE, find

    known = find(target)
    if known is not None:
        return known, target
    path = Path(target)
    if os.path.isdir(path):
        path = path / "genotype.json"
        if not path.exists():
            raise InputError(
                f"{target} holds no genotype.json; the search has not finished, or it is not a run folder."
            )
    elif not os.path.exists(path):
        raise InputError(
            f"there is no genotype {shorten(repr(target))}: neither a file nor one of {', '.join([*LITERATURE, *others])}."
        )
    return read(path), str(path)


def provenance(config: Experiment, settings: SearchConfig) -> dict[str, Any]:
    """Where a genotype comes from, and how its costs are counted."""
    import torch

    from rapdarts.cost.count import deployment_facts
    from rapdarts.pricing import read_hardware

    return {
        **deployment_facts(settings.precision, read_hardware(settings.hardware)),
        "config_sha256": configuration.digest(config),
        "strategy": config.search.strategy,
        "seed": config.seed,
        "rapdarts": rapdarts.__version__,
        "torch": torch.__version__,
    }


def costs_line(costs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {show(value, name)}" for name, value in costs.items())

"""What a user may name as a network: a genotype at a skeleton, a reference network, or a callable in code of their own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import operator
import os
import pkgutil
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import read_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.commands import CountConfig
from rapdarts.config.experiment import image_shape
from rapdarts.cost.count import deployment_of
from rapdarts.cost.layers import Target
from rapdarts.cost.trace import Image
from rapdarts.deploy.skeletons import CLASSES, IMAGE, skeleton_for
from rapdarts.errors import InputError, shorten, suggestion
from rapdarts.files.run_files import RunFile
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.networks.reference import REFERENCE, find

CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
OF_ALL = frozenset({"input", "precision", "hardware", "rows", "plot"})
OF_SKELETON = frozenset({"input", "classes", "layers", "channels", "stem"})
OF_SPACE = OF_SKELETON | {"precision", "hardware", "space"}
OF_FILTERS = frozenset({"input", "channels", "precision", "hardware"})
"""Keys of `rapdarts cost` that have a say in every network, in those of genotypes, in a space, and in the designs of a filter."""


def of_genotype(name: str, genotype: Genotype, space: SearchSpace, options: CountConfig) -> Target:
    """The network of a genotype that `space` could have given, without weights."""
    skeleton = skeleton_for(space, options, genotype.skeleton)
    with torch.device("meta"):
        network = DerivedNetwork(genotype, space, skeleton, auxiliary=True)
    head, network.auxiliary = network.auxiliary, None
    extra = sum(parameter.numel() for parameter in head.parameters()) if head else 0
    return Target(
        name, network, skeleton.image, skeleton.classes, OF_ALL | OF_SKELETON, skeleton, extra, deployment_of(genotype)
    )


def of_name(name: str, options: CountConfig) -> Target | None:
    """A reference network, without weights, or what `package.module:callable` gives; None for a name of another kind.

    Raises InputError where the user's code fails or gives no network.
    """
    image = image_shape(options.input) if options.input else None
    known = find(name)
    if known is not None:
        reference = REFERENCE[known]
        size = image or reference.image, options.classes or reference.classes
        with torch.device("meta"):
            network = reference.build(*size)
        return Target(name, network, *size, OF_ALL | {"classes"})
    if not CODE.fullmatch(name) or os.path.exists(name):
        return None
    size = image or IMAGE, options.classes or CLASSES
    try:
        network, told = _from_code(name, *size)
    except (Exception, SystemExit) as error:
        why = (str(error).splitlines() or [""])[0].rstrip(".")
        raise InputError(f"{shorten(name)} cannot be built: {type(error).__name__}: {why[:300]}; mend it.") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{shorten(name)} gives a value of {type(network)}, not a network (torch.nn.Module).")
    refuse_lazy(network, shorten(name))
    return Target(name, network, size[0], size[1] if "classes" in told else 0, OF_ALL | told)


def refuse_lazy(network: nn.Module, name: str) -> None:
    """Raises InputError for a network whose layers do not know their sizes yet."""
    if any(isinstance(weight, UninitializedParameter) for weight in network.parameters()):
        raise InputError(f"{name} has lazy layers without weights; let it run on an image before it is given.")


def _from_code(name: str, image: Image, classes: int) -> tuple[Any, frozenset[str]]:
    """What a name in the user's code gives, and which of `image` and `classes` it was told."""
    module, _, path = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = operator.attrgetter(path)(importlib.import_module(module))
    finally:
        sys.path.remove(os.getcwd())  # or the user's files would stand before the packages that are imported later
    if isinstance(found, nn.Module) or not callable(found):
        return found, frozenset()
    takes = inspect.signature(found).parameters
    told = {key: value for key, value in (("image", image), ("classes", classes)) if key in takes}
    if told:
        return found(**told), frozenset(told)
    needed = [one for one in takes.values() if one.default is one.empty and one.kind <= one.POSITIONAL_OR_KEYWORD]
    return (found(image, classes), frozenset({"classes"})) if len(needed) == 2 else (found(), frozenset())


def genotype_named(name: str) -> tuple[Genotype, str]:
    """The genotype of a name that `of_name` does not know, and how to call it in a message. Raises InputError."""
    return named(name, REFERENCE, "a file, package.module:callable")


def refuse(given: Iterable[str], useful: frozenset[str], what: str) -> None:
    """Raises InputError for the first key that is given and of no use."""
    for key in given:
        if key not in useful:
            raise InputError(f"rapdarts cost {shorten(what)} has no use for {key}=; leave it out.")


def named_space(name: str) -> SearchSpace:
    """The SPACE of a module in `search_spaces`. Raises InputError, naming the nearest, for one that is not there."""
    known = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module("search_spaces").__path__))
    if name not in known:
        raise InputError(
            f"there is no search space {shorten(repr(name))}; {suggestion(name, known)}; for one of your own add --space FILE,"
            " the Python file that holds it, or give its value with space= in a program."
        )
    return _space_of(importlib.import_module(f"search_spaces.{name}"), name)


def space_from_file(path: Path) -> SearchSpace:
    """The SPACE of a user's own module, which is run. Raises InputError if it cannot be, or holds none."""
    name = f"rapdarts_space_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or specification is None or specification.loader is None:
        raise InputError(f"--space {path}: there is no such Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where dataclasses, among others, look their own module up
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"--space {path} fails when it is run: {type(error).__name__}: {error}.") from error
    return _space_of(module, str(path))


def _space_of(module: object, where: str) -> SearchSpace:
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise InputError(f"the search space {where} holds no value SPACE = rapdarts.SearchSpace(...).")
    return space


def find_genotype(name: str) -> Genotype | None:
    """The genotype of this name, in any case of letters; None where the literature has none."""
    return next((genotype for known, genotype in LITERATURE.items() if known.lower() == name.lower()), None)


def named(target: str, networks: Iterable[str] = (), forms: str = "a file") -> tuple[Genotype, str]:
    """The genotype a user names, and how to call it in a message: a literature name, a file, or a run folder's.

    `networks` are names of others that would have done as well, and `forms` what besides a name would. Raises InputError.
    """
    known_genotype = find_genotype(target)
    if known_genotype is not None:
        return known_genotype, target
    path = Path(target)
    if os.path.isdir(path):
        path = path / RunFile.GENOTYPE
        if not path.exists():
            raise InputError(
                f"{target} holds no genotype.json; the search has not finished, or it is not a run folder."
            )
    elif not os.path.exists(path):
        if os.sep in target:
            raise InputError(f"there is no file or folder {shorten(target)}; give that of a genotype, or a name.")
        what = "network" if networks else "genotype"
        hint = suggestion(target, [*LITERATURE, *networks])
        raise InputError(f"there is no {what} {shorten(repr(target))}: neither {forms} nor a name; {hint}.")
    return read_genotype(path), str(path)

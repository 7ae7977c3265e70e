"""What a user may name as a network: a genotype at a skeleton, a reference network, or a callable in code of their own."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.literature import named
from rapdarts.architecture.space import SearchSpace, Skeleton, stem_for
from rapdarts.config.commands import CountConfig
from rapdarts.config.experiment import HardwareConfig, image_shape
from rapdarts.cost.count import HOROWITZ_45NM, deployment_of
from rapdarts.cost.trace import Image
from rapdarts.errors import InputError
from rapdarts.files.yaml import shorten
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.networks.reference import REFERENCE, find

IMAGE, CLASSES = (3, 32, 32), 10
"""What a network is counted for where neither it nor the user says otherwise."""

CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
OF_ALL = frozenset({"input", "precision", "hardware", "rows", "plot"})
OF_SKELETON = frozenset({"input", "classes", "layers", "channels", "stem"})
OF_SPACE = OF_SKELETON | {"precision", "hardware", "space"}
OF_FILTERS = frozenset({"input", "channels", "precision", "hardware"})
"""Keys of `rapdarts cost` that have a say in every network, in those of genotypes, in a space, and in the designs of a filter."""


@dataclass(frozen=True)
class Target:
    """A network as it is shipped, and what it is counted for.

    `image` is (channels, height, width). `classes` is 0 where nobody but the network knows; `keys` are those that had
    a say in it; `skeleton`, `auxiliary`, the parameters of the head that training adds, and `deployment`, the precision
    in bits and the energies of the hardware, are those of a genotype.
    """

    name: str
    network: nn.Module
    image: Image
    classes: int
    keys: frozenset[str]
    skeleton: Skeleton | None = None
    auxiliary: int = 0
    deployment: tuple[int, HardwareConfig] = (32, HOROWITZ_45NM)


def skeleton_for(space: SearchSpace, options: CountConfig, own: Skeleton | None = None) -> Skeleton:
    """The skeleton that the options ask for, over a genotype's `own`, or else the one that the space deploys."""
    base = own or Skeleton(*space.deployment, IMAGE, CLASSES)
    image = image_shape(options.input) if options.input else base.image
    stem = stem_for(options.stem, image) if options.stem or options.input or not own else base.stem
    return Skeleton(
        options.layers or base.layers, options.channels or base.channels, image, options.classes or base.classes, stem
    )


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

"""Costs of the networks that a user names, and checks of the keys that apply to them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence, Set
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rapdarts.architecture.genotype import Genotype, buildable
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.command_options import CountConfig
from rapdarts.config.experiment import image_shape
from rapdarts.config.hardware import HardwareConfig
from rapdarts.config.key_values import parse_settings
from rapdarts.config.resolve import experiment_of_run
from rapdarts.config.shapes import input_shapes
from rapdarts.cost.count import Counter, count, deployment_of, not_counted, resources
from rapdarts.cost.graphs import GraphCosts, graph_costs
from rapdarts.cost.layers import NetworkCosts, network_costs
from rapdarts.cost.own_resources import own_counters
from rapdarts.cost.prices import read_hardware
from rapdarts.cost.spaces import filter_designs, space_prices
from rapdarts.cost.trace import remembering
from rapdarts.data import nasbench201
from rapdarts.deploy import skeletons
from rapdarts.deploy.blueprint import Blueprint, DerivedBlueprint, ReferenceBlueprint
from rapdarts.deploy.lookup import ONNX, Found
from rapdarts.deploy.model_file import read_trained
from rapdarts.deploy.onnx_costs import onnx_costs, onnx_shape
from rapdarts.deploy.space_lookup import Space, find_space, named_space, space_for
from rapdarts.deploy.user_network import UserNetwork, from_code, refuse_uncountable
from rapdarts.errors import InputError, shorten
from rapdarts.interruptions import during
from rapdarts.networks.reference import reference_named

OF_ALL = frozenset({"input", "precision", "hardware", "rows", "plot"})
OF_SKELETON = frozenset({"input", "classes", "layers", "channels", "stem"})
OF_SPACE = OF_SKELETON | {"precision", "hardware", "space"}
OF_FILTERS = frozenset({"input", "channels", "precision", "hardware"})
"""Keys that apply to every network, to derived networks, to a space, and to filter designs."""

FILTER = (384, 13, 13), 256
"""Input shape and number of output channels for the comparison of filter designs: AlexNet's fifth convolution."""


def options_of(any_shape: bool = False, **given: Any) -> CountConfig:
    """Return checked options from keyword arguments; arguments that are None keep their defaults.

    With `any_shape`, `image` may be any shape, or several shapes, for the user's own network. Raises InputError.
    """
    image = given.pop("image", None)
    if image is not None:
        several = (
            isinstance(image, tuple | list) and bool(image) and all(isinstance(one, tuple | list) for one in image)
        )
        shapes = list(image) if several else [image]
        for shape in shapes:
            whole = isinstance(shape, tuple | list) and shape and all(type(side) is int for side in shape)
            if not (whole and (any_shape or (len(shape) == 3 and not several))):
                raise InputError(f"image={image!r} must be (channels, height, width), such as (3, 32, 32).")
        given["input"] = ",".join("x".join(map(str, shape)) for shape in shapes)
    return parse_settings(CountConfig, [(key, value) for key, value in given.items() if value is not None])


def genotype_at(
    genotype: Genotype, space: Space, options: CountConfig, name: str = "the genotype", where: str = "the genotype"
) -> DerivedBlueprint:
    """Return the network of a genotype in its own skeleton, or in the deployment skeleton of its space if it has none.

    The options override values of the skeleton. Raises InputError.
    """
    own = space_for(genotype, space)
    built = buildable(genotype, own, where)
    image = image_shape(options.input) if options.input else None
    base = genotype.skeleton or skeletons.of_space(own)
    skeleton = skeletons.changed(base, options.layers, options.channels, image, options.classes, options.stem)
    blueprint = DerivedBlueprint(replace(built, space=own.name), own, skeleton, name=name)
    if genotype.costs and skeleton == genotype.skeleton:
        _ = blueprint.costs  # raises if these are not the costs that the file states
    return blueprint


@during("counting costs")
def cost_of(
    found: Found | nn.Module, options: CountConfig, given: Iterable[str], hardware: str | HardwareConfig, space: Space
) -> tuple[dict[str, float], dict[str, float] | None, dict[str, list[str]]]:
    """Return the costs of a network, the published accuracies of its cell, and the operations not counted in its MACs.

    The accuracies are test accuracies (0 to 1) by data set, or None. The operations not counted have no formula; each is
    listed with its layers. `given` lists the keys that the user set. Raises InputError for a key that does not apply.
    """
    if graph := onnx_file(found):
        refuse("cost", given, frozenset(), graph[1])
        counted = _counted_onnx(*graph)
        return counted.costs, None, {name: list(nodes) for name, nodes in counted.not_counted.items()}
    network, useful = network_of(found, options, space)
    refuse("cost", ["input" if key == "image" else key for key in given], useful, network.name)
    energies = read_hardware(hardware) if isinstance(hardware, str) else hardware
    bits, own_hardware = _deployment(network)
    counters = resources(options.precision or bits, energies if hardware else own_hardware) | _own(network, space)
    with torch.device("meta"):
        built = network.build()
    with remembering():
        return count(built, network.image, counters), _known_accuracy(network), not_counted(built, network.image)


@during("counting costs")
def count_layers(
    networks: Sequence[Found | nn.Module], options: CountConfig, given: Iterable[str], space: Space, words: str
) -> list[NetworkCosts]:
    """Count the costs of networks layer by layer. Raises InputError for a key that applies to none of them."""
    hardware = read_hardware(options.hardware)
    with redirect_stdout(sys.stderr):  # the user's own code may print
        graphs = [onnx_file(one) for one in networks]
        found = [
            None if graph else network_of(one, options, space) for one, graph in zip(networks, graphs, strict=True)
        ]
        refuse("cost", given, frozenset({"rows"}).union(*(one[1] for one in found if one)), words)
        counted: list[NetworkCosts] = []
        for graph, one in zip(graphs, found, strict=True):
            counted += [_counted_onnx(*graph)] if graph else []
            counted += [_layers(one[0], options, hardware, _own(one[0], space))] if one else []
        return [
            replace(one, auxiliary=0) if one.auxiliary and not _gets_auxiliary(network) else one
            for network, one in zip(networks, counted, strict=True)
        ]


@during("counting the costs of the search space")
def prices_of_space(space: SearchSpace, options: CountConfig, given: Iterable[str]) -> dict[str, Any]:
    """Return the costs of the networks of a space with the requested skeleton. Raises InputError for a key that does not apply."""
    refuse("cost", given, OF_SPACE, f"space={space.name}")
    image = image_shape(options.input) if options.input else None
    base = skeletons.of_space(space)
    skeleton = skeletons.changed(base, options.layers, options.channels, image, options.classes, options.stem)
    return space_prices(space, skeleton, options.precision or 32, read_hardware(options.hardware))


def designs(options: CountConfig, given: Iterable[str]) -> dict[str, Any]:
    """Return the filter designs and their costs. Raises InputError for a key that does not apply."""
    refuse("cost", given, OF_FILTERS, "filters")
    image = image_shape(options.input) if options.input else FILTER[0]
    hardware = read_hardware(options.hardware)
    return filter_designs(image, options.channels or FILTER[1], options.precision or 32, hardware)


def onnx_file(found: Found | nn.Module) -> tuple[Path, str] | None:
    """Return the path and the name of an ONNX file; None for any other network."""
    if isinstance(found, Found) and found.file is not None and found.file.suffix == ONNX:
        return found.file, found.name
    return None


def _counted_onnx(file: Path, name: str) -> GraphCosts:
    """Count the costs of an ONNX file from its graph. Raises InputError and DamagedError as `onnx_costs` does."""
    image, classes = onnx_shape(file)
    counted = onnx_costs(file)
    return graph_costs(name, image, classes, counted.amounts, counted.not_counted)


def network_of(
    found: Found | nn.Module, options: CountConfig, space: Space
) -> tuple[Blueprint | UserNetwork, frozenset[str]]:
    """Return the network to count or to measure, and the keys of `rapdarts cost` that apply to it. Raises InputError."""
    if isinstance(found, nn.Module) or found.code:
        inputs = input_shapes(options.input) if options.input else None
        if isinstance(found, nn.Module):
            name = f"a {type(found).__name__}"
            refuse_uncountable(found, name)
            return UserNetwork(name, found, inputs or skeletons.IMAGE), OF_ALL
        network = from_code(found.code, inputs, options.classes)
        return network, OF_ALL | network.accepted
    image = image_shape(options.input) if options.input else None
    if found.reference:
        known = reference_named(found.reference)
        size = image or known.image, options.classes or known.classes
        return ReferenceBlueprint(found.reference, *size, name=found.name), OF_ALL | {"classes"}
    if found.genotype is None and found.file is not None:
        blueprint = read_trained(found.file, space).blueprint
        if isinstance(blueprint, ReferenceBlueprint):
            size = image or blueprint.image, options.classes or blueprint.classes
            return ReferenceBlueprint(blueprint.reference, *size, name=found.name), OF_ALL | {"classes"}
    genotype = found.the_genotype(space)
    name = f"{found.name} ({genotype.place})" if genotype.place else found.name
    return genotype_at(genotype, space, options, name, found.where), OF_ALL | OF_SKELETON


def _gets_auxiliary(network: Found | nn.Module) -> bool:
    """Return whether training may add an auxiliary head: in the run of a network, if retrain.auxiliary is set; always for a genotype."""
    if isinstance(network, nn.Module):
        return False
    if network.folder is None:
        return network.file is None  # the file of a trained network does not record the setting
    return experiment_of_run(network.folder).retrain.auxiliary > 0


def _own(network: Blueprint | UserNetwork, space: Space) -> dict[str, Counter]:
    """Return the counters of user-defined resources, from the space of a genotype, else from the space that the user passed."""
    if isinstance(network, DerivedBlueprint):
        return own_counters(network.space)
    return own_counters(None if space is None or isinstance(space, str) else find_space(space))


def _layers(
    network: Blueprint | UserNetwork, options: CountConfig, hardware: HardwareConfig, own: dict[str, Counter]
) -> NetworkCosts:
    """Count the costs of a network layer by layer. Precision and energies come from the options, else from the genotype."""
    bits, own_hardware = _deployment(network)
    precision, energies = options.precision or bits, hardware if options.hardware else own_hardware
    if not isinstance(network, DerivedBlueprint):
        return network_costs(network, precision, energies, own=own)
    return network_costs(
        network,
        precision,
        energies,
        skeleton=network.skeleton,
        auxiliary=network.auxiliary_params,
        known_accuracy=_known_accuracy(network),
        own=own,
    )


def _known_accuracy(network: Blueprint | UserNetwork) -> dict[str, float] | None:
    """Return the test accuracies (0 to 1) by data set that NAS-Bench-201 published for a cell; None for any other network."""
    if not isinstance(network, DerivedBlueprint) or network.space.name != nasbench201.SPACE:
        return None
    # A user's own space may have the same names but build other modules.
    shipped = named_space(nasbench201.SPACE).primitives.items()
    return nasbench201.known_accuracies(network.genotype) if network.space.primitives.items() <= shipped else None


def _deployment(network: Blueprint | UserNetwork) -> tuple[int, HardwareConfig]:
    """Return the default precision, in bits, and the default energies for counting a network."""
    return deployment_of(network.genotype) if isinstance(network, DerivedBlueprint) else (32, HardwareConfig())


def refuse(verb: str, given: Iterable[str], useful: Set[str], what: str) -> None:
    """Raise InputError for the first key that was given but does not apply."""
    for key in given:
        if key not in useful:
            raise InputError(f"rapdarts {verb} {shorten(what)} does not use {key}=; leave it out.")

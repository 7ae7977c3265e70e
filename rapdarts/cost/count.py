"""Exact counts of resources.

Each resource is a function `resource(network, image) -> number` for any module and an input shape (channels, height, width).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config import key_values
from rapdarts.config.hardware import HardwareConfig
from rapdarts.config.resources import RESOURCES
from rapdarts.config.shapes import Inputs
from rapdarts.cost.fast_shapes import parts_of
from rapdarts.cost.trace import remembering, trace
from rapdarts.errors import InputError, shorten
from rapdarts.networks.derived import DerivedNetwork

Counter = Callable[[nn.Module, Inputs], float]
"""A function that counts one resource of a network for an input shape."""

HOROWITZ_45NM = HardwareConfig()


def macs(network: nn.Module, image: Inputs) -> int:
    """Return the multiply-accumulates for one image: half of PyTorch's FLOPs, plus those of operations that only rapdarts has formulas for.

    Convolutions, linear layers and products of activations are counted, without their biases. Element-wise products, such as
    gates, and products of weights alone are not counted. A complex product counts as four real ones.
    """
    return sum(op.macs for op in trace(network, image).ops)


def not_counted(network: nn.Module, image: Inputs) -> dict[str, list[str]]:
    """Return the names of operations that multiply tensors but have no MAC formula, each with its layers in order.

    An element-wise product and the operation that adds up its elements are reported together, for example as `mul + sum`, at the
    layer of the latter.
    """
    found: dict[str, list[str]] = {}
    for op in trace(network, image).ops:
        if op.uncounted:
            found.setdefault(op.uncounted, []).append(op.layer)
    return found


def params(network: nn.Module, image: Inputs) -> int:
    """Return the number of parameters, including those of batch norms but not buffers. A complex parameter counts as two."""
    return sum(parameter.numel() * parts_of(parameter) for parameter in network.parameters())


def weight_bytes(network: nn.Module, image: Inputs, precision: int = 32) -> int:
    """Return the size of the weights in bytes, without buffers: `params` x precision / 8."""
    return params(network, image) * precision // 8


def activations(network: nn.Module, image: Inputs) -> int:
    """Return the number of output elements for one image (Radosavovic et al. 2020, section 3.1).

    The outputs of convolutions, linear layers and products of activations are counted.
    """
    return sum(op.size for op in trace(network, image).ops if op.macs)


def traffic(network: nn.Module, image: Inputs, precision: int = 32) -> int:
    """Return the bytes moved for one image: every operation reads its inputs and weights and writes its output once.

    Batch norms and pointwise functions of one tensor, including their weights, are folded into neighbouring operations.
    Views and concatenations move nothing.
    """
    run = trace(network, image)
    moved = 0
    for op in run.ops:
        if not op.free:
            moved += sum(elements for _, elements in op.reads) + op.weights
            moved += op.size + sum(run.sizes[number] for number in op.also)
    return moved * precision // 8


def energy(network: nn.Module, image: Inputs, precision: int = 32, hardware: HardwareConfig = HOROWITZ_45NM) -> float:
    """Return the energy for one image in joules: MACs x (multiply + add), plus one DRAM read of every weight."""
    return sum(joules(macs(network, image), params(network, image), precision, hardware))


def joules(
    macs: int, params: int, precision: int = 32, hardware: HardwareConfig = HOROWITZ_45NM
) -> tuple[float, float]:
    """Return the energy of `macs` MACs and the energy of reading `params` weights once, in joules, at `precision` bits."""
    mac, dram = getattr(hardware, f"mac_{precision}"), hardware.dram_32 * precision / 32
    return macs * mac * 1e-12, params * dram * 1e-12


def resources(precision: int = 32, hardware: HardwareConfig = HOROWITZ_45NM) -> dict[str, Counter]:
    """Return the counter of every resource that can be counted, by name.

    `precision` is the number of bits per weight and activation (32, 16 or 8).
    """
    deployment = {"precision": precision, "hardware": hardware}
    found: dict[str, Counter] = {}
    for resource in RESOURCES.values():
        if resource.count:
            module, _, function = resource.count.partition(".")
            counter = getattr(import_module(f"rapdarts.cost.{module}"), function)
            takes = inspect.signature(counter).parameters
            given = {name: value for name, value in deployment.items() if name in takes}
            found[resource.name] = partial(counter, **given) if given else counter
    return found


COUNTERS = resources()
"""Counters of all resources at a precision of 32 bits."""

COUNTED = frozenset(resource.name for resource in RESOURCES.values() if resource.whole)
"""Resources with whole-number amounts. Amounts of all other resources are measured or computed, and may have fractions."""


def additive(counters: Mapping[str, Counter]) -> dict[str, Counter]:
    """Return the counters of resources that add up over the parts of a network."""
    return {name: counter for name, counter in counters.items() if RESOURCES[name].additive}


ADDITIVE = additive(COUNTERS)


def count(network: nn.Module, image: Inputs, resources: Mapping[str, Counter] = COUNTERS) -> dict[str, float]:
    """Return the cost of a network by resource."""
    with remembering():
        return {name: resource(network, image) for name, resource in resources.items()}


def count_derived(
    genotype: Genotype, space: SearchSpace, skeleton: Skeleton, resources: Mapping[str, Counter] | None = None
) -> dict[str, float]:
    """Return the cost, by resource, of the network derived from a genotype with a given skeleton, without the auxiliary head.

    `resources` defaults to the counters for the precision and hardware in the genotype's provenance.
    """
    with torch.device("meta"):
        network = DerivedNetwork(genotype, space, skeleton)
    return count(network, skeleton.image, resources_of(genotype) if resources is None else resources)


def deployment_facts(precision: int, hardware: HardwareConfig) -> dict[str, Any]:
    """Return the entries of a genotype's provenance that record how its costs are counted."""
    return {"precision": precision, "hardware": asdict(hardware)}


def deployment_of(genotype: Genotype) -> tuple[int, HardwareConfig]:
    """Return the precision in bits and the hardware energies with which a genotype's costs are counted.

    They are read from the provenance; the defaults are 32 bits and 45 nm. Raises InputError if they are invalid.
    """
    provenance = genotype.provenance
    precision, hardware = provenance.get("precision", 32), provenance.get("hardware", {})
    if isinstance(precision, bool) or precision not in (32, 16, 8):
        raise InputError(f"the genotype's provenance has precision {precision!r}; it must be 32, 16 or 8 bits.")
    if not isinstance(hardware, dict):
        raise InputError(
            f"the genotype's provenance has hardware {shorten(repr(hardware))}; it must be an object of energies, such as"
            ' {"mac_32": 4.6}.'
        )
    return precision, key_values.parse_settings(
        HardwareConfig, list(hardware.items()), where="the hardware in the genotype's provenance"
    )


def resources_of(genotype: Genotype) -> dict[str, Counter]:
    """Return the counters, by resource, for the precision and hardware of a genotype. Raises InputError as `deployment_of` does."""
    return resources(*deployment_of(genotype))

"""Resources, counted exactly: each is `resource(network, image) -> number` for any module and an input shape (channels, height, width)."""

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
from rapdarts.config.experiment import HardwareConfig
from rapdarts.config.resources import RESOURCES
from rapdarts.cost.trace import Image, remembering, trace
from rapdarts.errors import InputError
from rapdarts.networks.derived import DerivedNetwork

Counter = Callable[[nn.Module, Image], float]
"""Counts one resource of a network for an image of that shape."""

HOROWITZ_45NM = HardwareConfig()


def macs(network: nn.Module, image: Image) -> int:
    """Multiply-accumulates of one image: convolutions, linear layers and products of activations, no biases; half of PyTorch's FLOPs."""
    return sum(op.macs for op in trace(network, image).ops)


def params(network: nn.Module, image: Image) -> int:
    """Parameters, those of batch norms included, buffers excluded."""
    return sum(parameter.numel() for parameter in network.parameters())


def weight_bytes(network: nn.Module, image: Image, precision: int = 32) -> int:
    """Bytes of the weights: `params` x precision / 8, buffers excluded."""
    return params(network, image) * precision // 8


def activations(network: nn.Module, image: Image) -> int:
    """Elements that convolutions and linear layers put out for one image (Radosavovic et al. 2020, section 3.1)."""
    return sum(op.size for op in trace(network, image).ops if op.macs)


def traffic(network: nn.Module, image: Image, precision: int = 32) -> int:
    """Bytes that one image moves: every operation reads its inputs and weights and writes its output once.

    Batch norms and functions of one tensor are folded into their neighbours, their weights with them; views and
    concatenations move nothing.
    """
    ops = [op for op in trace(network, image).ops if not op.free]
    return sum(sum(elements for _, elements in op.reads) + op.weights + op.size for op in ops) * precision // 8


def energy(network: nn.Module, image: Image, precision: int = 32, hardware: HardwareConfig = HOROWITZ_45NM) -> float:
    """Joules of one image: MACs x (multiply + add), and every weight read once from DRAM."""
    return sum(joules(macs(network, image), params(network, image), precision, hardware))


def joules(
    macs: int, params: int, precision: int = 32, hardware: HardwareConfig = HOROWITZ_45NM
) -> tuple[float, float]:
    """What so many MACs and weights of `precision` bits take: joules of the arithmetic, and joules of the reading."""
    mac, dram = getattr(hardware, f"mac_{precision}"), hardware.dram_32 * precision / 32
    return macs * mac * 1e-12, params * dram * 1e-12


def resources(precision: int = 32, hardware: HardwareConfig = HOROWITZ_45NM) -> dict[str, Counter]:
    """Every resource that can be counted, by name, at a precision of weights and activations in bits (32, 16, 8)."""
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
"""The resources at 32 bits."""

COUNTED = frozenset(resource.name for resource in RESOURCES.values() if resource.whole)
"""The resources that are whole numbers; the others are measured or computed in parts of a unit."""


def additive(counters: Mapping[str, Counter]) -> dict[str, Counter]:
    """Those resources that add up over the parts of a network."""
    return {name: counter for name, counter in counters.items() if RESOURCES[name].additive}


ADDITIVE = additive(COUNTERS)


def count(network: nn.Module, image: Image, resources: Mapping[str, Counter] = COUNTERS) -> dict[str, float]:
    """Every resource of a network, by name."""
    with remembering():
        return {name: resource(network, image) for name, resource in resources.items()}


def count_derived(
    genotype: Genotype, space: SearchSpace, skeleton: Skeleton, resources: Mapping[str, Counter] | None = None
) -> dict[str, float]:
    """Every resource of the network that a genotype describes at a skeleton, as it is shipped: without auxiliary head.

    Counted as the genotype's own costs are, unless by other `resources`.
    """
    with torch.device("meta"):
        network = DerivedNetwork(genotype, space, skeleton)
    return count(network, skeleton.image, resources_of(genotype) if resources is None else resources)


def deployment_facts(precision: int, hardware: HardwareConfig) -> dict[str, Any]:
    """What a genotype's provenance says of how its costs are counted."""
    return {"precision": precision, "hardware": asdict(hardware)}


def deployment_of(genotype: Genotype) -> tuple[int, HardwareConfig]:
    """The precision in bits and the energies by which a genotype's costs are counted: 32 and 45 nm unless it says otherwise.

    Raises InputError where it says something that cannot be.
    """
    said = genotype.provenance
    precision, hardware = said.get("precision", 32), said.get("hardware", {})
    if precision not in (32, 16, 8) or not isinstance(hardware, dict):
        raise InputError(f"the genotype's provenance has the precision {precision!r}; it must be 32, 16 or 8 (bits).")
    return precision, key_values.parse_settings(
        HardwareConfig, list(hardware.items()), where="the hardware in the genotype's provenance"
    )


def resources_of(genotype: Genotype) -> dict[str, Counter]:
    """Every resource that can be counted, as the genotype's own costs are. Raises InputError as `deployment_of` does."""
    return resources(*deployment_of(genotype))

"""Resources, counted exactly: each is `resource(network, image) -> number` for any module and an input shape (channels, height, width)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rapdarts.genotype import Genotype
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.space import SearchSpace, Skeleton

Image = tuple[int, int, int]
Resource = Callable[[nn.Module, Image], int]

BYTES_PER_WEIGHT = 4
"""Weights are stored in fp32."""


def macs(network: nn.Module, image: Image) -> int:
    """Multiply-accumulates of one image through convolutions and linear layers, biases not counted.

    PyTorch's own counter watches a forward pass on meta tensors: no memory, no arithmetic. One MAC is two of its FLOPs.
    """
    network = copy.deepcopy(network).to("meta").eval()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):  # counts nothing, and takes most of the time
                setattr(module, name, nn.Identity())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *image, device="meta"))
    return counter.get_total_flops() // 2


def params(network: nn.Module, image: Image) -> int:
    """Trainable numbers, those of batch norms included, buffers excluded."""
    return sum(parameter.numel() for parameter in network.parameters())


def weight_bytes(network: nn.Module, image: Image) -> int:
    """Bytes of the weights: `params` x 4 (fp32), buffers excluded."""
    return BYTES_PER_WEIGHT * params(network, image)


RESOURCES: dict[str, Resource] = {"macs": macs, "params": params, "bytes": weight_bytes}


def count(network: nn.Module, image: Image) -> dict[str, int]:
    """Every resource of a network, by name."""
    return {name: resource(network, image) for name, resource in RESOURCES.items()}


def count_derived(genotype: Genotype, space: SearchSpace, skeleton: Skeleton) -> dict[str, int]:
    """Every resource of the network that a genotype describes at a skeleton, as it is shipped: without auxiliary head."""
    with torch.device("meta"):
        network = DerivedNetwork(genotype, space, skeleton)
    return count(network, skeleton.image)

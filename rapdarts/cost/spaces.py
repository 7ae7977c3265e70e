"""Costs of design choices: the primitives of a search space, the networks built from them, and alternative filter designs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rapdarts.architecture.genotype import random_genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.hardware import HardwareConfig
from rapdarts.cost.count import additive, count, count_derived, params, resources
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.own_resources import full_price_table
from rapdarts.cost.peak_memory import peak_memory
from rapdarts.cost.penalty import uniform_mixing
from rapdarts.cost.trace import Image
from rapdarts.networks.supernet import Supernet

DRAWN, BUILT = 20_000, 20
"""Number of genotypes drawn for the distribution of costs, and number of networks built to count their peak memory."""
ALL_PLACES = 9
"""Number of layers that contain every distinct cell, so that deeper networks have the same peak memory."""

Amounts = dict[str, float]
"""Amounts by resource, each in the resource's own unit."""


def space_prices(space: SearchSpace, skeleton: Skeleton, precision: int, hardware: HardwareConfig) -> dict[str, Any]:
    """Return the costs of a space's networks with a given skeleton, as JSON values by resource.

    `precision` is the number of bits per weight and activation. `floor` and `ceiling` are the lowest and the highest cost
    of any genotype, with any number of skips, for each resource separately.
    """
    table = full_price_table(space, skeleton, additive(resources(precision, hardware)))
    mixture = uniform_mixing(space.mask)
    rng = np.random.default_rng(0)
    drawn = drawn_costs(table, DRAWN, rng)
    peaks = [peak_of_random(space, skeleton, rng) for _ in range(BUILT)]
    with torch.device("meta"):
        supernet = Supernet(space, skeleton)
    return {
        "space": space.name,
        "skeleton": vars(skeleton),
        "precision": precision,
        "hardware": hardware.name,
        "floor": amounts(table, extreme(table, most_expensive=False)),
        "ceiling": amounts(table, extreme(table, most_expensive=True)),
        "one_primitive": {
            name: amounts(table, of_one(table, column))
            for name, column in space.columns.items()
            if space.choosable[column]
        },
        "expected": dict(zip(table.resources, table.expected(mixture).tolist(), strict=True)),
        "plain_sum": dict(zip(table.resources, plain_sum(table, mixture.weights.numpy()).tolist(), strict=True)),
        "sample": {"n": DRAWN, "seed": 0, **distribution(table, drawn)},
        "prices": {name: price(table, column) for name, column in space.columns.items()},
        "supernet": {"params": params(supernet, skeleton.image)},
        "peak_memory": {"n": BUILT, "seed": 0, "min": min(peaks), "max": max(peaks)},
        "notes": list(table.notes),
    }


def amounts(table: PriceTable, totals: np.ndarray) -> Amounts:
    """Return `totals` (resources,) by resource, as integers for counted resources."""
    values = zip(table.resources, totals.tolist(), strict=True)
    return {name: round(value) if name in table.whole else value for name, value in values}


def extreme(table: PriceTable, most_expensive: bool) -> np.ndarray:
    """Return the lowest or highest cost of any genotype, (resources,), for each resource separately."""
    space, sign = table.space, -1 if most_expensive else 1
    by_edge = (sign * table.prices[..., space.choosable]).min(-1)
    total = table.fixed.copy()
    for node in range(space.nodes):
        into = np.sort(by_edge[..., space.edges_into(node)])
        kept = (
            into[..., : space.edges_kept(node)] if not space.repeat_inputs else into[..., [0] * space.edges_kept(node)]
        )
        total += sign * kept.sum((1, 2))
    return total


def of_one(table: PriceTable, column: int) -> np.ndarray:
    """Return the cost (resources,) of cells with the same primitive on the first edges into each node (in DARTS, from inputs 0 and 1)."""
    space = table.space
    first = [
        space.edges_into(node).start + edge for node in range(space.nodes) for edge in range(space.edges_kept(node))
    ]
    return table.fixed + table.prices[:, :, first, column].sum((1, 2))


def plain_sum(table: PriceTable, weights: np.ndarray) -> np.ndarray:
    """Return the cost (resources,) of all edges together, weighted by `weights` (kinds, edges, primitives)."""
    return table.fixed + (table.prices * weights).sum((1, 2, 3))


def drawn_costs(table: PriceTable, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the costs (n, resources) of n random genotypes, drawn as in `random_genotype`, but all at once."""
    space = table.space
    total = np.tile(table.fixed, (n, 1))
    for kind in range(len(space.kinds)):
        for node in range(space.nodes):
            into = space.edges_into(node)
            edges = rng.permuted(np.tile(np.arange(into.start, into.stop), (n, 1)), axis=1)[:, : space.edges_kept(node)]
            primitives = rng.choice(np.flatnonzero(space.choosable), edges.shape)
            total += table.prices[:, kind, edges, primitives].sum(-1).T
    return total


def distribution(table: PriceTable, drawn: np.ndarray) -> dict[str, Any]:
    """Return the mean, standard deviation and quantiles of costs (n, resources), and the correlation between MACs and parameters."""
    facts = {"mean": drawn.mean(0), "sd": drawn.std(0)}
    facts |= {f"quantile_{share:02d}": np.quantile(drawn, share / 100, axis=0) for share in (5, 95)}
    by_resource = {
        name: {fact: float(values[row]) for fact, values in facts.items()} for row, name in enumerate(table.resources)
    }
    macs, weights = drawn[:, table.row("macs")], drawn[:, table.row("params")]
    varied = macs.std() > 0 and weights.std() > 0
    return {**by_resource, "correlation_macs_params": float(np.corrcoef(macs, weights)[0, 1]) if varied else None}


def price(table: PriceTable, column: int) -> dict[str, Amounts]:
    """Return the amounts that a primitive on one edge adds in all cells of the same kind, by kind and stride of the edge."""
    space = table.space
    found: dict[str, Amounts] = {}
    for row, kind in enumerate(space.kinds):
        edges: dict[str, int] = {}
        for edge, (_, source) in enumerate(space.edges):
            stride = 2 if source < space.inputs else 1
            edges.setdefault(kind if kind == "normal" else f"{kind}_stride_{stride}", edge)
        found |= {name: amounts(table, table.prices[:, row, edge, column]) for name, edge in edges.items()}
    return found


def peak_of_random(space: SearchSpace, skeleton: Skeleton, rng: np.random.Generator) -> int:
    """Return the peak memory of a random network of the space, in bytes."""
    small = replace(skeleton, layers=min(skeleton.layers, ALL_PLACES))
    return int(count_derived(random_genotype(space, rng), space, small, {"peak_memory": peak_memory})["peak_memory"])


# --- filter designs ----------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """Sum of branches that read the same feature map (n, c, h, w) and have outputs of equal shapes."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = [branch(x) for branch in self.branches]
        return sum(others, first)


def filter_designs(image: Image, outputs: int, precision: int, hardware: HardwareConfig) -> dict[str, Any]:
    """Return the costs of five designs that map a feature map (channels, height, width) to `outputs` channels.

    The designs have stride 1 and no biases, and keep the image size. The bottleneck has a quarter of the output channels
    (He et al. 2016); the factorised designs follow Szegedy et al. 2016.
    """
    narrow = max(1, outputs // 4)
    conv = partial(nn.Conv2d, padding="same", bias=False)
    with torch.device("meta"):
        designs: dict[str, nn.Module] = {
            "3x3": conv(image[0], outputs, 3),
            "5x5": conv(image[0], outputs, 5),
            "3x1 + 1x3": Branches(conv(image[0], outputs, (3, 1)), conv(image[0], outputs, (1, 3))),
            "5x1 + 1x5": Branches(conv(image[0], outputs, (5, 1)), conv(image[0], outputs, (1, 5))),
            f"1x1 to {narrow}, 3x3": nn.Sequential(conv(image[0], narrow, 1), conv(narrow, outputs, 3)),
        }
    counters = resources(precision, hardware)
    return {
        "input": image,
        "outputs": outputs,
        "precision": precision,
        "hardware": hardware.name,
        "designs": {name: count(design, image, counters) for name, design in designs.items()},
    }

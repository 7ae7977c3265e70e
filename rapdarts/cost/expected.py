"""What a mixture of networks costs on average, differentiable in the mixing weights, and exact where the mixture is one network.

The mean is over cells drawn from the mixing weights: each node draws its edges one after the other, without
replacement, an edge with probability proportional to q_e, the sum of its choosable weights; and on each drawn edge
a primitive proportional to its weight. Prices are those of the deployment skeleton, fixed parts included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rapdarts.cost.count import RESOURCES, Resource
from rapdarts.errors import InputError
from rapdarts.genotype import Genotype, one_hot, random_genotype
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.space import KINDS, Mixing, SearchSpace, Skeleton


@dataclass(frozen=True)
class PriceTable:
    """What every choice costs at one skeleton.

    `fixed` (resources,) is spent whatever is chosen; `prices` (resources, kinds, edges, primitives) is what a
    primitive on an edge adds over all cells of its kind; both float64, in the resources' own units.
    """

    space: SearchSpace
    skeleton: Skeleton
    resources: tuple[str, ...]
    fixed: np.ndarray
    prices: np.ndarray

    def exact(self, genotype: Genotype) -> dict[str, int]:
        """The cost of the network derived from a genotype, by resource. Raises InputError for one it has no prices for."""
        chosen = one_hot(self.space, genotype)
        for kind, width in genotype.widths.items():
            # The fixed parts are those behind cells that put out all their nodes, as every search does.
            if width != self.space.nodes:
                raise InputError(
                    f"cell {kind} puts out {width} of {self.space.nodes} nodes; prices are known where a cell puts out all."
                )
        totals = self.fixed + (self.prices * chosen).sum((1, 2, 3))
        return {name: round(total) for name, total in zip(self.resources, totals, strict=True)}

    def expected(self, mixing: Mixing) -> Tensor:
        """E[cost] (resources,) float64 of a mixing (kinds, edges, primitives); equals `exact` where the mixing is one-hot."""
        weights = mixing.weights.double()
        choosable = torch.as_tensor(self.space.choosable, device=weights.device)
        weights = weights * choosable
        drawn = draw_probabilities(self.space, weights.sum(-1))
        chosen = weights * drawn[..., None]
        prices = torch.as_tensor(self.prices, device=weights.device)
        return torch.as_tensor(self.fixed, device=weights.device) + (prices * chosen).sum((1, 2, 3))


def draw_probabilities(space: SearchSpace, strength: Tensor) -> Tensor:
    """The probability that a node draws an edge, divided by the edge's strength q_e; `strength` and result are (kinds, edges).

    Divided, because then it is finite at q_e = 0 too; times a primitive's weight m_eo it is the probability that
    the pair (e, o) is in the cell.
    """
    nodes = [
        _divided_survival(strength[:, space.edges_into(node)], space.edges_kept(node)) for node in range(space.nodes)
    ]
    return torch.cat(nodes, -1)


def _divided_survival(q: Tensor, keep: int) -> Tensor:
    """s_e / q_e for `keep` draws without replacement from edges of strengths q (kinds, n).

    By the first draw: s_e = q_e/Q + sum over f != e of q_f/Q * s_e(the rest without f, keep - 1).
    """
    n = q.shape[-1]
    total = q.sum(-1, keepdim=True)
    if keep == 1:
        return _inverse(total).expand_as(q)
    if keep == n:
        return _inverse(q)
    result = _inverse(total).expand_as(q)
    for first in range(n):
        rest = torch.cat([q[:, :first], q[:, first + 1 :]], -1)
        later = _divided_survival(rest, keep - 1)
        zero = torch.zeros_like(later[:, :1])
        share = q[:, first : first + 1] * _inverse(total)
        result = result + share * torch.cat([later[:, :first], zero, later[:, first:]], -1)
    return result


def _inverse(q: Tensor) -> Tensor:
    """1/q, and 0 where nothing is left to draw: saturated mixing weights give a finite cost and gradient."""
    safe = torch.where(q > 0, q, 1.0)
    return torch.where(q > 0, 1 / safe, 0.0)


def price_table(space: SearchSpace, skeleton: Skeleton, resources: Mapping[str, Resource] = RESOURCES) -> PriceTable:
    """Counts every primitive at every place of a skeleton, and the fixed parts by difference to one whole network.

    The resources must add up over the parts of a network, as MACs, parameters and bytes do.
    """
    plans = skeleton.cells({kind: space.nodes for kind in KINDS})
    prices = np.zeros((len(resources), len(KINDS), len(space.edges), len(space.primitives)))
    counted: dict[tuple[str, int, int, tuple[int, int]], list[int]] = {}

    def price(name: str, channels: int, stride: int, size: tuple[int, int]) -> list[int]:
        place = (name, channels, stride, size)
        if place not in counted:
            with torch.device("meta"):
                primitive = space.primitives[name](channels, stride, True)
            counted[place] = [resource(primitive, (channels, *size)) for resource in resources.values()]
        return counted[place]

    for plan in plans:
        kind = KINDS.index(plan.kind)
        inside = tuple(-(-side // plan.stride) for side in plan.size)
        for edge, (_, source) in enumerate(space.edges):
            from_input = source < space.inputs
            size = plan.size if from_input else (inside[0], inside[1])
            for column, name in enumerate(space.primitives):
                prices[:, kind, edge, column] += price(name, plan.channels, plan.stride if from_input else 1, size)

    example = random_genotype(space, np.random.default_rng(0))
    with torch.device("meta"):
        network: nn.Module = DerivedNetwork(example, space, skeleton)
    whole = np.array([resource(network, skeleton.image) for resource in resources.values()], dtype=np.float64)
    fixed = whole - (prices * one_hot(space, example)).sum((1, 2, 3))
    return PriceTable(space, skeleton, tuple(resources), fixed, prices)

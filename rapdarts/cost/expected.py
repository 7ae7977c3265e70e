"""Expected costs of a mixture of networks: differentiable in the mixing weights, and exact where the mixture is one network.

The mean is over cells drawn from the mixing weights: each node draws its edges one after the other, without
replacement, an edge with probability proportional to q_e, the sum of its choosable weights times its edge weight if it
has one; and on each drawn edge a primitive proportional to its weight. Prices are those of the deployment skeleton, fixed parts included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rapdarts.architecture.genotype import Genotype, one_hot, random_genotype
from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.cost.count import ADDITIVE, COUNTED, Counter, count, count_derived
from rapdarts.cost.expected_peak import ExpectedPeak
from rapdarts.errors import InputError


@dataclass(frozen=True)
class PriceTable:
    """Prices of every choice at one skeleton, in resources that add up over the parts of a network.

    `fixed` (resources,) is spent whatever is chosen; `prices` (resources, kinds, edges, primitives) is what a
    primitive on an edge adds over all cells of its kind; both float64, in the resources' own units.
    """

    space: SearchSpace
    skeleton: Skeleton
    resources: tuple[str, ...]
    fixed: np.ndarray
    prices: np.ndarray
    notes: tuple[str, ...] = ()
    """Remarks on these prices for the user, in sentences."""

    def exact(self, genotype: Genotype) -> dict[str, float]:
        """Return the cost of the network derived from a genotype, by resource; integers where the resource is counted.

        Raises InputError for a genotype it has no prices for.
        """
        chosen = one_hot(self.space, genotype)
        for kind, width in genotype.widths.items():
            # The fixed parts are those of cells that put out all their nodes, as every search does.
            if width != len(self.space.outputs):
                raise InputError(
                    f"cell {kind} puts out {width} of {self.space.nodes} nodes; prices are known where a cell puts out all."
                )
        costs = choice_costs(self.resources, self.fixed, self.prices, chosen)
        return {name: round(cost) if name in COUNTED else cost for name, cost in costs.items()}

    def expected(self, mixing: Mixing) -> Tensor:
        """Return E[cost] (resources,) float64 of a mixing (kinds, edges, primitives); equals `exact` where the mixing is one-hot."""
        return ExpectedCost(self, mixing.weights.device)(mixing)

    def row(self, resource: str) -> int:
        """Return the index of a resource on the first axis."""
        return self.resources.index(resource)


def choice_costs(
    resources: Sequence[str], fixed: np.ndarray, prices: np.ndarray, chosen: np.ndarray
) -> dict[str, float]:
    """Return the cost of a one-hot choice (kinds, edges, primitives) by resource, as a correctly rounded sum.

    `fixed` is (resources,), `prices` (resources, kinds, edges, primitives). Exact where prices are integers.
    """
    rows = zip(resources, fixed, prices, strict=True)
    return {name: math.fsum([constant, *added[chosen > 0]]) for name, constant, added in rows}


class ExpectedCost:
    """E[cost] as a function of the mixing, on one device: a step of the search costs one product.

    With `peak`, peak memory, which does not add up, comes after the resources of the table.
    """

    def __init__(self, table: PriceTable, device: torch.device, peak: bool = False) -> None:
        self.space = table.space
        self.fixed = torch.as_tensor(table.fixed, device=device)
        self.prices = torch.as_tensor(table.prices, device=device).flatten(1)
        self.choosable = torch.as_tensor(table.space.choosable, device=device)
        self.siblings = siblings(table.space, device)
        self.peak = ExpectedPeak(table.space, table.skeleton, device) if peak else None
        self.resources = (*table.resources, "peak_memory") if peak else table.resources

    def __call__(self, mixing: Mixing) -> Tensor:
        """Return (resources,) float64, differentiable in the weights (kinds, edges, primitives)."""
        chosen = self.chosen(mixing)
        costs = self.fixed + self.prices @ chosen.flatten()
        return costs if self.peak is None else torch.cat([costs, self.peak(chosen)[None]])

    def chosen(self, mixing: Mixing) -> Tensor:
        """Return the probability that each (edge, primitive) is in the cell, (kinds, edges, primitives) float64."""
        weights = mixing.joint.double() * self.choosable
        return weights * draw_probabilities(self.space, weights.sum(-1), self.siblings)[..., None]


def siblings(space: SearchSpace, device: torch.device) -> Tensor:
    """Return for every edge the other edges into the same node, (edges, edges) float64 of 0 and 1."""
    node = torch.tensor([node for node, _ in space.edges])
    same = (node[:, None] == node).double() - torch.eye(len(node), dtype=torch.float64)
    return same.to(device)


def draw_probabilities(space: SearchSpace, strength: Tensor, others: Tensor) -> Tensor:
    """Return the probability that a node draws an edge, divided by the edge's strength q_e; `strength` and result are (kinds, edges).

    `others` says which edges are an edge's `siblings`.

    Divided, because then it is finite at q_e = 0 too; times a primitive's weight m_eo it is the probability that
    the pair (e, o) is in the cell.
    """
    if space.keep == 2:
        return _two_draws(strength, others)
    nodes = [_draws(strength[:, space.edges_into(node)], space.edges_kept(node), {}) for node in range(space.nodes)]
    return torch.cat(nodes, -1)


def _two_draws(q: Tensor, others: Tensor) -> Tensor:
    """s_e / q_e = 1/Q + sum over f != e of q_f/Q / (Q - q_f), for all nodes at once: the edge is the first drawn, or the second."""
    rest = q @ others
    first = _inverse(q + rest)
    return first + (q * first * _inverse(rest)) @ others


def _draws(q: Tensor, keep: int, known: dict[tuple[int, ...], Tensor], left: tuple[int, ...] | None = None) -> Tensor:
    """s_e / q_e (kinds, n) for `keep` draws without replacement from the edges `left` (all n) of strengths q (kinds, n).

    By the first draw: s_e = q_e/Q + sum over f != e of q_f/Q * s_e(the rest without f, keep - 1). The order of the
    draws does not matter to what is left, so that each set is worked out once and kept in `known`.
    """
    left = tuple(range(q.shape[-1])) if left is None else left
    if left not in known:
        inside = torch.zeros(q.shape[-1], dtype=q.dtype, device=q.device)
        for edge in left:  # one by one, and filled: an index of several, or a value, would be copied to the device
            inside[edge].fill_(1)
        total = _inverse((q * inside).sum(-1, keepdim=True))
        if keep == len(left):
            known[left] = _inverse(q) * inside
        else:
            known[left] = total * inside
            for first in left if keep > 1 else ():
                rest = tuple(edge for edge in left if edge != first)
                share = q[:, first : first + 1] * total
                known[left] = known[left] + share * _draws(q, keep - 1, known, rest)
    return known[left]


def _inverse(q: Tensor) -> Tensor:
    """1/q, and 0 where nothing is left to draw: saturated mixing weights give a finite cost and gradient."""
    safe = torch.where(q > 0, q, 1.0)
    return torch.where(q > 0, 1 / safe, 0.0)


@dataclass(frozen=True)
class Place:
    """A primitive on an edge of a cell of a skeleton: its indices in a price table, how it is built, and the size of its input."""

    kind: int
    edge: int
    column: int
    name: str
    channels: int
    stride: int
    size: tuple[int, int]

    @property
    def build(self) -> tuple[str, int, int, tuple[int, int]]:
        """(primitive, channels, stride, (h, w)); the same at many places."""
        return self.name, self.channels, self.stride, self.size


def places(space: SearchSpace, skeleton: Skeleton) -> list[Place]:
    """Return every place of a skeleton where a primitive may be, from the first cell to the last."""
    found = []
    for plan in skeleton.cells(space):
        if plan.kind not in space.kinds:
            continue
        for edge, (_, source) in enumerate(space.edges):
            stride, size = (plan.stride, plan.size) if source < space.inputs else (1, plan.inside)
            for column, name in enumerate(space.primitives):
                found.append(Place(space.kinds.index(plan.kind), edge, column, name, plan.channels, stride, size))
    return found


def price_table(space: SearchSpace, skeleton: Skeleton, resources: Mapping[str, Counter] = ADDITIVE) -> PriceTable:
    """Count every primitive at every place of a skeleton, and the fixed parts by difference to one whole network.

    The resources must add up over the parts of a network; peak memory, which does not, has its own model.
    """
    prices = np.zeros((len(resources), len(space.kinds), len(space.edges), len(space.primitives)))
    counted: dict[tuple[str, int, int, tuple[int, int]], list[float]] = {}
    for place in places(space, skeleton):
        if place.build not in counted:
            with torch.device("meta"):
                primitive = space.primitives[place.name](place.channels, place.stride, True)
            counted[place.build] = list(count(primitive, (place.channels, *place.size), resources).values())
        prices[:, place.kind, place.edge, place.column] += counted[place.build]

    example = random_genotype(space, np.random.default_rng(0))
    whole = np.array(list(count_derived(example, space, skeleton, resources).values()), dtype=np.float64)
    fixed = whole - (prices * one_hot(space, example)).sum((1, 2, 3))
    return PriceTable(space, skeleton, tuple(resources), fixed, prices)

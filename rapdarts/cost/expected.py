"""Expected costs of a mixture of networks: differentiable in the mixing weights, and exact if the mixture is a single network.

The expectation is over cells drawn from the mixing weights. Each node draws its edges one at a time, without replacement. The
probability of an edge is proportional to its strength q_e: the sum of the weights of its choosable primitives, times its edge
weight if it has one. Each drawn edge then draws a primitive with probability proportional to the primitive's weight. Prices are
counted for the deployment skeleton, including its fixed parts.
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
from rapdarts.config.resources import RESOURCES
from rapdarts.cost.count import ADDITIVE, COUNTED, Counter, count, count_derived, not_counted
from rapdarts.cost.expected_peak import ExpectedPeak
from rapdarts.cost.trace import remembering
from rapdarts.errors import InputError


@dataclass(frozen=True)
class PriceTable:
    """Prices of every choice for one skeleton, in resources that add up over the parts of a network.

    `fixed` (resources,) is the cost of the parts that no choice affects. `prices` (resources, kinds, edges, primitives) is the
    cost that a primitive on an edge adds in all cells of the same kind. Both are float64, in the resources' own units.
    """

    space: SearchSpace
    skeleton: Skeleton
    resources: tuple[str, ...]
    fixed: np.ndarray
    prices: np.ndarray
    notes: tuple[str, ...] = ()
    """Remarks on these prices for the user, one sentence each."""

    def exact(self, genotype: Genotype) -> dict[str, float]:
        """Return the cost of the network derived from a genotype, by resource, as integers for counted resources.

        Raises InputError for a genotype that the table has no prices for.
        """
        chosen = one_hot(self.space, genotype)
        for kind, width in genotype.widths.items():
            # The fixed parts are counted for cells that concatenate all their nodes, as derived cells do.
            if width != len(self.space.outputs):
                raise InputError(
                    f"cell {kind} concatenates {width} of {self.space.nodes} nodes; "
                    "a price table needs cells that concatenate all their nodes."
                )
        costs = choice_costs(self.resources, self.fixed, self.prices, chosen)
        return {name: round(cost) if name in self.whole else cost for name, cost in costs.items()}

    @property
    def whole(self) -> frozenset[str]:
        """The resources whose amounts are whole numbers."""
        own = {
            name
            for name, fixed, added in zip(self.resources, self.fixed, self.prices, strict=True)
            if name not in RESOURCES and np.array_equal(np.append(fixed, added), np.round(np.append(fixed, added)))
        }
        return COUNTED | own

    def expected(self, mixing: Mixing) -> Tensor:
        """Return E[cost] (resources,) float64 of a mixing (kinds, edges, primitives); equal to `exact` if the mixing is one-hot."""
        return ExpectedCost(self, mixing.weights.device)(mixing)

    def row(self, resource: str) -> int:
        """Return the index of a resource on the first axis of the prices."""
        return self.resources.index(resource)


def choice_costs(
    resources: Sequence[str], fixed: np.ndarray, prices: np.ndarray, chosen: np.ndarray
) -> dict[str, float]:
    """Return the cost of a one-hot choice (kinds, edges, primitives) by resource, as a correctly rounded sum.

    `fixed` is (resources,), `prices` (resources, kinds, edges, primitives). The result is exact if prices are integers.
    """
    rows = zip(resources, fixed, prices, strict=True)
    return {name: math.fsum([constant, *added[chosen > 0]]) for name, constant, added in rows}


class ExpectedCost:
    """Expected cost as a function of the mixing, computed on one device with one matrix product per search step.

    If `peak` is True, peak memory is appended to the resources of the table, although it is not additive.
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
        """Return the expected cost (resources,) float64, differentiable in the weights (kinds, edges, primitives)."""
        chosen = self.chosen(mixing)
        costs = self.fixed + self.prices @ chosen.flatten()
        return costs if self.peak is None else torch.cat([costs, self.peak(chosen)[None]])

    def chosen(self, mixing: Mixing) -> Tensor:
        """Return the probability that each (edge, primitive) is in the cell, (kinds, edges, primitives) float64."""
        weights = mixing.joint.double() * self.choosable
        return weights * draw_probabilities(self.space, weights.sum(-1), self.siblings)[..., None]


def siblings(space: SearchSpace, device: torch.device) -> Tensor:
    """Return a matrix (edges, edges) float64 that is 1 for two different edges into the same node, else 0."""
    node = torch.tensor([node for node, _ in space.edges])
    same = (node[:, None] == node).double() - torch.eye(len(node), dtype=torch.float64)
    return same.to(device)


def draw_probabilities(space: SearchSpace, strength: Tensor, others: Tensor) -> Tensor:
    """Return the probability that a node draws an edge, divided by the edge's strength q_e; `strength` and the result are (kinds, edges).

    `others` (edges, edges) is the matrix that `siblings` returns.

    The quotient is finite even at q_e = 0. Multiplied by a primitive's weight m_eo, it is the probability that the pair
    (e, o) is in the cell.
    """
    if space.keep == 2:
        return _two_draws(strength, others)
    nodes = [_draws(strength[:, space.edges_into(node)], space.edges_kept(node), {}) for node in range(space.nodes)]
    return torch.cat(nodes, -1)


def _two_draws(q: Tensor, others: Tensor) -> Tensor:
    """Return s_e / q_e = 1/Q + sum over f != e of q_f/Q / (Q - q_f) for all nodes; s_e is the probability that e is one of two draws."""
    rest = q @ others
    first = _inverse(q + rest)
    return first + (q * first * _inverse(rest)) @ others


def _draws(q: Tensor, keep: int, known: dict[tuple[int, ...], Tensor], left: tuple[int, ...] | None = None) -> Tensor:
    """Return s_e / q_e (kinds, n) for `keep` draws without replacement from the edges `left` (default: all n) with strengths q (kinds, n).

    Conditioning on the first draw gives s_e = q_e/Q + sum over f != e of q_f/Q * s_e(the rest without f, keep - 1). The
    edges that are left do not depend on the order of the draws, so each set is computed once and cached in `known`.
    """
    left = tuple(range(q.shape[-1])) if left is None else left
    if left not in known:
        inside = torch.zeros(q.shape[-1], dtype=q.dtype, device=q.device)
        # Filled one at a time, because a list of indices or a Python number would be copied to the device.
        for edge in left:
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
    """Return 1/q, or 0 if nothing is left to draw, so that saturated mixing weights give a finite cost and gradient."""
    safe = torch.where(q > 0, q, 1.0)
    return torch.where(q > 0, 1 / safe, 0.0)


@dataclass(frozen=True)
class Place:
    """A primitive on an edge of a skeleton's cell: its indices in a price table, how it is built, and the size of its input."""

    kind: int
    edge: int
    column: int
    name: str
    channels: int
    stride: int
    size: tuple[int, int]

    @property
    def build(self) -> tuple[str, int, int, tuple[int, int]]:
        """Return (primitive, channels, stride, (h, w)), which several places may share."""
        return self.name, self.channels, self.stride, self.size


def places(space: SearchSpace, skeleton: Skeleton) -> list[Place]:
    """Return every place for a primitive in a skeleton, from the first cell to the last."""
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
    """Return the price of every primitive at every place of a skeleton; the fixed parts account for the rest of a network's cost.

    The resources must add up over the parts of a network. Peak memory does not, so `ExpectedPeak` models it separately.
    """
    prices = np.zeros((len(resources), len(space.kinds), len(space.edges), len(space.primitives)))
    counted: dict[tuple[str, int, int, tuple[int, int]], list[float]] = {}
    missing: dict[str, dict[str, list[str]]] = {}
    for place in places(space, skeleton):
        if place.build not in counted:
            with torch.device("meta"):
                primitive = space.primitives[place.name](place.channels, place.stride, True)
            image = (place.channels, *place.size)
            with remembering():
                counted[place.build] = list(count(primitive, image, resources).values())
                missing.setdefault(place.name, {}).update(not_counted(primitive, image))
        prices[:, place.kind, place.edge, place.column] += counted[place.build]

    example = random_genotype(space, np.random.default_rng(0))
    whole = np.array(list(count_derived(example, space, skeleton, resources).values()), dtype=np.float64)
    fixed = whole - (prices * one_hot(space, example)).sum((1, 2, 3))
    notes = [
        f"the MACs of {name} do not include operations without a formula: {', '.join(operations)}"
        for name, operations in missing.items()
        if operations
    ]
    return PriceTable(space, skeleton, tuple(resources), fixed, prices, tuple(notes))

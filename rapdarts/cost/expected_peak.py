"""Expected peak memory of a mixture of networks: differentiable, and exact if the mixture is a single network.

The peak is the maximum memory in use during any operation of the stem, the cells or the classifier. In a cell, this memory is a
polynomial in the probabilities of each primitive on each edge. A state stays in memory with the probability that a later edge
reads it. The result of an edge stays in memory until its node is summed, with the probability that the edge is in the cell.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import torch
from torch import Tensor, nn

from rapdarts.architecture.space import CellPlan, SearchSpace, Skeleton
from rapdarts.cost.peak_memory import BYTES_PER_ACTIVATION, live
from rapdarts.cost.trace import Image, trace
from rapdarts.errors import InputError
from rapdarts.networks.layers import Classifier, ResidualBlock, Stem, preprocess


class ExpectedPeak:
    """Expected peak memory as a function of the probability of each primitive on each edge, computed on one device.

    The edges into a node run in the order of the space, as in the genotypes that a search derives. Raises InputError
    if cells of the space may concatenate the same activation twice.
    """

    def __init__(self, space: SearchSpace, skeleton: Skeleton, device: torch.device) -> None:
        if any(space.edges_kept(state - space.inputs) == 1 for state in space.outputs):
            raise InputError(
                f"the space {space.name} concatenates nodes with a single edge; "
                "expected peak memory needs at least two edges into each node."
            )
        contexts = _contexts(space, skeleton)
        self.fixed = torch.tensor(_fixed(space, skeleton, contexts), dtype=torch.float64, device=device)
        self.cells: list[_Cells | None] = []  # None: the skeleton has no cells of this kind
        for kind in space.kinds:
            of_kind = [context for context in contexts if context.plan.kind == kind]
            self.cells.append(_Cells(space, of_kind, device) if of_kind else None)
        edges = torch.eye(len(space.kinds) * len(space.edges), dtype=torch.float64, device=device)
        self.edge_of = edges.repeat_interleave(len(space.primitives), 0)

    def __call__(self, chosen: Tensor) -> Tensor:
        """Return the expected peak in bytes, a scalar float64.

        `chosen` (kinds, edges, primitives) float64 is the probability of each primitive on each edge. An edge has at most
        one primitive, and edges are assumed to be independent.
        """
        unconditional, by_edge = [self.fixed], []
        for cells, of_kind in zip(self.cells, chosen, strict=True):
            if cells is None:
                by_edge.append(torch.zeros_like(of_kind))
            else:
                peaks, peak = cells(of_kind)
                by_edge.append(peaks)
                unconditional.append(peak)
        floor = torch.stack(unconditional).amax()
        ordered, order = torch.stack(by_edge).clamp(min=floor).flatten().sort(descending=True)
        # The probability that all edges stay below each peak, from the highest peak to the lowest.
        below = _product(1 - (chosen.flatten()[order, None] * self.edge_of[order]).cumsum(0))
        steps = ordered - torch.cat([ordered[1:], floor[None]])
        return BYTES_PER_ACTIVATION * (floor + (steps * (1 - below)).sum())


class _Cells:
    """Cells of one kind, with P contexts, E edges, O primitives, N nodes, S states (inputs, then nodes) and T instants.

    The instants are, in this order:
    - each edge while its primitive reads the input of the edge,
    - each edge after its primitive has read the input,
    - the first sum of each node,
    - the preprocessing of the newer input, which runs before everything else.

    Later sums work in place. The first sum does so unless both of its terms are states that are needed again.
    """

    def __init__(self, space: SearchSpace, contexts: list[CellContext], device: torch.device) -> None:
        def tensor(values: object) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        edges, states = list(enumerate(space.edges)), range(space.inputs + space.nodes)
        sums = [node for node in range(space.nodes) if space.edges_kept(node) > 1]
        # An instant is (current node, current edge or -1, whether this edge reads its input, next edge).
        instants = [(node, edge, reads, edge + 1) for reads in (True, False) for edge, (node, _) in edges]
        instants += [(node, -1, False, space.edges_into(node).stop) for node in sums]
        instants += [(1 - space.inputs, -1, False, 0)]  # the preprocessing, when only one state exists
        self.later = tensor([[edge >= first for edge, _ in edges] for *_, first in instants])
        self.reads = tensor([[reads and edge == now for edge, _ in edges] for _, now, reads, _ in instants])
        self.waits = tensor(
            [[to == node and now != edge < first for edge, (to, _) in edges] for node, now, _, first in instants]
        )
        self.before = tensor([[to == node and other < edge for other, (to, _) in edges] for edge, (node, _) in edges])
        self.adds = tensor([[to == node for _, (to, _) in edges] for node in sums])
        self.leaves = tensor([[source == state for _, (_, source) in edges] for state in states])
        self.exists = tensor([[state < space.inputs + node for state in states] for node, *_ in instants])
        self.concatenated = torch.tensor([state in space.outputs for state in states], device=device)
        self.alone = space.inputs == 1

        profiles = _edge_profiles(space, contexts)
        self.in_place = tensor([[of.in_place for of in edge] for edge in profiles[0]])
        self.partial = tensor([[[of.partial for of in edge] for edge in edges_of] for edges_of in profiles])
        beside = tensor([[[(of.reading, of.after) for of in edge] for edge in edges_of] for edges_of in profiles])
        self.beside = beside.permute(3, 1, 2, 0)
        self.sizes = tensor([[at.state if state < space.inputs else at.result for at in contexts] for state in states])
        self.kept = tensor([at.newer * at.kept for at in contexts])
        self.preprocessed = tensor([[_newer_peak(space, at) for at in contexts]])

    def __call__(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the peak number of elements held while each primitive runs on each edge, (E, O), and at all other instants.

        `chosen` (E, O) is the probability of each primitive on each edge.
        """
        present, in_place = chosen.sum(-1), (chosen * self.in_place).sum(-1)
        later = self.later * present
        # (T, E): the probability that an edge needs its state.
        needed = later + self.waits * in_place + self.reads
        held = self._held(needed) * self.exists  # (T, S)
        new = present - in_place  # a primitive that works in place has no result of its own
        if self.alone:  # the first node is the result of its only edge, or the input itself if that edge works in place
            node = held[:, 1:2]
            held = torch.cat([1 - (1 - held[:, :1]) * (1 - in_place[0] * node), new[0] * node, held[:, 2:]], 1)
        amount = self.kept + held @ self.sizes + (self.waits @ new)[:, None] * self.sizes[-1]  # (T, P)
        on_edges, others = amount.split([2 * len(present), len(self.adds) + 1])
        by_edge = (on_edges.view(2, len(present), 1, -1) + self.beside).amax((0, 3))
        sums = self._new_results(chosen, later[2 * len(present) : -1]) * self.sizes[-1]
        return by_edge, (others + torch.cat([sums, self.preprocessed])).amax()

    def _held(self, needed: Tensor) -> Tensor:
        """Return the probability that each state is held, (T, S); `needed` (T, E) is the probability that an edge needs its state."""
        held = 1 - _product(1 - needed[:, None] * self.leaves)
        return torch.where(self.concatenated, 1.0, held)

    def _new_results(self, chosen: Tensor, later: Tensor) -> Tensor:
        """Return the probability that each first sum needs memory for its result (sums, P).

        A sum needs it if both terms are states, or parts of states, that it must not overwrite. `later` (sums, E) is the
        probability that an edge reads its state after the sum.
        """
        present, in_place = chosen.sum(-1), (chosen * self.in_place).sum(-1)
        partial = (chosen * self.partial).sum(-1)  # (P, E)
        survives = self._held(later)
        if self.alone:  # the input and the first node may be the same
            first = 1 - (1 - survives[:, :1]) * (1 - in_place[0] * survives[:, 1:2])
            node = in_place[0] * first + (1 - in_place[0]) * survives[:, 1:2]
            survives = torch.cat([first, node, survives[:, 2:]], 1)
        stays = (survives @ self.leaves)[:, None]  # (sums, 1, E)
        stuck = stays * in_place + (1 - stays) * partial
        # The first two terms of a node are those with fewer than two edges before them.
        terms = stuck * (1 - (self.before @ present - 1).clamp(0, 1)) * self.adds[:, None]
        return (terms.sum(-1) ** 2 - (terms**2).sum(-1)) / 2  # sum over pairs of such terms


def _product(x: Tensor) -> Tensor:
    """Return the product over the last axis, which is short. (The backward pass of `prod` synchronises with the device.)"""
    return functools.reduce(torch.mul, x.unbind(-1))


@dataclass(frozen=True)
class CellContext:
    """A cell's plan and inputs, independent of its layer.

    `older` is the shape of the older input. `same` is True if both inputs are the same activation. `kept` is True if the
    next cell also reads the newer input.
    """

    plan: CellPlan
    older: Image
    same: bool
    kept: bool

    @property
    def newer(self) -> int:
        """Number of elements of the newer input."""
        return self.plan.newer * self.plan.size[0] * self.plan.size[1]

    @property
    def state(self) -> int:
        """Number of elements of an input after preprocessing."""
        return self.plan.channels * self.plan.size[0] * self.plan.size[1]

    @property
    def result(self) -> int:
        """Number of elements of a node's output."""
        return self.plan.channels * prod(self.plan.inside)


def _contexts(space: SearchSpace, skeleton: Skeleton) -> list[CellContext]:
    """Return the distinct contexts of a skeleton's layers."""
    size = [-(-side // 4) if skeleton.stem == "imagenet" else side for side in skeleton.image[1:]]
    contexts = []
    for plan in skeleton.cells(space):
        same = plan.layer == 0 and skeleton.stem == "cifar"
        kept = space.inputs == 2 and plan.layer < skeleton.layers - 1
        contexts.append(CellContext(replace(plan, layer=0), (plan.older, size[0], size[1]), same, kept))
        size = list(plan.size)
    return list(dict.fromkeys(contexts))


@dataclass(frozen=True)
class Profile:
    """Peak number of elements that a module holds besides its input, while it reads the input and afterwards.

    `in_place` is True if the output is the input or a part of it. `partial` is True if the output is only a part.
    """

    reading: int
    after: int
    in_place: bool
    partial: bool


def _profile(module: nn.Module, image: Image) -> Profile:
    run = trace(module, image)
    beside = live(replace(run, sizes={**run.sizes, 0: 0}))
    reading, after = [0], [0]
    for whole, elements in zip(live(run), beside, strict=True):
        (reading if whole > elements else after).append(elements)
    in_place = run.output == 0
    partial = in_place and bool(run.ops) and run.ops[-1].size < run.sizes[0]
    return Profile(max(reading), max(after), in_place, partial)


def _edge_profiles(space: SearchSpace, contexts: list[CellContext]) -> list[list[list[Profile]]]:
    """Return the profile of every primitive, for every context and edge."""

    @cache
    def profile(name: str, stride: int, image: Image) -> Profile:
        with torch.device("meta"):
            return _profile(space.primitives[name](image[0], stride, True), image)

    def on_edge(context: CellContext, source: int) -> list[Profile]:
        plan = context.plan
        stride, size = (plan.stride, plan.size) if source < space.inputs else (1, context.plan.inside)
        return [profile(name, stride, (plan.channels, *size)) for name in space.primitives]

    return [[on_edge(context, source) for _, source in space.edges] for context in contexts]


def _newer_peak(space: SearchSpace, context: CellContext) -> int:
    """Return the peak number of elements held while the newer input is preprocessed.

    The state of the older input is not included. The newer input itself is not included if it is kept.
    """
    if space.inputs == 1:
        return 0
    with torch.device("meta"):
        profile = _profile(preprocess(space, context.plan, affine=True)[1], (context.plan.newer, *context.plan.size))
    return max(profile.reading + context.newer * (not context.kept), profile.after)


def _fixed(space: SearchSpace, skeleton: Skeleton, contexts: list[CellContext]) -> int:
    """Return the peak number of elements held in the parts of the network that no choice affects.

    These are the stem, the classifier, residual blocks and the preprocessing of older inputs.
    """

    def alone(module: nn.Module, image: Image) -> int:
        return max(live(trace(module, image)), default=0)

    last = contexts[-1]  # all cells after the last reduction have outputs of the same shape
    with torch.device("meta"):
        stem = Stem(space, skeleton)
        outputs = len(space.outputs) * last.plan.channels if last.plan.kind in space.kinds else last.plan.channels
        peaks = [
            alone(nn.Sequential(stem.older, stem.newer or nn.Identity()), skeleton.image),
            alone(Classifier(space, outputs, skeleton.classes), (outputs, *last.plan.inside)),
        ]
        for context in contexts:
            if context.plan.kind not in space.kinds:
                peaks.append(alone(_Doubled(ResidualBlock(context.plan)), (context.plan.newer, *context.plan.size)))
            elif space.inputs == 2:
                profile = _profile(preprocess(space, context.plan, affine=True)[0], context.older)
                older = 0 if context.same else prod(context.older)
                peaks.append(context.newer + max(profile.reading + older, profile.after))
    return max(peaks)


class _Doubled(nn.Module):
    """A layer with two inputs that receives the same input twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)

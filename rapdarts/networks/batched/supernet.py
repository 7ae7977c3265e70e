"""The supernet that is fast: for all edges that leave a state, one operation a primitive; the numbers of the plain supernet.

Edges that leave the same state see the same input, so that one ReLU and one pooling serve them all, and the same
primitive on all of them is one grouped convolution over stacked weights. The mixing weight is the scale of the batch
norm that ends a primitive: normalising and weighing are one operation, the gradient of the mixing weight is what the
batch norm's own backward pass sums up, and nothing but what the norm reads is kept for it. On a GPU the sum into the
nodes is part of that operation, one for all edges that leave a state. An edge weight scales that weight. With partial
channels it also weighs what goes around the primitives; the shuffle, which is the same on all edges, comes once, behind
the sum of a node.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapdarts.architecture.space import NONE, SKIP, Mixing
from rapdarts.networks.batched.bundles import Bundle, for_kernels
from rapdarts.networks.batched.layout import Reading, Terms, images, pixels
from rapdarts.networks.batched.stacks import Chain, Stack
from rapdarts.networks.batched.sums import WeighedSum, total
from rapdarts.networks.recompute import recomputed
from rapdarts.networks.supernet import SkipDropout, SuperCell, Supernet, bypass


class Wave(nn.Module):
    """All edges that leave some states which are there at the same time: the inputs of a cell, or one of its nodes.

    Its slots are these edges by state, then by node; all states of a wave lead to the same nodes.
    """

    edges: Tensor
    dropped: Tensor

    def __init__(self, cell: SuperCell, states: Sequence[int]) -> None:
        super().__init__()
        space, mixed = cell.space, list[Any](cell.edges)
        leaving = [(source, edge) for source in states for edge, (_, read) in enumerate(space.edges) if read == source]
        self.states, self.slots = len(states), len(leaving)
        self.register_buffer("edges", torch.tensor([edge for _, edge in leaving]), persistent=False)
        self.stride: int = mixed[leaving[0][1]].stride
        self.chains = nn.ModuleDict()
        self.covers: dict[str, tuple[int, ...]] = {}
        self.entries: list[tuple[int, int]] = []  # (edge, column) of every slot of every chain
        dropped: list[int] = []  # the masks of its skips, among those of the cell
        for name, column in space.columns.items():
            if name == NONE:  # adds nothing
                continue
            heard = [
                (slot, states.index(source), edge)
                for slot, (source, edge) in enumerate(leaving)
                if name in mixed[edge].ops
            ]
            if not heard:
                continue
            reading = Reading(tuple(state for _, state, _ in heard), len(states))
            self.chains[name] = Chain([mixed[edge].ops[name] for _, _, edge in heard], reading)
            self.covers[name] = tuple(slot for slot, _, _ in heard)
            self.entries += [(edge, column) for _, _, edge in heard]
            if name == SKIP and self.stride == 1:
                dropped = [cell.dropped.index(edge) for _, _, edge in heard]
        self.register_buffer("dropped", torch.tensor(dropped, dtype=torch.int64), persistent=False)
        # What one kernel sums: chains that end in a norm, then skips; if a skip has a norm, its mask comes behind that.
        chains: dict[str, Any] = dict(self.chains.items())
        masked = SKIP if self.stride == 1 else None
        self.summed = {name: chain for name, chain in chains.items() if chain.norm is not None and name != masked}
        kinds = {(chain.norm.momentum, chain.norm.eps) for chain in self.summed.values()}
        if masked in chains and chains[SKIP].idle:
            self.summed[SKIP] = chains[SKIP]
        self.terms = self._terms(dropped, *kinds.pop()) if len(kinds) == 1 else None

    def _terms(self, dropped: Sequence[int], momentum: float, eps: float) -> Terms:
        """What the chains that are summed together put out, slot by slot."""
        reads: list[int] = []
        into: list[int] = []
        skips = Reading((), self.states)
        blocks, nodes = 0, self.slots // self.states
        for name, chain in self.summed.items():
            into += [slot % nodes for slot in self.covers[name]]
            if chain.norm is None:
                skips = chain.reading
                continue
            reads += [blocks + source for source in chain.behind.sources]
            blocks += chain.behind.blocks
        masks = tuple(dropped) if skips.sources else ()
        return Terms(Reading(tuple(reads), blocks), skips, masks, tuple(into), nodes, momentum, eps)

    def forward(
        self, x: Tensor, scales: Mapping[str, Tensor], masks: Tensor | None, pending: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What the edges add to `pending` (n, nodes*C, h', w'), the nodes that they lead to side by side.

        `x` is the states side by side (n, states*C, h, w), `scales` the mixing weights of each chain's channels;
        `masks` (edges, n, h', w', C) says what the cell's skips keep. Gives the first node, which is complete, and the others.
        """
        bundle, width = Bundle(x), x.shape[1] // self.states
        by_kernels = self.terms is not None and self.training and for_kernels(x, width)
        apart = [name for name in self.chains if not by_kernels or name not in self.summed]
        if apart:
            mask = None
            if masks is not None and SKIP in apart:
                mask = masks.permute(1, 2, 3, 0, 4).index_select(3, self.dropped)
            terms = [self.chains[name](bundle, scales[name], mask if name == SKIP else None) for name in apart]
            pending = total(terms, [self.covers[name] for name in apart], self.states, self.slots, pending)
        if by_kernels:
            return self._weighed_sum(bundle, scales, masks, pending)
        if pending is None:
            nothing = x[:, :width, :: self.stride, :: self.stride] * 0
            pending = nothing.repeat(1, self.slots // self.states, 1, 1)
        first, others = pending.split([width, pending.shape[1] - width], 1)
        return first, others

    def _weighed_sum(
        self, bundle: Bundle, scales: Mapping[str, Tensor], masks: Tensor | None, pending: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The same for the chains that are summed together, by kernels of ours: no term is written."""
        x, normed = bundle.x, [chain for chain in self.summed.values() if chain.norm is not None]
        kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        size = [-(-side // self.stride) for side in x.shape[2:]]
        widths = [chain.behind.blocks * x.shape[1] // self.states for chain in normed]
        room = torch.empty((len(x), sum(widths), *size), dtype=kind, device=x.device,
                           memory_format=torch.channels_last)  # fmt: skip
        parts = [chain.before_norm(bundle, place) for chain, place in zip(normed, room.split(widths, 1), strict=True)]
        scale = torch.cat([scales[name] for name in self.summed])
        running = [(chain.norm.running_mean, chain.norm.running_var) for chain in normed]
        result: tuple[Tensor, Tensor] = WeighedSum.apply(  # type: ignore[no-untyped-call]
            self.terms, running, room, masks, x, scale, pending, *parts
        )
        return result

    def bypass(self, x: Tensor, edges: Tensor | None, pending: Tensor | None) -> Tensor:
        """What goes around the primitives, `x` (n, h, w, states, B), added to `pending` (n, h', w', nodes, B).

        `edges` is the weights of all edges of the cell, if they have any.
        """
        if self.stride > 1:
            x = pixels(bypass(images(x.flatten(3)), self.stride)).unflatten(3, x.shape[3:])
        weights = x.new_ones(self.slots) if edges is None else edges.index_select(0, self.edges).to(x.dtype)
        result = x.new_zeros(()) if pending is None else pending
        for state, weight in zip(x.split(1, 3), weights.view(self.states, -1, 1), strict=True):
            result = torch.addcmul(result, state, weight)
        return result


class BatchedCell(nn.Module):
    """A cell in which all edges of the space are present, wave by wave."""

    order: Tensor

    def __init__(self, cell: SuperCell) -> None:
        super().__init__()
        self.space, self.plan, self.kind, self.masks = cell.space, cell.plan, cell.kind, len(cell.dropped)
        self.partial, self.width = cell.partial, cell.plan.channels // cell.partial
        self.older, self.newer = copy.deepcopy(cell.older), copy.deepcopy(cell.newer)
        inputs, nodes = cell.space.inputs, cell.space.nodes
        waves = [Wave(cell, range(inputs)), *(Wave(cell, [state]) for state in range(inputs, inputs + nodes - 1))]
        self.waves = nn.ModuleList(waves)
        edges, columns = len(cell.edges), len(cell.space.primitives)
        order = [(self.kind * edges + edge) * columns + column for wave in waves for edge, column in wave.entries]
        self.register_buffer("order", torch.tensor(order, dtype=torch.int64), persistent=False)
        self.sizes = [len(cover) * self.width for wave in waves for cover in wave.covers.values()]

    def forward(self, older: Tensor, newer: Tensor, mixing: Mixing, dropout: SkipDropout) -> Tensor:
        """Gives the space's outputs side by side (n, outputs * C, h, w)."""
        width = self.width
        state = torch.cat([self.older(older), self.newer(newer)][-self.space.inputs :], 1)
        masks = dropout.masks(self.masks, (len(newer), width, *self.plan.inside))
        # By index_select, whose gradient is written where it belongs; that of indexing sorts the places first, for they might repeat.
        scale = mixing.joint.flatten().index_select(0, self.order)
        scales = iter(scale[:, None].expand(-1, width).flatten().split(self.sizes))
        edges = None if mixing.edges is None else mixing.edges[self.kind]

        pending, around, states = None, None, []
        wave: Any
        for wave in self.waves:
            if self.partial > 1:
                blocks = pixels(state).unflatten(3, (wave.states, -1))
                through, others = blocks.split([width, blocks.shape[4] - width], 4)
                around = wave.bypass(others, edges, around)
                state = images(through.flatten(3))
            weighing = {name: next(scales) for name in wave.chains}
            masking = masks if len(wave.dropped) else None
            if masking is not None:
                weighing[SKIP] = weighing[SKIP] * dropout.scale
            # A node is complete when all states before it have been added to it.
            state, pending = wave(state.contiguous(memory_format=torch.channels_last), weighing, masking, pending)
            if around is not None:
                beside, around = around.split([1, around.shape[3] - 1], 3)
                state = F.channel_shuffle(torch.cat([state, images(beside.flatten(3))], 1), self.partial)
            states.append(state)
        return torch.cat(states, 1) if len(self.space.outputs) > 1 else states[-1]


class BatchedSupernet(nn.Module):
    """The same function of images, mixing and weights as the plain supernet it is made from, computed faster."""

    checkpoint: bool = False

    def __init__(self, plain: Supernet) -> None:
        super().__init__()
        # Copies: what happens to the one supernet does not touch the other.
        self.stem, self.classifier = copy.deepcopy(plain.stem), copy.deepcopy(plain.classifier)
        self.dropout = copy.deepcopy(plain.dropout)
        self.cells = nn.ModuleList(
            BatchedCell(cell) if isinstance(cell, SuperCell) else copy.deepcopy(cell) for cell in plain.cells
        )
        self._names = _names(plain, self)

    def forward(self, images: Tensor, mixing: Mixing) -> Tensor:
        """Images (n, c, h, w) and mixing weights (kinds, edges, primitives) to logits (n, classes)."""
        mixing = mixing.to(images.dtype)
        older, newer = self.stem(images)
        for cell in self.cells:
            given = (older, newer, mixing, self.dropout)
            older, newer = newer, recomputed(cell, *given) if self.checkpoint else cell(*given)
        return self.classifier(newer)

    def plain_state(self) -> dict[str, Tensor]:
        """Weights and statistics under the names of the plain supernet, for its `load_state_dict(strict=False)`."""
        state = self.state_dict()
        return {
            name: part
            for own, names in self._names.items()
            for name, part in zip(names, state[own].chunk(len(names)) if len(names) > 1 else [state[own]], strict=True)
        }

    def load_plain_state(self, plain: Mapping[str, Tensor]) -> None:
        """Takes over weights and statistics of a plain supernet of the same space and skeleton."""
        self.load_state_dict(
            {
                own: torch.cat([plain[name] for name in names]) if len(names) > 1 else plain[names[0]]
                for own, names in self._names.items()
            }
        )


def _names(plain: Supernet, batched: BatchedSupernet) -> dict[str, list[str]]:
    """What every tensor of the batched supernet is called in the plain one, in the order in which it is stacked."""
    known: dict[int, str] = {}
    for name, tensor in plain.state_dict(keep_vars=True).items():
        known.setdefault(id(tensor), name)  # a tensor that stands at two places goes by its first name
    stacked = {
        f"{prefix}.{name}": [known[id(origin)] for origin in origins]
        for prefix, module in batched.named_modules()
        if isinstance(module, Stack)
        for name, origins in module.origins.items()
    }
    for module in batched.modules():
        if isinstance(module, Stack):
            module.origins.clear()
    # The parts around the cells' edges have the same name in both.
    return {name: stacked.get(name, [name]) for name in batched.state_dict()}

"""The supernet that is fast: for all edges that leave a state, one operation a primitive; the numbers of the plain supernet.

Edges that leave the same state see the same input, so that one ReLU and one pooling serve them all, and the same
primitive on all of them is one grouped convolution over stacked weights. The mixing weight is the scale of the batch
norm that ends a primitive: normalising and weighing are one operation, the gradient of the mixing weight is what the
batch norm's own backward pass sums up, and nothing but what the norm reads is kept for it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.networks.blocks import Bundle, Reading
from rapdarts.networks.stacks import Chain, Stack, total
from rapdarts.networks.supernet import SkipDropout, SuperCell, Supernet
from rapdarts.space import NONE, SKIP, Mixing


class Wave(nn.Module):
    """All edges that leave some states which are there at the same time: the inputs of a cell, or one of its nodes.

    Its slots are these edges by state, then by node; all states of a wave lead to the same nodes.
    """

    def __init__(self, cell: SuperCell, states: Sequence[int]) -> None:
        super().__init__()
        space, mixed = cell.space, list[Any](cell.edges)
        leaving = [(source, edge) for source in states for edge, (_, read) in enumerate(space.edges) if read == source]
        self.states, self.slots = len(states), len(leaving)
        self.stride: int = mixed[leaving[0][1]].stride
        self.chains = nn.ModuleDict()
        self.covers: list[tuple[int, ...]] = []
        self.entries: list[tuple[int, int]] = []  # (edge, column) of every slot of every chain
        self.dropped: list[int] = []  # the edges whose skip is dropped out
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
            self.covers.append(tuple(slot for slot, _, _ in heard))
            self.entries += [(edge, column) for _, _, edge in heard]
            if name == SKIP and self.stride == 1:
                self.dropped = [edge for _, _, edge in heard]

    def forward(self, x: Tensor, scales: Mapping[str, Tensor], mask: Tensor | None, pending: Tensor | None) -> Tensor:
        """What the edges add to `pending` (n, nodes*C, h', w'), the nodes that they lead to side by side.

        `x` is the states side by side (n, states*C, h, w), `scales` the mixing weights of each chain's channels;
        `mask` (n, h', w', slots, C) says what the skips keep.
        """
        if not self.chains:
            nothing = x[:, : x.shape[1] // self.states, :: self.stride, :: self.stride] * 0
            return nothing.repeat(1, self.slots // self.states, 1, 1) if pending is None else pending
        bundle = Bundle(x)
        terms = [chain(bundle, scales[name], mask if name == SKIP else None) for name, chain in self.chains.items()]
        return total(terms, self.covers, self.states, self.slots, pending)


class BatchedCell(nn.Module):
    """A cell in which all edges of the space are present, wave by wave."""

    order: Tensor

    def __init__(self, cell: SuperCell) -> None:
        super().__init__()
        self.space, self.plan, self.kind, self.dropped = cell.space, cell.plan, cell.kind, cell.dropped
        self.older, self.newer = copy.deepcopy(cell.older), copy.deepcopy(cell.newer)
        inputs, nodes = cell.space.inputs, cell.space.nodes
        waves = [Wave(cell, range(inputs)), *(Wave(cell, [state]) for state in range(inputs, inputs + nodes - 1))]
        self.waves = nn.ModuleList(waves)
        columns = len(cell.space.primitives)
        order = [edge * columns + column for wave in waves for edge, column in wave.entries]
        self.register_buffer("order", torch.tensor(order, dtype=torch.int64), persistent=False)
        self.sizes = [len(cover) * cell.plan.channels for wave in waves for cover in wave.covers]

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor, dropout: SkipDropout) -> Tensor:
        """`weights` is (kinds, edges, primitives); gives the space's outputs side by side (n, outputs * C, h, w)."""
        channels = self.plan.channels
        state = torch.cat([self.older(older), self.newer(newer)][-self.space.inputs :], 1)
        masks = dropout.masks(len(self.dropped), (len(newer), channels, *self.plan.inside))
        scale = weights[self.kind].flatten()[self.order]
        scales = iter(scale[:, None].expand(-1, channels).flatten().split(self.sizes))

        pending, states = None, []
        wave: Any
        for wave in self.waves:
            weighing = {name: next(scales) for name in wave.chains}
            mask = None
            if masks is not None and wave.dropped:
                mask = masks[[self.dropped.index(edge) for edge in wave.dropped]].permute(1, 2, 3, 0, 4)
                weighing[SKIP] = weighing[SKIP] * dropout.scale
            pending = wave(state.contiguous(memory_format=torch.channels_last), weighing, mask, pending)
            # A node is complete when all states before it have been added to it.
            state, pending = pending.split([channels, pending.shape[1] - channels], 1)
            states.append(state)
        return torch.cat(states, 1) if len(self.space.outputs) > 1 else states[-1]


class BatchedSupernet(nn.Module):
    """The same function of images, mixing and weights as the plain supernet it is made from, computed faster."""

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
        weights = mixing.weights.to(images.dtype)
        older, newer = self.stem(images)
        for cell in self.cells:
            older, newer = newer, cell(older, newer, weights, self.dropout)
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
    known = {id(tensor): name for name, tensor in plain.state_dict(keep_vars=True).items()}
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

"""The fast supernet: each primitive is one operation for all edges that leave a state. Its results equal those of the plain supernet.

Edges that leave the same state read the same input. They share one ReLU and one pooling, and the same primitive on all of
them is one grouped convolution with stacked weights. The mixing weight is the scale of the batch norm that ends a
primitive: normalising and weighting are one operation, the backward pass of the batch norm computes the gradient of the
mixing weight, and only the input of the norm is saved. On a GPU, this operation also adds the terms of all edges that
leave a state to their nodes in one step. An edge weight is multiplied into the mixing weight. With partial channels, it also
weights the channels that bypass the primitives. The channel shuffle is the same on all edges, so it runs once, after the
sum of a node.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapdarts.architecture.space import NONE, SKIP, Mixing
from rapdarts.networks.batched.bundles import Bundle
from rapdarts.networks.batched.layout import FAMILIES, BlockMap, Terms, images, pixels
from rapdarts.networks.batched.stacks import Chain, Stack
from rapdarts.networks.batched.sums import WeightedSum, sum_terms
from rapdarts.networks.supernet import SkipDropout, SuperCell, Supernet, bypass, run_cells


class EdgeGroup(nn.Module):
    """All edges that leave the same states, which are either the inputs of a cell or one of its nodes.

    The slots are these edges, ordered by state and then by node. The edges of every state in a group lead to the same
    nodes. The group may use the `kernels` of these families.
    """

    edges: Tensor
    dropped: Tensor

    def __init__(self, cell: SuperCell, states: Sequence[int], kernels: frozenset[str]) -> None:
        super().__init__()
        self.kernels = kernels
        space, mixed = cell.space, list[Any](cell.edges)
        leaving = [(source, edge) for source in states for edge, (_, read) in enumerate(space.edges) if read == source]
        self.states, self.slots = len(states), len(leaving)
        self.register_buffer("edges", torch.tensor([edge for _, edge in leaving]), persistent=False)
        self.stride: int = mixed[leaving[0][1]].stride
        self.chains = nn.ModuleDict()
        self.chain_slots: dict[str, tuple[int, ...]] = {}
        self.entries: list[tuple[int, int]] = []  # (edge, column) of every slot of every chain
        dropped: list[int] = []  # indices of the masks of this group's skips among the masks of the cell
        for name, column in space.columns.items():
            if name == NONE:  # adds nothing to a sum
                continue
            members = [
                (slot, states.index(source), edge)
                for slot, (source, edge) in enumerate(leaving)
                if name in mixed[edge].ops
            ]
            if not members:
                continue
            block_map = BlockMap(tuple(state for _, state, _ in members), len(states))
            self.chains[name] = Chain([mixed[edge].ops[name] for _, _, edge in members], block_map)
            self.chain_slots[name] = tuple(slot for slot, _, _ in members)
            self.entries += [(edge, column) for _, _, edge in members]
            if name == SKIP and self.stride == 1:
                dropped = [cell.dropped.index(edge) for _, _, edge in members]
        self.register_buffer("dropped", torch.tensor(dropped, dtype=torch.int64), persistent=False)
        # Chains that one kernel sums: first those that end in a norm, then skips. Masked skips with a norm are excluded.
        chains: dict[str, Any] = dict(self.chains.items())
        masked = SKIP if self.stride == 1 else None
        self.fused = {name: chain for name, chain in chains.items() if chain.norm is not None and name != masked}
        kinds = {(chain.norm.momentum, chain.norm.eps) for chain in self.fused.values()}
        if masked in chains and chains[SKIP].is_identity:
            self.fused[SKIP] = chains[SKIP]
        self.terms = self._terms(dropped, *kinds.pop()) if len(kinds) == 1 else None

    def _terms(self, dropped: Sequence[int], momentum: float, eps: float) -> Terms:
        """Return the layout of the terms of the fused chains."""
        reads: list[int] = []
        into: list[int] = []
        skips = BlockMap((), self.states)
        blocks, nodes = 0, self.slots // self.states
        for name, chain in self.fused.items():
            into += [slot % nodes for slot in self.chain_slots[name]]
            if chain.norm is None:
                skips = chain.block_map
                continue
            reads += [blocks + source for source in chain.output_map.sources]
            blocks += chain.output_map.blocks
        masks = tuple(dropped) if skips.sources else ()
        return Terms(BlockMap(tuple(reads), blocks), skips, masks, tuple(into), nodes, momentum, eps)

    def forward(
        self, x: Tensor, scales: Mapping[str, Tensor], masks: Tensor | None, pending: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Add the group's terms to `pending` (n, nodes*C, h', w'), the partial sums of the nodes that its edges enter.

        `x` (n, states*C, h, w) holds the states. `scales` maps each chain to the mixing weights of its channels (slots*C,).
        `masks` (edges, n, h', w', C) is True where the cell's skips keep an element. Returns the first node (n, C, h', w'), which
        is complete, and the partial sums of the others (n, (nodes - 1)*C, h', w').
        """
        bundle, width = Bundle(x, self.kernels), x.shape[1] // self.states
        by_kernels = self.terms is not None and self.training and bundle.uses("sums", width)
        separate = [name for name in self.chains if not by_kernels or name not in self.fused]
        if separate:
            mask = None
            if masks is not None and SKIP in separate:
                mask = masks.permute(1, 2, 3, 0, 4).index_select(3, self.dropped)
            terms = [self.chains[name](bundle, scales[name], mask if name == SKIP else None) for name in separate]
            pending = sum_terms(terms, [self.chain_slots[name] for name in separate], self.states, self.slots, pending)
        if by_kernels:
            return self._weighted_sum(bundle, scales, masks, pending)
        if pending is None:
            nothing = x[:, :width, :: self.stride, :: self.stride] * 0
            pending = nothing.repeat(1, self.slots // self.states, 1, 1)
        first, others = pending.split([width, pending.shape[1] - width], 1)
        return first, others

    def _weighted_sum(
        self, bundle: Bundle, scales: Mapping[str, Tensor], masks: Tensor | None, pending: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Add the terms of the fused chains to `pending` with our kernels, which never write the terms to memory."""
        x, normed = bundle.x, [chain for chain in self.fused.values() if chain.norm is not None]
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        size = [-(-side // self.stride) for side in x.shape[2:]]
        widths = [chain.output_map.blocks * x.shape[1] // self.states for chain in normed]
        buffer = torch.empty((len(x), sum(widths), *size), dtype=dtype, device=x.device,
                             memory_format=torch.channels_last)  # fmt: skip
        parts = [chain.before_norm(bundle, out) for chain, out in zip(normed, buffer.split(widths, 1), strict=True)]
        scale = torch.cat([scales[name] for name in self.fused])
        running = [(chain.norm.running_mean, chain.norm.running_var) for chain in normed]
        result: tuple[Tensor, Tensor] = WeightedSum.apply(  # type: ignore[no-untyped-call]
            self.terms, running, buffer, masks, x, scale, pending, *parts
        )
        return result

    def bypass(self, x: Tensor, edges: Tensor | None, pending: Tensor | None) -> Tensor:
        """Add the channels that bypass the primitives, `x` (n, h, w, states, B), to `pending` (n, h', w', nodes, B).

        `edges` (edges,) holds the edge weights of the cell, or is None if the edges have no weights.
        """
        if self.stride > 1:
            x = pixels(bypass(images(x.flatten(3)), self.stride)).unflatten(3, x.shape[3:])
        weights = x.new_ones(self.slots) if edges is None else edges.index_select(0, self.edges).to(x.dtype)
        result = x.new_zeros(()) if pending is None else pending
        for state, weight in zip(x.split(1, 3), weights.view(self.states, -1, 1), strict=True):
            result = torch.addcmul(result, state, weight)
        return result


class BatchedCell(nn.Module):
    """A cell with all edges of the space, computed one edge group after the other."""

    order: Tensor

    def __init__(self, cell: SuperCell, kernels: frozenset[str]) -> None:
        super().__init__()
        self.space, self.plan, self.kind, self.masks = cell.space, cell.plan, cell.kind, len(cell.dropped)
        self.partial, self.width = cell.partial, cell.plan.channels // cell.partial
        self.older, self.newer = copy.deepcopy(cell.older), copy.deepcopy(cell.newer)
        inputs, nodes = cell.space.inputs, cell.space.nodes
        starts = [range(inputs), *([state] for state in range(inputs, inputs + nodes - 1))]
        groups = [EdgeGroup(cell, states, kernels) for states in starts]
        self.waves = nn.ModuleList(groups)  # `waves` is part of the parameter names in checkpoints
        edges, columns = len(cell.edges), len(cell.space.primitives)
        order = [(self.kind * edges + edge) * columns + column for group in groups for edge, column in group.entries]
        self.register_buffer("order", torch.tensor(order, dtype=torch.int64), persistent=False)
        self.sizes = [len(slots) * self.width for group in groups for slots in group.chain_slots.values()]

    def forward(self, older: Tensor, newer: Tensor, mixing: Mixing, dropout: SkipDropout) -> Tensor:
        """Map the older and newer inputs (n, channels, height, width) to the cell's outputs (n, outputs*C, h, w).

        The outputs of the space are concatenated along the channels.
        """
        width = self.width
        state = torch.cat([self.older(older), self.newer(newer)][-self.space.inputs :], 1)
        masks = dropout.masks(self.masks, (len(newer), width, *self.plan.inside))
        # index_select writes its gradient in place; the gradient of indexing sorts the indices first, in case any repeat.
        scale = mixing.joint.flatten().index_select(0, self.order)
        scales = iter(scale[:, None].expand(-1, width).flatten().split(self.sizes))
        edges = None if mixing.edges is None else mixing.edges[self.kind]

        pending, bypassed, states = None, None, []
        group: Any
        for group in self.waves:
            if self.partial > 1:
                blocks = pixels(state).unflatten(3, (group.states, -1))
                mixed, others = blocks.split([width, blocks.shape[4] - width], 4)
                bypassed = group.bypass(others, edges, bypassed)
                state = images(mixed.flatten(3))
            group_scales = {name: next(scales) for name in group.chains}
            group_masks = masks if len(group.dropped) else None
            if group_masks is not None:
                group_scales[SKIP] = group_scales[SKIP] * dropout.scale
            # A node is complete once the terms from all earlier states have been added.
            state, pending = group(
                state.contiguous(memory_format=torch.channels_last), group_scales, group_masks, pending
            )
            if bypassed is not None:
                first, bypassed = bypassed.split([1, bypassed.shape[3] - 1], 3)
                state = F.channel_shuffle(torch.cat([state, images(first.flatten(3))], 1), self.partial)
            states.append(state)
        return torch.cat(states, 1) if len(self.space.outputs) > 1 else states[-1]


class BatchedSupernet(nn.Module):
    """A faster implementation of the plain supernet `plain`: the same function of images, mixing weights and parameters.

    On a GPU, it may use the `kernels` of these families; torch's operations take the place of the others.
    """

    checkpoint: bool = False

    def __init__(self, plain: Supernet, kernels: frozenset[str] = FAMILIES) -> None:
        super().__init__()
        # Deep copies, so that training one supernet does not change the other.
        self.stem, self.classifier = copy.deepcopy(plain.stem), copy.deepcopy(plain.classifier)
        self.dropout = copy.deepcopy(plain.dropout)
        self.cells = nn.ModuleList(
            BatchedCell(cell, kernels) if isinstance(cell, SuperCell) else copy.deepcopy(cell) for cell in plain.cells
        )
        self._names = _names(plain, self)

    def forward(self, images: Tensor, mixing: Mixing) -> Tensor:
        """Map images (n, c, h, w) and mixing weights (kinds, edges, primitives) to logits (n, classes)."""
        return run_cells(self, images, mixing)

    def plain_state(self) -> dict[str, Tensor]:
        """Return the weights and running statistics with the names and shapes of the plain supernet.

        They are meant for the plain supernet's `load_state_dict(strict=False)`.
        """
        state = self.state_dict()
        return {
            name: part
            for own, names in self._names.items()
            for name, part in zip(names, state[own].chunk(len(names)) if len(names) > 1 else [state[own]], strict=True)
        }

    def load_plain_state(self, plain: Mapping[str, Tensor]) -> None:
        """Load the weights and running statistics of a plain supernet of the same space and skeleton.

        `plain` has the names and shapes of the plain supernet's state dict.
        """
        self.load_state_dict(
            {
                own: torch.cat([plain[name] for name in names]) if len(names) > 1 else plain[names[0]]
                for own, names in self._names.items()
            }
        )


def _names(plain: Supernet, batched: BatchedSupernet) -> dict[str, list[str]]:
    """Return, for each tensor of the batched supernet, the plain names of the tensors stacked in it, in order."""
    known: dict[int, str] = {}
    for name, tensor in plain.state_dict(keep_vars=True).items():
        known.setdefault(id(tensor), name)  # a shared tensor is known by its first name
    stacked = {
        f"{prefix}.{name}": [known[id(origin)] for origin in origins]
        for prefix, module in batched.named_modules()
        if isinstance(module, Stack)
        for name, origins in module.origins.items()
    }
    for module in batched.modules():
        if isinstance(module, Stack):
            module.origins.clear()
    # The stem, classifier and preprocessing modules have the same names in both.
    return {name: stacked.get(name, [name]) for name in batched.state_dict()}

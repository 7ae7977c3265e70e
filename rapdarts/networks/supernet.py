"""The supernet: every edge of every cell computes all its candidates and sums them, weighted by the mixing weights.

This is the plain supernet, with one module for each edge and primitive, written for clarity. It has no architecture
parameters; pass the mixing weights as in `supernet(images, mixing)`.

With `search.partial_channels=K`, only the first 1/K of a state's channels go through the mixed operation of an edge, and
the rest bypass it. A channel shuffle then moves different channels to the front for the next node (Xu et al. 2020, section
3.2, and their code).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapdarts.architecture.space import NONE, SKIP, CellPlan, Mixing, SearchSpace, Skeleton
from rapdarts.networks.layers import Classifier, ResidualBlock, Stem, preprocess
from rapdarts.networks.recompute import recomputed


class MixedOp(nn.Module):
    """An edge: the weighted sum of its candidates (Liu et al. 2019, Eq. 2) on the first 1/`partial` of the channels."""

    def __init__(
        self, space: SearchSpace, candidates: tuple[str, ...], channels: int, stride: int, partial: int = 1
    ) -> None:
        super().__init__()
        self.stride, self.partial = stride, partial
        # `none` adds nothing to a sum. It is built only if it is the only candidate, because the edge needs an output.
        built = [name for name in candidates if name != NONE] or [NONE]
        self.ops = nn.ModuleDict({name: space.primitives[name](channels // partial, stride, False) for name in built})
        self.columns = {name: space.columns[name] for name in built}

    def forward(self, x: Tensor, weights: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        """Map `x` (n, C, h, w) to (n, C, ceil(h/stride), ceil(w/stride)) with `weights` (primitives,).

        `drop` is applied to the output of `skip_connect`.
        """
        width = x.shape[1] // self.partial
        mixed_part, bypassed = x.split([width, x.shape[1] - width], 1)
        terms = []
        for name, op in self.ops.items():
            y = op(mixed_part)
            if name == SKIP:
                y = drop(y)
            terms.append(weights[self.columns[name]] * y)
        mixed = sum(terms[1:], terms[0])
        if self.partial == 1:
            return mixed
        return F.channel_shuffle(torch.cat([mixed, bypass(bypassed, self.stride)], 1), self.partial)


def bypass(x: Tensor, stride: int) -> Tensor:
    """Pool the channels that bypass a mixed operation to its output size.

    Maps (n, C, h, w) to (n, C, ceil(h/stride), ceil(w/stride)).
    """
    return x if stride == 1 else F.max_pool2d(x, stride, ceil_mode=True)


class SkipDropout(nn.Module):
    """Elementwise dropout after `skip_connect` with stride 1, during training (Chen et al. 2019, section 3.3).

    All masks of a cell are drawn in one call from torch's generator, which the training loop reseeds at every step, so
    that both implementations of the supernet drop the same elements.
    """

    threshold: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        # These are buffers on the device, so that a captured CUDA graph reads the rate of the current epoch.
        self.register_buffer("threshold", torch.zeros((), dtype=torch.int16), persistent=False)
        self.register_buffer("scale", torch.ones(()), persistent=False)
        self.rate = 0.0

    @property
    def rate(self) -> float:
        """The probability that an element is dropped, a multiple of 1/65536."""
        return self._drop / 65536

    @rate.setter
    def rate(self, rate: float) -> None:
        self._drop = min(round(rate * 65536), 65535)
        self.threshold.fill_(self._drop - 32768)
        self.scale.fill_(1 / (1 - self.rate))

    def masks(self, edges: int, shape: tuple[int, int, int, int]) -> Tensor | None:
        """Return boolean masks (edges, n, h, w, C) for feature maps (n, C, h, w), or None if nothing is dropped.

        A mask is True where an element is kept.
        """
        if self._drop == 0 or not self.training or edges == 0:
            return None
        n, channels, height, width = shape
        count = edges * n * height * width * channels
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=self.threshold.device)
        # 16 random bits per element, four elements per draw: torch.rand would need four times as many draws.
        draws = words.random_(-(2**63), None).view(torch.int16)[:count]
        return (draws >= self.threshold).view(edges, n, height, width, channels)


class SuperCell(nn.Module):
    """A cell with all edges of the space."""

    def __init__(self, space: SearchSpace, plan: CellPlan, partial: int = 1) -> None:
        super().__init__()
        self.space, self.plan, self.kind = space, plan, space.kinds.index(plan.kind)
        self.partial = partial
        self.older, self.newer = preprocess(space, plan, affine=False)
        candidates = space.candidates[self.kind]
        strides = [plan.stride if source < space.inputs else 1 for _, source in space.edges]
        self.edges = nn.ModuleList(
            MixedOp(space, names, plan.channels, stride, partial)
            for names, stride in zip(candidates, strides, strict=True)
        )
        self.dropped = [edge for edge, names in enumerate(candidates) if SKIP in names and strides[edge] == 1]

    def forward(self, older: Tensor, newer: Tensor, mixing: Mixing, drop: SkipDropout) -> Tensor:
        """Map the older and newer inputs (n, channels, height, width) to the cell's outputs (n, outputs*C, h, w).

        The outputs of the space are concatenated along the channels.
        """
        states = [self.older(older), self.newer(newer)][-self.space.inputs :]
        masks = drop.masks(len(self.dropped), (len(newer), self.plan.channels // self.partial, *self.plan.inside))

        def dropout(edge: int, y: Tensor) -> Tensor:
            if masks is None or edge not in self.dropped:
                return y
            return drop.scale.to(y.dtype) * torch.where(masks[self.dropped.index(edge)].permute(0, 3, 1, 2), y, 0.0)

        for node in range(self.space.nodes):
            into = range(len(self.edges))[self.space.edges_into(node)]
            terms = [
                self.edges[edge](states[source], mixing.weights[self.kind, edge], partial(dropout, edge))
                for source, edge in enumerate(into)
            ]
            if mixing.edges is not None:
                terms = [mixing.edges[self.kind, edge] * term for edge, term in zip(into, terms, strict=True)]
            states.append(sum(terms[1:], terms[0]))
        return torch.cat([states[i] for i in self.space.outputs], 1)


class Supernet(nn.Module):
    """All networks of a space in one network, with the depth and width of `skeleton`.

    `dropout.rate` is the dropout rate after stride-1 skips in training; the search loop lowers it every epoch. 1/`partial`
    of the channels go through the mixed operations; `partial` must divide the number of channels. With `checkpoint`,
    the activations inside a cell are recomputed in the backward pass instead of being saved.
    """

    checkpoint: bool = False

    def __init__(self, space: SearchSpace, skeleton: Skeleton, partial: int = 1) -> None:
        super().__init__()
        plans = skeleton.cells(space)
        self.stem = Stem(space, skeleton)
        self.cells = nn.ModuleList(
            SuperCell(space, plan, partial) if plan.kind in space.kinds else ResidualBlock(plan) for plan in plans
        )
        self.classifier = Classifier(space, len(space.outputs) * plans[-1].channels, skeleton.classes)
        self.dropout = SkipDropout()

    def forward(self, images: Tensor, mixing: Mixing) -> Tensor:
        """Map images (n, c, h, w) and mixing weights (kinds, edges, primitives) to logits (n, classes)."""
        return run_cells(self, images, mixing)


def run_cells(supernet: Any, images: Tensor, mixing: Mixing) -> Tensor:
    """Run the stem, cells and classifier of a plain or batched supernet: images (n, c, h, w) to logits (n, classes)."""
    mixing = mixing.to(images.dtype)
    older, newer = supernet.stem(images)
    for cell in supernet.cells:
        given = (older, newer, mixing, supernet.dropout)
        older, newer = newer, recomputed(cell, *given) if supernet.checkpoint else cell(*given)
    return supernet.classifier(newer)

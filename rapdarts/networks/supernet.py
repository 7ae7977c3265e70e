"""The supernet: every edge of every cell computes all its open candidates and sums them by the mixing weights.

This is the plain one, a module for each edge and primitive, short and obviously right. It owns no architecture
parameters: `supernet(images, mixing)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rapdarts.networks.layers import Classifier, ResidualBlock, Stem, preprocess
from rapdarts.space import NONE, SKIP, CellPlan, Mixing, SearchSpace, Skeleton


class MixedOp(nn.Module):
    """One edge: the weighted sum of its open candidates (Liu et al. 2019, Eq. 2)."""

    def __init__(self, space: SearchSpace, candidates: tuple[str, ...], channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # `none` adds nothing to a sum; it is built only where it stands alone and the edge still needs a shape.
        heard = [name for name in candidates if name != NONE] or [NONE]
        self.ops = nn.ModuleDict({name: space.primitives[name](channels, stride, False) for name in heard})
        self.columns = {name: space.columns[name] for name in heard}

    def forward(self, x: Tensor, weights: Tensor, drop: SkipDropout, cell: int, edge: int) -> Tensor:
        """`x` (n, C, h, w), `weights` (primitives,); gives (n, C, ceil(h/stride), ceil(w/stride))."""
        terms = []
        for name, op in self.ops.items():
            y = op(x)
            if name == SKIP and self.stride == 1:
                y = drop(y, cell, edge)
            terms.append(weights[self.columns[name]] * y)
        return sum(terms[1:], terms[0])


class SkipDropout:
    """Elementwise dropout after skips of stride 1 (Chen et al. 2019, section 3.3), with a mask for each (cell, edge).

    Every mask is a function of (key, cell, edge) alone, so that supernets of different build drop the same elements.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        # The key comes from torch's generator, which the training loop seeds afresh at every step.
        self.key = int(torch.randint(2**62, ())) if rate > 0 else 0

    def __call__(self, x: Tensor, cell: int, edge: int) -> Tensor:
        if self.rate == 0:
            return x
        generator = torch.Generator(x.device).manual_seed(self.key + (cell << 16) + edge)
        keep = torch.rand(x.shape, generator=generator, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


class SuperCell(nn.Module):
    """A cell in which all edges of the space are present."""

    def __init__(self, space: SearchSpace, plan: CellPlan) -> None:
        super().__init__()
        self.space, self.layer, self.kind = space, plan.layer, space.kinds.index(plan.kind)
        self.older, self.newer = preprocess(space, plan, affine=False)
        self.edges = nn.ModuleList(
            MixedOp(space, candidates, plan.channels, plan.stride if source < space.inputs else 1)
            for (_, source), candidates in zip(space.edges, space.candidates[self.kind], strict=True)
        )

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor, drop: SkipDropout) -> Tensor:
        """`weights` is (kinds, edges, primitives); gives the space's outputs side by side (n, outputs * C, h, w)."""
        states = [self.older(older), self.newer(newer)][-self.space.inputs :]
        for node in range(self.space.nodes):
            into = range(len(self.edges))[self.space.edges_into(node)]
            terms = [
                self.edges[edge](states[source], weights[self.kind, edge], drop, self.layer, edge)
                for source, edge in enumerate(into)
            ]
            states.append(sum(terms[1:], terms[0]))
        return torch.cat([states[i] for i in self.space.outputs], 1)


class Supernet(nn.Module):
    """All networks of a space at once, at the depth and width of `skeleton`.

    `skip_dropout` is the rate after stride-1 skips in training; the search loop lowers it from epoch to epoch.
    """

    def __init__(self, space: SearchSpace, skeleton: Skeleton) -> None:
        super().__init__()
        self.skip_dropout = 0.0
        plans = skeleton.cells(space)
        self.stem = Stem(space, skeleton)
        self.cells = nn.ModuleList(
            SuperCell(space, plan) if plan.kind in space.kinds else ResidualBlock(plan) for plan in plans
        )
        self.classifier = Classifier(space, len(space.outputs) * plans[-1].channels, skeleton.classes)

    def forward(self, images: Tensor, mixing: Mixing) -> Tensor:
        """Images (n, c, h, w) and mixing weights (kinds, edges, primitives) to logits (n, classes)."""
        drop = SkipDropout(self.skip_dropout if self.training else 0.0)
        weights = mixing.weights.to(images.dtype)
        older, newer = self.stem(images)
        for cell in self.cells:
            older, newer = newer, cell(older, newer, weights, drop)
        return self.classifier(newer)

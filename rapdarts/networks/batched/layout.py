"""The layout of the batched supernet's tensors: the blocks that slots read, the geometry of windows, and the terms of sums.

Operations and kernels both import this module; it imports neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FAMILIES = frozenset({"convolutions", "norms", "pools", "sums"})
"""Families of kernels, one for each module of kernels; torch's operations can replace each of them."""


def pixels(x: Tensor) -> Tensor:
    """View (n, C, h, w) as (n, h, w, C), the channels_last memory order."""
    return x.permute(0, 2, 3, 1)


def images(x: Tensor) -> Tensor:
    """View (n, h, w, C) as (n, C, h, w)."""
    return x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class BlockMap:
    """The block that each slot reads: slot i reads block `sources[i]` of a bundle with `blocks` blocks."""

    sources: tuple[int, ...]
    blocks: int

    @classmethod
    def identity(cls, slots: int) -> BlockMap:
        """Return the map in which every slot reads its own block."""
        return cls(tuple(range(slots)), slots)

    @property
    def is_identity(self) -> bool:
        """True if every slot reads its own block."""
        return self.sources == tuple(range(self.blocks))

    @property
    def is_grouped(self) -> bool:
        """True if consecutive slots read the same block and every block has the same number of readers."""
        each = len(self.sources) // self.blocks
        return self.sources == tuple(block for block in range(self.blocks) for _ in range(each))

    def index_select(self, x: Tensor) -> Tensor:
        """Concatenate the blocks that the slots read: (n, blocks*C, h, w) to (n, slots*C, h, w)."""
        return x if self.is_identity else torch.cat(self.split(x), 1)

    def split(self, x: Tensor) -> list[Tensor]:
        """Split `x` (n, blocks*C, h, w) and return the block of each slot as a view (n, C, h, w)."""
        blocks = x.chunk(self.blocks, 1)
        return [blocks[source] for source in self.sources]

    def by_slot(self, x: Tensor) -> Tensor:
        """Return the result of `index_select` as (n, h, w, slots, C), without a copy if all slots read the same block."""
        if self.blocks == 1:
            return pixels(x).unsqueeze(3).expand(-1, -1, -1, len(self.sources), -1)
        return pixels(self.index_select(x)).unflatten(3, (len(self.sources), -1))

    def index_add(self, gradient: Tensor) -> Tensor:
        """Sum the slots that read the same block, the transpose of `index_select`: (n, slots*C, h, w) to (n, blocks*C, h, w)."""
        if self.is_identity:
            return gradient
        slots = pixels(gradient).unflatten(3, (len(self.sources), -1))
        if self.is_grouped:
            return images(slots.unflatten(3, (self.blocks, -1)).sum(4).flatten(3))
        parts = slots.unbind(3)
        sums = []
        for block in range(self.blocks):
            readers = [part for part, read in zip(parts, self.sources, strict=True) if read == block]
            sums.append(sum(readers[1:], readers[0]) if readers else torch.zeros_like(parts[0]))
        return images(torch.cat(sums, 3))


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation of a convolution, each as (rows, columns)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def keeps_size(self, kernel: tuple[int, int]) -> bool:
        """Return True if the output has the size of the input."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        return self.stride == (1, 1) and all(2 * p == r for p, r in zip(self.padding, reach, strict=True))

    def output_size(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """Return the output size (rows, columns) for an input of `size`."""
        height, width = (
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, p, d, k, s in zip(size, self.padding, self.dilation, kernel, self.stride, strict=True)
        )
        return height, width


@dataclass(frozen=True)
class Terms:
    """The terms of an edge group's sums, one per slot: first the terms that end in a batch norm, then the skips.

    `norms` maps the slots of the norms to the blocks of the buffer that the norms read, and `skips` maps the slots of
    the skips to the group's states. `into` gives the index of the node that each slot enters (`nodes` is their number); `masks` gives
    the index of each skip's mask among the masks of the cell. All norms share `momentum` and `eps`.
    """

    norms: BlockMap
    skips: BlockMap
    masks: tuple[int, ...]
    into: tuple[int, ...]
    nodes: int
    momentum: float
    eps: float

    @property
    def reads(self) -> tuple[int, ...]:
        """The block that each slot reads."""
        return self.norms.sources + self.skips.sources

"""The layout of the batched supernet's tensors: which block of channels a slot reads, how a window moves, where a sum's terms lie.

Values that the operations and their kernels both need; this module imports neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def pixels(x: Tensor) -> Tensor:
    """(n, C, h, w) seen as (n, h, w, C): the order of channels_last in memory."""
    return x.permute(0, 2, 3, 1)


def images(x: Tensor) -> Tensor:
    """(n, h, w, C) seen as (n, C, h, w)."""
    return x.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Reading:
    """Which of the `blocks` of a bundle each slot reads."""

    sources: tuple[int, ...]
    blocks: int

    @classmethod
    def own(cls, slots: int) -> Reading:
        """Every slot its own block."""
        return cls(tuple(range(slots)), slots)

    @property
    def plain(self) -> bool:
        """Whether the bundle is read as it is."""
        return self.sources == tuple(range(self.blocks))

    @property
    def even(self) -> bool:
        """Whether each block in its turn is read by the same number of slots."""
        each = len(self.sources) // self.blocks
        return self.sources == tuple(block for block in range(self.blocks) for _ in range(each))

    def spread(self, x: Tensor) -> Tensor:
        """A block for each slot: (n, blocks*C, h, w) to (n, slots*C, h, w)."""
        return x if self.plain else torch.cat(self.split(x), 1)

    def split(self, x: Tensor) -> list[Tensor]:
        """The block of each slot, (n, C, h, w)."""
        blocks = x.chunk(self.blocks, 1)
        return [blocks[source] for source in self.sources]

    def slots(self, x: Tensor) -> Tensor:
        """`spread` seen as (n, h, w, slots, C); no copy where all slots read the same block."""
        if self.blocks == 1:
            return pixels(x).unsqueeze(3).expand(-1, -1, -1, len(self.sources), -1)
        return pixels(self.spread(x)).unflatten(3, (len(self.sources), -1))

    def gather(self, gradient: Tensor) -> Tensor:
        """The transpose of `spread`, (n, slots*C, h, w) to (n, blocks*C, h, w): sums the slots that read the same block."""
        if self.plain:
            return gradient
        slots = pixels(gradient).unflatten(3, (len(self.sources), -1))
        if self.even:
            return images(slots.unflatten(3, (self.blocks, -1)).sum(4).flatten(3))
        parts = slots.unbind(3)
        sums = []
        for block in range(self.blocks):
            readers = [part for part, read in zip(parts, self.sources, strict=True) if read == block]
            sums.append(sum(readers[1:], readers[0]) if readers else torch.zeros_like(parts[0]))
        return images(torch.cat(sums, 3))


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over the image; each as (rows, columns)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def same(self, kernel: tuple[int, int]) -> bool:
        """Whether it gives an image of the size it was given."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        return self.stride == (1, 1) and all(2 * p == r for p, r in zip(self.padding, reach, strict=True))

    def result(self, given: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """The size (rows, columns) of what it makes of an image of a `given` size."""
        height, width = (
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, p, d, k, s in zip(given, self.padding, self.dilation, kernel, self.stride, strict=True)
        )
        return height, width


@dataclass(frozen=True)
class Terms:
    """The terms of a wave, slot by slot: first those that a batch norm ends, which lie in the wave's room, then skips of its states.

    `norms` and `skips` say which block of either a slot reads, `into` which of the `nodes` it enters, and `masks` which
    of those that are drawn for a cell a skip has. All norms have one `momentum` and one `eps`.
    """

    norms: Reading
    skips: Reading
    masks: tuple[int, ...]
    into: tuple[int, ...]
    nodes: int
    momentum: float
    eps: float

    @property
    def reads(self) -> tuple[int, ...]:
        """The block of each slot."""
        return self.norms.sources + self.skips.sources

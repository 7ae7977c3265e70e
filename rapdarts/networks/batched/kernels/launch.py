"""Helpers for kernel launches: index tables on the device, the pitch of images, output buffers, and sizes of tiles and grids."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from rapdarts.networks.batched.layout import BlockMap

TILE_ELEMENTS = 2048
"""Elements of a program's tile (pixels x channels): 16 per thread."""

PROGRAMS = 528
"""Number of programs that occupy a large GPU: four on each of 132 multiprocessors."""


@cache
def index_table(entries: tuple[int, ...], device: torch.device) -> Tensor:
    """Return small integers as a tensor (entries,) on the device.

    The table is cached, so that no step copies it again and a CUDA graph that reads it stays valid.
    """
    return torch.tensor(entries, dtype=torch.int32, device=device)


@cache
def readers_of(block_map: BlockMap) -> tuple[int, tuple[int, ...]]:
    """Return the maximum number of slots that read the same block, and a flat table with a row of this length for every block.

    A row holds the slots that read the block, padded with -1.
    """
    found = [[s for s, read in enumerate(block_map.sources) if read == block] for block in range(block_map.blocks)]
    most = max(map(len, found))
    return most, tuple(slot for row in found for slot in (*row, *[-1] * (most - len(row))))


def pitch(x: Tensor) -> int | None:
    """Return the pitch of `x` (n, C, h, w): the number of elements from one pixel to the next.

    Returns None if this distance varies or the channels are not contiguous. A slice of channels has the pitch of the
    whole tensor.
    """
    n, channels, height, width = x.shape
    steps = [(width, x.stride(3)), (height, x.stride(2) / width), (n, x.stride(0) / (height * width))]
    found = {step for size, step in steps if size > 1} or {channels}
    return int(found.pop()) if len(found) == 1 and (channels == 1 or x.stride(1) == 1) else None


def ensure_pitch(x: Tensor) -> Tensor:
    """Return `x` (n, C, h, w) itself if it has a pitch, otherwise a channels-last copy."""
    return x if pitch(x) else x.contiguous(memory_format=torch.channels_last)


def output_buffer(out: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `out` if it has the shape `shape` (n, C, h, w), otherwise a new channels-last tensor of that shape."""
    if out is not None and out.shape == shape:
        return out
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)


def block_of(channels: int) -> int:
    """Return the number of channels of a tile: a power of two and at least 16, as `tl.dot` requires."""
    return max(16, triton.next_power_of_2(channels))


def precision() -> str:
    """Return the precision of float32 products, the same as in torch's convolutions."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"

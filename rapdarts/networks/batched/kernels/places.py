"""Which block a slot reads, and which slots read a block, as a GPU kernel looks it up; how images lie, and what a kernel's tiles hold."""

from __future__ import annotations

from functools import cache

import torch
import triton
from torch import Tensor

from rapdarts.networks.batched.layout import Reading

ELEMENTS = 2048
"""What of a tile (pixels times channels) a program holds: 16 numbers a thread."""

PROGRAMS = 528
"""Programs that keep a large GPU busy: four on each of 132 multiprocessors."""


@cache
def table(entries: tuple[int, ...], device: torch.device) -> Tensor:
    """Small whole numbers on the device; kept, so that no step copies them again, nor a recording loses them."""
    return torch.tensor(entries, dtype=torch.int32, device=device)


@cache
def readers_of(reading: Reading) -> tuple[int, tuple[int, ...]]:
    """For every block the slots that read it, in rows of equal length, -1 behind the last; and that length."""
    found = [[s for s, read in enumerate(reading.sources) if read == block] for block in range(reading.blocks)]
    most = max(map(len, found))
    return most, tuple(slot for row in found for slot in (*row, *[-1] * (most - len(row))))


def pitch(x: Tensor) -> int | None:
    """How many numbers lie between a pixel of `x` (n, C, h, w) and the next; None where it is not the same for all, channels side by side.

    Channels of a wider tensor have the pitch of that one.
    """
    n, channels, height, width = x.shape
    steps = [(width, x.stride(3)), (height, x.stride(2) / width), (n, x.stride(0) / (height * width))]
    found = {step for size, step in steps if size > 1} or {channels}
    return int(found.pop()) if len(found) == 1 and (channels == 1 or x.stride(1) == 1) else None


def laid_out(x: Tensor) -> Tensor:
    """`x` itself where it has a pitch, else a copy, channels last."""
    return x if pitch(x) else x.contiguous(memory_format=torch.channels_last)


def taken(room: Tensor | None, shape: tuple[int, ...], kind: torch.dtype, device: torch.device) -> Tensor:
    """The `room` for a result, if it is of its shape; else a new one, channels last."""
    if room is not None and room.shape == shape:
        return room
    return torch.empty(shape, dtype=kind, device=device, memory_format=torch.channels_last)


def block_of(channels: int) -> int:
    return max(16, triton.next_power_of_2(channels))


def precision() -> str:
    """That of float32 convolutions elsewhere in torch."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"

"""Batch norm of many slots on a GPU: statistics once for every block, whatever number of slots read it, and no copy of it.

Sums over pixels are taken in parts and added up in a fixed order, so that a step gives the same bits again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapdarts.networks.blocks import Reading
from rapdarts.networks.kernels.places import ELEMENTS, PROGRAMS, block_of, readers_of, table

PARTS = 64
"""Most parts in which the pixels are summed."""


@triton.jit(do_not_specialize=["pixels", "steps", "parts", "readers"])
def _moments(source, sums, pixels, steps, channels, c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr):
    """Sums over a part of the pixels, of one block's channels and of their squares, less the first pixel's values."""
    part, at_block = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, block)
    known = c < c_in
    first = tl.load(source + at_block * c_in + c, known, 0.0).to(tl.float32)
    once = tl.zeros((tile, block), tl.float32)
    twice = tl.zeros((tile, block), tl.float32)
    for step in range(steps):
        at = (part * steps + step) * tile + tl.arange(0, tile)
        asked = (at < pixels)[:, None] & known[None, :]
        place = at.to(tl.int64) * channels + at_block * c_in
        x = tl.load(source + place[:, None] + c[None, :], asked, 0.0).to(tl.float32)
        x = tl.where(asked, x - first[None, :], 0.0)
        once += x
        twice += x * x
    place = part * 2 * channels + at_block * c_in + c
    tl.store(sums + place, tl.sum(once, 0), known)
    tl.store(sums + place + channels, tl.sum(twice, 0), known)


@triton.jit(do_not_specialize=["pixels", "steps", "parts", "readers"])
def _normalise(
    source, target, scale, reads, sums, kept, mean, var, pixels, steps, parts, from_channels, channels, momentum, eps,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, most_parts: tl.constexpr,
    weighs: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """(x - mean) / deviation, times the slot's scale, of some tiles of a slot; the first program keeps the statistics."""
    share, slot = tl.program_id(0), tl.program_id(1)
    at_block = tl.load(reads + slot)
    c, p = tl.arange(0, block), tl.arange(0, most_parts)
    known = c < c_in
    place = (p * 2 * from_channels + at_block * c_in)[:, None] + c[None, :]
    asked = (p < parts)[:, None] & known[None, :]
    once = tl.sum(tl.load(sums + place, asked, 0.0), 0) / pixels
    twice = tl.sum(tl.load(sums + place + from_channels, asked, 0.0), 0) / pixels
    middle = tl.load(source + at_block * c_in + c, known, 0.0).to(tl.float32) + once
    spread = twice - once * once
    spread = tl.where(spread < 0, 0.0, spread)  # tl.maximum would make a number of a NaN
    inverse = 1 / tl.sqrt(spread + eps)
    own = slot * c_in + c
    if share == 0:
        tl.store(kept + own, middle, known)
        tl.store(kept + channels + own, inverse, known)
        old = tl.load(mean + own, known, 0.0)
        tl.store(mean + own, old + momentum * (middle - old), known)
        old = tl.load(var + own, known, 0.0)
        tl.store(var + own, old + momentum * (spread * (pixels / (pixels - 1)) - old), known)
    if weighs:
        factor = inverse * tl.load(scale + own, known, 0.0).to(tl.float32)
    else:
        factor = inverse
    for step in range(steps):
        at = (share * steps + step) * tile + tl.arange(0, tile)
        inside = (at < pixels)[:, None] & known[None, :]
        at = at.to(tl.int64)
        x = tl.load(source + (at * from_channels + at_block * c_in)[:, None] + c[None, :], inside, 0.0).to(tl.float32)
        y = (x - middle[None, :]) * factor[None, :]
        if relu:
            y = tl.where(y < 0, 0.0, y)
        tl.store(target + (at * channels + slot * c_in)[:, None] + c[None, :], y.to(target.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["pixels", "steps", "parts", "readers"])
def _reduce(
    gradient, source, reads, kept, sums, pixels, steps, from_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """Sums over a part of the pixels, of a slot's gradient and of that times the normalised values."""
    part, slot = tl.program_id(0), tl.program_id(1)
    at_block = tl.load(reads + slot)
    c = tl.arange(0, block)
    known = c < c_in
    middle = tl.load(kept + slot * c_in + c, known, 0.0)
    inverse = tl.load(kept + channels + slot * c_in + c, known, 0.0)
    once = tl.zeros((tile, block), tl.float32)
    twice = tl.zeros((tile, block), tl.float32)
    for step in range(steps):
        at = (part * steps + step) * tile + tl.arange(0, tile)
        asked = (at < pixels)[:, None] & known[None, :]
        at = at.to(tl.int64)
        g = tl.load(gradient + (at * channels + slot * c_in)[:, None] + c[None, :], asked, 0.0).to(tl.float32)
        x = tl.load(source + (at * from_channels + at_block * c_in)[:, None] + c[None, :], asked, 0.0).to(tl.float32)
        x = (x - middle[None, :]) * inverse[None, :]
        if relu:
            g = tl.where(x > 0, g, 0.0)
        once += g
        twice += g * x
    place = part * 2 * channels + slot * c_in + c
    tl.store(sums + place, tl.sum(once, 0), known)
    tl.store(sums + place + channels, tl.sum(twice, 0), known)


@triton.jit(do_not_specialize=["pixels", "steps", "parts", "readers"])
def _return(
    gradient, source, target, scale, readers_table, kept, sums, pixels, readers, from_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, weighs: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """The gradient for a tile of a block, from all slots that read it."""
    at_block = tl.program_id(1)
    at = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.arange(0, block)
    known = c < c_in
    asked = (at < pixels)[:, None] & known[None, :]
    at = at.to(tl.int64)
    here = (at * from_channels + at_block * c_in)[:, None] + c[None, :]
    x = tl.load(source + here, asked, 0.0).to(tl.float32)
    total = tl.zeros((tile, block), tl.float32)
    for reader in range(readers):
        slot = tl.load(readers_table + at_block * readers + reader)
        if slot >= 0:
            own = slot * c_in + c
            inverse = tl.load(kept + channels + own, known, 0.0)
            standing = (x - tl.load(kept + own, known, 0.0)[None, :]) * inverse[None, :]
            g = tl.load(gradient + (at * channels + slot * c_in)[:, None] + c[None, :], asked, 0.0).to(tl.float32)
            if relu:
                g = tl.where(standing > 0, g, 0.0)
            once = tl.load(sums + own, known, 0.0) / pixels
            twice = tl.load(sums + channels + own, known, 0.0) / pixels
            if weighs:
                inverse *= tl.load(scale + own, known, 0.0).to(tl.float32)
            total += inverse[None, :] * (g - once[None, :] - standing * twice[None, :])
    tl.store(target + here, total.to(target.dtype.element_ty), asked)


def _plan(pixels: int, groups: int, width: int, most: int) -> tuple[int, int, int, int]:
    """Channels and pixels of a tile, tiles of a program, and programs for each of the groups."""
    block = block_of(width)
    tile = max(16, ELEMENTS // block)
    tiles = triton.cdiv(pixels, tile)
    steps = triton.cdiv(tiles, min(most, tiles, max(1, 2 * PROGRAMS // groups)))
    return block, tile, steps, triton.cdiv(tiles, steps)


def forward(
    x: Tensor,
    reading: Reading,
    scale: Tensor | None,
    mean: Tensor,
    var: Tensor,
    momentum: float,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Normalises `x` (n, blocks*C, h, w) for every slot, times `scale` (slots*C,), and behind a ReLU if asked.

    Updates the running `mean` and `var` (slots*C,) in place; gives (n, slots*C, h, w), and mean and inverse deviation (2, slots*C).
    """
    slots, width = len(reading.sources), x.shape[1] // reading.blocks
    pixels, channels = x.numel() // x.shape[1], slots * width
    block, tile, steps, parts = _plan(pixels, reading.blocks, width, PARTS)
    sums = torch.empty((parts, 2, x.shape[1]), dtype=torch.float32, device=x.device)
    _moments[parts, reading.blocks](x, sums, pixels, steps, x.shape[1], width, block, tile)
    result = torch.empty((len(x), channels, *x.shape[2:]), dtype=x.dtype, device=x.device,
                         memory_format=torch.channels_last)  # fmt: skip
    kept = torch.empty((2, channels), dtype=torch.float32, device=x.device)
    _, _, steps, shares = _plan(pixels, slots, width, pixels)
    _normalise[shares, slots](
        x, result, x if scale is None else scale, table(reading.sources, x.device), sums, kept, mean, var,
        pixels, steps, parts, x.shape[1], channels, momentum, eps,
        width, block, tile, PARTS, scale is not None, relu,
    )  # fmt: skip
    return result, kept


def backward(
    gradient: Tensor, x: Tensor, reading: Reading, scale: Tensor | None, kept: Tensor, relu: bool, for_x: bool
) -> tuple[Tensor | None, Tensor]:
    """The gradients for `x` and for the scale, given that for the result."""
    slots, width = len(reading.sources), x.shape[1] // reading.blocks
    pixels, channels = x.numel() // x.shape[1], slots * width
    block, tile, steps, parts = _plan(pixels, slots, width, PARTS)
    sums = torch.empty((parts, 2, channels), dtype=torch.float32, device=x.device)
    _reduce[parts, slots](
        gradient, x, table(reading.sources, x.device), kept, sums, pixels, steps, x.shape[1], channels,
        width, block, tile, relu,
    )  # fmt: skip
    total = sums.sum(0)
    to_x = None
    if for_x:
        readers, readers_table = readers_of(reading)
        to_x = torch.empty_like(x, memory_format=torch.channels_last)
        _return[triton.cdiv(pixels, tile), reading.blocks](
            gradient, x, to_x, x if scale is None else scale, table(readers_table, x.device), kept, total, pixels,
            readers, x.shape[1], channels, width, block, tile, scale is not None, relu,
        )  # fmt: skip
    return to_x, total[1]

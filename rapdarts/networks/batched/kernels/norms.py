"""Batch norms of many slots on a GPU.

The statistics of a block are computed once, however many slots read it, and the block is never copied. A norm within a
chain can include the ReLU that follows it. Sums over pixels are computed in parts and added in a fixed order, so that a
step is bit-reproducible.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapdarts.networks.batched.kernels.launch import PROGRAMS, TILE_ELEMENTS, block_of, index_table, readers_of
from rapdarts.networks.batched.layout import BlockMap

PARTS = 64
"""Maximum number of parts in which the pixels are summed."""


@triton.jit(do_not_specialize=["pixels", "steps"])
def _moments(source, sums, pixels, steps, channels, c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr):
    """Sum a block's channels and their squares over a part of the pixels, after subtracting the values of the first pixel."""
    part, source_block = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, block)
    has_channel = c < c_in
    first = tl.load(source + source_block * c_in + c, has_channel, 0.0).to(tl.float32)
    sum_x = tl.zeros((tile, block), tl.float32)
    sum_xx = tl.zeros((tile, block), tl.float32)
    for step in range(steps):
        pixel = (part * steps + step) * tile + tl.arange(0, tile)
        mask = (pixel < pixels)[:, None] & has_channel[None, :]
        offset = pixel.to(tl.int64) * channels + source_block * c_in
        x = tl.load(source + offset[:, None] + c[None, :], mask, 0.0).to(tl.float32)
        x = tl.where(mask, x - first[None, :], 0.0)
        sum_x += x
        sum_xx += x * x
    offset = part * 2 * channels + source_block * c_in + c
    tl.store(sums + offset, tl.sum(sum_x, 0), has_channel)
    tl.store(sums + offset + channels, tl.sum(sum_xx, 0), has_channel)


@triton.jit
def mean_and_variance(
    source, sums, source_block, pixels, parts, channels, c_in: tl.constexpr, block: tl.constexpr, most_parts: tl.constexpr
):  # fmt: skip
    """Return the mean and variance of a block's channels from their sums over parts of the pixels."""
    c, p = tl.arange(0, block), tl.arange(0, most_parts)
    has_channel = c < c_in
    offset = (p * 2 * channels + source_block * c_in)[:, None] + c[None, :]
    mask = (p < parts)[:, None] & has_channel[None, :]
    mean_x = tl.sum(tl.load(sums + offset, mask, 0.0), 0) / pixels
    mean_xx = tl.sum(tl.load(sums + offset + channels, mask, 0.0), 0) / pixels
    variance = mean_xx - mean_x * mean_x
    variance = tl.where(variance < 0, 0.0, variance)  # tl.maximum would turn a NaN into a number
    return tl.load(source + source_block * c_in + c, has_channel, 0.0).to(tl.float32) + mean_x, variance


@triton.jit(do_not_specialize=["pixels", "steps", "parts"])
def _normalise(
    source, target, reads, sums, statistics, running_mean, running_var, pixels, steps, parts, from_channels, channels,
    momentum, eps,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, most_parts: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """Compute (x - mean) / deviation for some tiles of a slot; the first program also stores the statistics."""
    chunk, slot = tl.program_id(0), tl.program_id(1)
    source_block = tl.load(reads + slot)
    mean, variance = mean_and_variance(
        source, sums, source_block, pixels, parts, from_channels, c_in, block, most_parts
    )
    inverse = 1 / tl.sqrt(variance + eps)
    c = tl.arange(0, block)
    has_channel = c < c_in
    own = slot * c_in + c
    if chunk == 0:
        tl.store(statistics + own, mean, has_channel)
        tl.store(statistics + channels + own, inverse, has_channel)
        old = tl.load(running_mean + own, has_channel, 0.0)
        tl.store(running_mean + own, old + momentum * (mean - old), has_channel)
        old = tl.load(running_var + own, has_channel, 0.0)
        tl.store(running_var + own, old + momentum * (variance * (pixels / (pixels - 1)) - old), has_channel)
    for step in range(steps):
        pixel = (chunk * steps + step) * tile + tl.arange(0, tile)
        mask = (pixel < pixels)[:, None] & has_channel[None, :]
        pixel = pixel.to(tl.int64)
        offset = (pixel * from_channels + source_block * c_in)[:, None] + c[None, :]
        x = tl.load(source + offset, mask, 0.0).to(tl.float32)
        y = (x - mean[None, :]) * inverse[None, :]
        if relu:
            y = tl.where(y < 0, 0.0, y)
        tl.store(target + (pixel * channels + slot * c_in)[:, None] + c[None, :], y.to(target.dtype.element_ty), mask)


@triton.jit
def term(
    source, state, masks, reads, edges, statistics, slot, pixel, mask, pixels, normed, from_channels, state_channels,
    channels,
    c_in: tl.constexpr, block: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """Return the term of a slot for a tile of pixels, before it is weighted.

    This is the normalised input of a norm or, for a skip, the state, with zeros where `masks` drops an element.
    """
    c = tl.arange(0, block)
    source_block = tl.load(reads + slot)
    if slot < normed:
        offset = (pixel * from_channels + source_block * c_in)[:, None] + c[None, :]
        x = tl.load(source + offset, mask, 0.0).to(tl.float32)
        own = slot * c_in + c
        mean, inverse = tl.load(statistics + own, c < c_in, 0.0), tl.load(statistics + channels + own, c < c_in, 0.0)
        x = (x - mean[None, :]) * inverse[None, :]
    else:
        offset = (pixel * state_channels + source_block * c_in)[:, None] + c[None, :]
        x = tl.load(state + offset, mask, 0.0).to(tl.float32)
        if masked:
            edge = tl.load(edges + slot - normed)
            x = tl.where(tl.load(masks + ((edge * pixels + pixel) * c_in)[:, None] + c[None, :], mask, 0) != 0, x, 0.0)
    return x


@triton.jit(do_not_specialize=["pixels", "steps", "normed"])
def _reduce(
    gradient, source, state, masks, reads, edges, into, statistics, sums, pixels, steps, normed,
    to_channels, from_channels, state_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, masked: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """Sum, over a part of the pixels, the gradient of a slot and the product of this gradient and the slot's term."""
    part, slot = tl.program_id(0), tl.program_id(1)
    node = tl.load(into + slot)
    c = tl.arange(0, block)
    has_channel = c < c_in
    sum_g = tl.zeros((tile, block), tl.float32)
    sum_gx = tl.zeros((tile, block), tl.float32)
    for step in range(steps):
        pixel = (part * steps + step) * tile + tl.arange(0, tile)
        mask = (pixel < pixels)[:, None] & has_channel[None, :]
        pixel = pixel.to(tl.int64)
        g = tl.load(gradient + (pixel * to_channels + node * c_in)[:, None] + c[None, :], mask, 0.0).to(tl.float32)
        x = term(source, state, masks, reads, edges, statistics, slot, pixel, mask, pixels, normed, from_channels,
                 state_channels, channels, c_in, block, masked)  # fmt: skip
        if relu:
            g = tl.where(x > 0, g, 0.0)
        sum_g += g
        sum_gx += g * x
    offset = (part * 2 * tl.num_programs(1) + slot) * c_in + c
    tl.store(sums + offset, tl.sum(sum_g, 0), has_channel)
    tl.store(sums + offset + tl.num_programs(1) * c_in, tl.sum(sum_gx, 0), has_channel)


@triton.jit(do_not_specialize=["pixels", "readers"])
def _input_gradient(
    gradient, source, target, scale, readers_table, into, statistics, sum_g, sum_gx, pixels, readers,
    to_channels, from_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, has_scale: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """Compute the gradient for a tile of a block from all slots that read the block."""
    source_block = tl.program_id(1)
    pixel = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.arange(0, block)
    has_channel = c < c_in
    mask = (pixel < pixels)[:, None] & has_channel[None, :]
    pixel = pixel.to(tl.int64)
    offset = (pixel * from_channels + source_block * c_in)[:, None] + c[None, :]
    x = tl.load(source + offset, mask, 0.0).to(tl.float32)
    total = tl.zeros((tile, block), tl.float32)
    for reader in range(readers):
        slot = tl.load(readers_table + source_block * readers + reader)
        if slot >= 0:
            own = slot * c_in + c
            inverse = tl.load(statistics + channels + own, has_channel, 0.0)
            normalised = (x - tl.load(statistics + own, has_channel, 0.0)[None, :]) * inverse[None, :]
            node = tl.load(into + slot)
            g = tl.load(gradient + (pixel * to_channels + node * c_in)[:, None] + c[None, :], mask, 0.0).to(tl.float32)
            if relu:
                g = tl.where(normalised > 0, g, 0.0)
            mean_g = tl.load(sum_g + own, has_channel, 0.0) / pixels
            mean_gx = tl.load(sum_gx + own, has_channel, 0.0) / pixels
            if has_scale:
                inverse *= tl.load(scale + own, has_channel, 0.0).to(tl.float32)
            total += inverse[None, :] * (g - mean_g[None, :] - normalised * mean_gx[None, :])
    tl.store(target + offset, total.to(target.dtype.element_ty), mask)


def plan(pixels: int, groups: int, width: int, most: int) -> tuple[int, int, int, int]:
    """Return the numbers of channels per tile, pixels per tile, tiles per program, and programs per group (at most `most`)."""
    block = block_of(width)
    tile = max(16, TILE_ELEMENTS // block)
    tiles = triton.cdiv(pixels, tile)
    steps = triton.cdiv(tiles, min(most, tiles, max(1, 2 * PROGRAMS // groups)))
    return block, tile, steps, triton.cdiv(tiles, steps)


def moments(x: Tensor, blocks: int) -> tuple[Tensor, tuple[int, int, int]]:
    """Return the sums that `_moments` computes for `x` (n, blocks*C, h, w), as (parts, 2, blocks*C), and three sizes.

    The sizes are the number of channels per block, the number of channels per tile, and the number of pixels.
    """
    pixels, width = x.numel() // x.shape[1], x.shape[1] // blocks
    block, tile, steps, parts = plan(pixels, blocks, width, PARTS)
    sums = torch.empty((parts, 2, x.shape[1]), dtype=torch.float32, device=x.device)
    _moments[parts, blocks](x, sums, pixels, steps, x.shape[1], width, block, tile)
    return sums, (width, block, pixels)


def forward(
    x: Tensor, block_map: BlockMap, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float, relu: bool
) -> tuple[Tensor, Tensor]:
    """Normalise `x` (n, blocks*C, h, w) for every slot, then apply a ReLU if `relu`.

    Updates `running_mean` and `running_var` (slots*C,) in place. Returns the result (n, slots*C, h, w) and the
    statistics (2, slots*C): mean and inverse standard deviation.
    """
    slots = len(block_map.sources)
    sums, (width, block, pixels) = moments(x, block_map.blocks)
    channels = slots * width
    result = torch.empty((len(x), channels, *x.shape[2:]), dtype=x.dtype, device=x.device,
                         memory_format=torch.channels_last)  # fmt: skip
    statistics = torch.empty((2, channels), dtype=torch.float32, device=x.device)
    _, tile, steps, chunks = plan(pixels, slots, width, pixels)
    _normalise[chunks, slots](
        x, result, index_table(block_map.sources, x.device), sums, statistics, running_mean, running_var, pixels, steps,
        len(sums), x.shape[1], channels, momentum, eps, width, block, tile, PARTS, relu,
    )  # fmt: skip
    return result, statistics


def backward(gradient: Tensor, x: Tensor, block_map: BlockMap, statistics: Tensor, relu: bool) -> Tensor:
    """Return the gradient for `x` (n, blocks*C, h, w) of `forward` from the gradient for its result (n, slots*C, h, w).

    `statistics` (2, slots*C) are those that `forward` returns.
    """
    slots = len(block_map.sources)
    own = index_table(tuple(range(slots)), x.device)
    reads = index_table(block_map.sources, x.device)
    sums = reduced(gradient, x, x, None, reads, own, own, statistics, slots, slots, relu)
    return input_gradient(gradient, x, block_map, own, x, statistics, sums, has_scale=False, relu=relu)


def reduced(
    gradient: Tensor, x: Tensor, state: Tensor, masks: Tensor | None, reads: Tensor, edges: Tensor, into: Tensor,
    statistics: Tensor, normed: int, slots: int, relu: bool,
) -> Tensor:  # fmt: skip
    """Return the sums that `_reduce` computes, over all pixels, (2, slots*C).

    `gradient` is (n, nodes*C, h, w), `x` (n, blocks*C, h, w), `state` (n, states*C, h, w), `masks` (edges, n, h, w, C), and
    `statistics` (2 or 3, normed*C). For each slot, `reads` (slots,) holds its block and `into` (slots,) its node; `edges`
    (skips,) holds the index of each skip's mask.
    """
    width = statistics.shape[1] // normed
    pixels = x.numel() // x.shape[1]
    block, tile, steps, parts = plan(pixels, slots, width, PARTS)
    sums = torch.empty((parts, 2, slots * width), dtype=torch.float32, device=x.device)
    _reduce[parts, slots](
        gradient, x, state, as_bytes(masks, x), reads, edges, into, statistics, sums, pixels, steps, normed,
        gradient.shape[1], x.shape[1], state.shape[1], statistics.shape[1], width, block, tile, masks is not None, relu,
    )  # fmt: skip
    return sums.sum(0)


def input_gradient(
    gradient: Tensor, x: Tensor, block_map: BlockMap, into: Tensor, scale: Tensor, statistics: Tensor, sums: Tensor,
    *, has_scale: bool, relu: bool,
) -> Tensor:  # fmt: skip
    """Return the gradient for `x` (n, blocks*C, h, w), given `sums` (2, slots*C) from `reduced`.

    `gradient` is (n, nodes*C, h, w), `into` (slots,), and `statistics` (2 or 3, slots*C). `scale` (slots*C,) is read only if
    `has_scale`.
    """
    readers, readers_table = readers_of(block_map)
    width, pixels = x.shape[1] // block_map.blocks, x.numel() // x.shape[1]
    block = block_of(width)
    tile = max(16, TILE_ELEMENTS // block)
    to_x = torch.empty_like(x, memory_format=torch.channels_last)
    _input_gradient[triton.cdiv(pixels, tile), block_map.blocks](
        gradient, x, to_x, scale, index_table(readers_table, x.device), into, statistics, *sums, pixels, readers,
        gradient.shape[1], x.shape[1], statistics.shape[1], width, block, tile, has_scale, relu,
    )  # fmt: skip
    return to_x


def as_bytes(masks: Tensor | None, other: Tensor) -> Tensor:
    """Return boolean `masks` (edges, n, h, w, C) as bytes, which kernels can read.

    Without masks, return `other`, whose shape does not matter: a kernel needs a pointer even if it never reads from it.
    """
    return other if masks is None else masks.view(torch.uint8)

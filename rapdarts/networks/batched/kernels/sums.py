"""Weighted sums of terms at the nodes of a cell, on a GPU.

The terms of the edges that leave the same states (`layout.Terms`) are normalised, weighted and added as they are read;
they are never written to memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapdarts.networks.batched.kernels.launch import TILE_ELEMENTS, block_of, index_table, readers_of
from rapdarts.networks.batched.kernels.norms import (
    PARTS,
    as_bytes,
    input_gradient,
    mean_and_variance,
    moments,
    plan,
    reduced,
    term,
)
from rapdarts.networks.batched.layout import Terms


@triton.jit(do_not_specialize=["pixels", "parts"])
def _store_statistics(
    source, reads, sums, statistics, pixels, parts, from_channels, channels, eps,
    c_in: tl.constexpr, block: tl.constexpr, most_parts: tl.constexpr,
):  # fmt: skip
    """Store the mean, inverse standard deviation and unbiased variance of a slot."""
    slot = tl.program_id(0)
    source_block = tl.load(reads + slot)
    mean, variance = mean_and_variance(
        source, sums, source_block, pixels, parts, from_channels, c_in, block, most_parts
    )
    c = tl.arange(0, block)
    own = slot * c_in + c
    tl.store(statistics + own, mean, c < c_in)
    tl.store(statistics + channels + own, 1 / tl.sqrt(variance + eps), c < c_in)
    tl.store(statistics + 2 * channels + own, variance * (pixels / (pixels - 1)), c < c_in)


@triton.jit(do_not_specialize=["pixels", "steps", "normed"])
def _sum_terms(
    source, state, masks, pending, first, others, scale, reads, edges, order, starts, statistics, pixels, steps, normed,
    from_channels, state_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, masked: tl.constexpr, has_pending: tl.constexpr,
):  # fmt: skip
    """Compute some tiles of a node: add the weighted terms of all slots that enter it to its pending sum, in a fixed order."""
    chunk, node = tl.program_id(0), tl.program_id(1)
    nodes = tl.num_programs(1)
    c = tl.arange(0, block)
    has_channel = c < c_in
    start, end = tl.load(starts + node), tl.load(starts + node + 1)
    for step in range(steps):
        pixel = (chunk * steps + step) * tile + tl.arange(0, tile)
        mask = (pixel < pixels)[:, None] & has_channel[None, :]
        pixel = pixel.to(tl.int64)
        if has_pending:
            total = tl.load(pending + ((pixel * nodes + node) * c_in)[:, None] + c[None, :], mask, 0.0).to(tl.float32)
        else:
            total = tl.zeros((tile, block), tl.float32)
        for entry in range(start, end):
            slot = tl.load(order + entry)
            x = term(source, state, masks, reads, edges, statistics, slot, pixel, mask, pixels, normed, from_channels,
                     state_channels, channels, c_in, block, masked)  # fmt: skip
            total += x * tl.load(scale + slot * c_in + c, has_channel, 0.0).to(tl.float32)[None, :]
        y = total.to(first.dtype.element_ty)
        if node == 0:
            tl.store(first + (pixel * c_in)[:, None] + c[None, :], y, mask)
        else:
            tl.store(others + ((pixel * (nodes - 1) + node - 1) * c_in)[:, None] + c[None, :], y, mask)


@triton.jit(do_not_specialize=["pixels", "readers"])
def _skip_gradient(
    gradient, target, scale, masks, edges, readers_table, into, pixels, readers, to_channels, state_channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """Compute the gradient for a tile of a state from all skips that read it; `scale` and `into` cover the skips only."""
    source_block = tl.program_id(1)
    pixel = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.arange(0, block)
    has_channel = c < c_in
    mask = (pixel < pixels)[:, None] & has_channel[None, :]
    pixel = pixel.to(tl.int64)
    total = tl.zeros((tile, block), tl.float32)
    for reader in range(readers):
        skip = tl.load(readers_table + source_block * readers + reader)
        if skip >= 0:
            node = tl.load(into + skip)
            g = tl.load(gradient + (pixel * to_channels + node * c_in)[:, None] + c[None, :], mask, 0.0).to(tl.float32)
            if masked:
                edge = tl.load(edges + skip)
                is_kept = tl.load(masks + ((edge * pixels + pixel) * c_in)[:, None] + c[None, :], mask, 0) != 0
                g = tl.where(is_kept, g, 0.0)
            total += g * tl.load(scale + skip * c_in + c, has_channel, 0.0).to(tl.float32)[None, :]
    offset = (pixel * state_channels + source_block * c_in)[:, None] + c[None, :]
    tl.store(target + offset, total.to(target.dtype.element_ty), mask)


def weighted_sum(
    terms: Terms, buffer: Tensor, state: Tensor, masks: Tensor | None, scale: Tensor, pending: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Multiply the terms by `scale` (slots*C,) and add them to the nodes that they enter.

    The terms are batch norms of `buffer` (n, blocks*C, h, w) and skips of `state` (n, states*C, h, w). The boolean `masks`
    (edges, n, h, w, C) are True where skips keep an element, and `pending` (n, nodes*C, h, w) holds the partial sums of the
    nodes. Returns the first node (n, C, h, w), the others (n, (nodes - 1)*C, h, w), and the statistics of the norms
    (3, norms*C): mean, inverse standard deviation and unbiased variance.
    """
    n, _, *size = buffer.shape
    sums, (width, block, pixels) = moments(buffer, terms.norms.blocks)
    normed, device = len(terms.norms.sources), buffer.device
    statistics = torch.empty((3, normed * width), dtype=torch.float32, device=device)
    reads = index_table(terms.reads, device)
    _store_statistics[(normed,)](
        buffer, reads, sums, statistics, pixels, len(sums), buffer.shape[1], statistics.shape[1], terms.eps, width, block,
        PARTS,
    )  # fmt: skip
    first, others = (
        torch.empty((n, count * width, *size), dtype=buffer.dtype, device=device, memory_format=torch.channels_last)
        for count in (1, terms.nodes - 1)
    )
    order = sorted(range(len(terms.into)), key=terms.into.__getitem__)
    starts = [sum(node < start for node in terms.into) for start in range(terms.nodes + 1)]
    _, tile, steps, chunks = plan(pixels, terms.nodes, width, pixels)
    _sum_terms[chunks, terms.nodes](
        buffer, state, as_bytes(masks, reads), buffer if pending is None else pending, first, others, scale, reads,
        index_table(terms.masks, device), index_table(tuple(order), device), index_table(tuple(starts), device), statistics, pixels, steps,
        normed, buffer.shape[1], state.shape[1], statistics.shape[1], width, block, tile, masks is not None,
        pending is not None,
    )  # fmt: skip
    return first, others, statistics


def weighted_sum_backward(
    terms: Terms,
    gradient: Tensor,
    buffer: Tensor,
    state: Tensor | None,
    masks: Tensor | None,
    scale: Tensor,
    statistics: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients for the `buffer` and `scale` of `weighted_sum`.

    `gradient` (n, nodes*C, h, w) is the gradient for all nodes. The skips' part of the gradient for the scale needs `state`;
    without `state`, only the norms' part is returned.
    """
    normed, device = len(terms.norms.sources), buffer.device
    into = index_table(terms.into, device)
    sums = reduced(
        gradient, buffer, buffer if state is None else state, masks, index_table(terms.reads, device),
        index_table(terms.masks, device), into, statistics, normed, normed if state is None else len(terms.into), False,
    )  # fmt: skip
    to_buffer = input_gradient(gradient, buffer, terms.norms, into, scale, statistics, sums, has_scale=True, relu=False)
    return to_buffer, sums[1]


def skips_backward(terms: Terms, gradient: Tensor, masks: Tensor | None, scale: Tensor) -> Tensor:
    """Return the gradient for `state` (n, states*C, h, w) in `weighted_sum` from the gradient for all nodes (n, nodes*C, h, w)."""
    normed, width, device = len(terms.norms.sources), gradient.shape[1] // terms.nodes, gradient.device
    n, _, *size = gradient.shape
    pixels, block = gradient.numel() // gradient.shape[1], block_of(width)
    tile = max(16, TILE_ELEMENTS // block)
    to_state = torch.empty((n, terms.skips.blocks * width, *size), dtype=gradient.dtype, device=device,
                           memory_format=torch.channels_last)  # fmt: skip
    readers, readers_table = readers_of(terms.skips)
    _skip_gradient[triton.cdiv(pixels, tile), terms.skips.blocks](
        gradient, to_state, scale[normed * width :], as_bytes(masks, gradient), index_table(terms.masks, device),
        index_table(readers_table, device), index_table(terms.into[normed:], device), pixels, readers, gradient.shape[1],
        to_state.shape[1], width, block, tile, masks is not None,
    )  # fmt: skip
    return to_state

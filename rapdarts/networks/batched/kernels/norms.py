"""Batch norms of many slots on a GPU: statistics once for every block, whatever number of slots read it, and no copy of it.

Those within a chain have a ReLU behind them. Those at the ends of a wave's chains are weighed and summed into its nodes
as they are computed: a term is never written. Sums over pixels are taken in parts and added up in a fixed order, so
that a step gives the same bits again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapdarts.networks.batched.kernels.places import ELEMENTS, PROGRAMS, block_of, readers_of, table
from rapdarts.networks.batched.layout import Reading, Terms

PARTS = 64
"""Most parts in which the pixels are summed."""


@triton.jit(do_not_specialize=["pixels", "steps"])
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


@triton.jit
def _statistics(
    source, sums, at_block, pixels, parts, channels, c_in: tl.constexpr, block: tl.constexpr, most_parts: tl.constexpr
):  # fmt: skip
    """Mean and variance of a block's channels, from their sums over parts of the pixels."""
    c, p = tl.arange(0, block), tl.arange(0, most_parts)
    known = c < c_in
    place = (p * 2 * channels + at_block * c_in)[:, None] + c[None, :]
    asked = (p < parts)[:, None] & known[None, :]
    once = tl.sum(tl.load(sums + place, asked, 0.0), 0) / pixels
    twice = tl.sum(tl.load(sums + place + channels, asked, 0.0), 0) / pixels
    spread = twice - once * once
    spread = tl.where(spread < 0, 0.0, spread)  # tl.maximum would make a number of a NaN
    return tl.load(source + at_block * c_in + c, known, 0.0).to(tl.float32) + once, spread


@triton.jit(do_not_specialize=["pixels", "steps", "parts"])
def _normalise(
    source, target, reads, sums, kept, mean, var, pixels, steps, parts, from_channels, channels, momentum, eps,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, most_parts: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """(x - mean) / deviation of some tiles of a slot; the first program keeps the statistics."""
    share, slot = tl.program_id(0), tl.program_id(1)
    at_block = tl.load(reads + slot)
    middle, spread = _statistics(source, sums, at_block, pixels, parts, from_channels, c_in, block, most_parts)
    inverse = 1 / tl.sqrt(spread + eps)
    c = tl.arange(0, block)
    known = c < c_in
    own = slot * c_in + c
    if share == 0:
        tl.store(kept + own, middle, known)
        tl.store(kept + channels + own, inverse, known)
        old = tl.load(mean + own, known, 0.0)
        tl.store(mean + own, old + momentum * (middle - old), known)
        old = tl.load(var + own, known, 0.0)
        tl.store(var + own, old + momentum * (spread * (pixels / (pixels - 1)) - old), known)
    for step in range(steps):
        at = (share * steps + step) * tile + tl.arange(0, tile)
        inside = (at < pixels)[:, None] & known[None, :]
        at = at.to(tl.int64)
        x = tl.load(source + (at * from_channels + at_block * c_in)[:, None] + c[None, :], inside, 0.0).to(tl.float32)
        y = (x - middle[None, :]) * inverse[None, :]
        if relu:
            y = tl.where(y < 0, 0.0, y)
        tl.store(target + (at * channels + slot * c_in)[:, None] + c[None, :], y.to(target.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["pixels", "parts"])
def _settle(
    source, reads, sums, kept, pixels, parts, from_channels, channels, eps,
    c_in: tl.constexpr, block: tl.constexpr, most_parts: tl.constexpr,
):  # fmt: skip
    """Mean, inverse deviation and the variance as it is tracked, of one slot."""
    slot = tl.program_id(0)
    at_block = tl.load(reads + slot)
    middle, spread = _statistics(source, sums, at_block, pixels, parts, from_channels, c_in, block, most_parts)
    c = tl.arange(0, block)
    own = slot * c_in + c
    tl.store(kept + own, middle, c < c_in)
    tl.store(kept + channels + own, 1 / tl.sqrt(spread + eps), c < c_in)
    tl.store(kept + 2 * channels + own, spread * (pixels / (pixels - 1)), c < c_in)


@triton.jit
def _term(
    source, state, masks, reads, edges, kept, slot, at, inside, pixels, normed, from_channels, state_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """What a slot weighs, at a tile of pixels: normalised values, or of a skip those of the state, where the mask keeps them."""
    c = tl.arange(0, block)
    at_block = tl.load(reads + slot)
    if slot < normed:
        x = tl.load(source + (at * from_channels + at_block * c_in)[:, None] + c[None, :], inside, 0.0).to(tl.float32)
        own = slot * c_in + c
        middle, inverse = tl.load(kept + own, c < c_in, 0.0), tl.load(kept + channels + own, c < c_in, 0.0)
        x = (x - middle[None, :]) * inverse[None, :]
    else:
        x = tl.load(state + (at * state_channels + at_block * c_in)[:, None] + c[None, :], inside, 0.0).to(tl.float32)
        if masked:
            edge = tl.load(edges + slot - normed)
            x = tl.where(tl.load(masks + ((edge * pixels + at) * c_in)[:, None] + c[None, :], inside, 0) != 0, x, 0.0)
    return x


@triton.jit(do_not_specialize=["pixels", "steps", "normed"])
def _add(
    source, state, masks, pending, first, others, scale, reads, edges, order, starts, kept, pixels, steps, normed,
    from_channels, state_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, masked: tl.constexpr, continues: tl.constexpr,
):  # fmt: skip
    """Some tiles of a node: the terms of all slots that enter it, weighed, summed in their order to what it was before."""
    share, node = tl.program_id(0), tl.program_id(1)
    nodes = tl.num_programs(1)
    c = tl.arange(0, block)
    known = c < c_in
    start, end = tl.load(starts + node), tl.load(starts + node + 1)
    for step in range(steps):
        at = (share * steps + step) * tile + tl.arange(0, tile)
        inside = (at < pixels)[:, None] & known[None, :]
        at = at.to(tl.int64)
        if continues:
            total = tl.load(pending + ((at * nodes + node) * c_in)[:, None] + c[None, :], inside, 0.0).to(tl.float32)
        else:
            total = tl.zeros((tile, block), tl.float32)
        for entry in range(start, end):
            slot = tl.load(order + entry)
            x = _term(source, state, masks, reads, edges, kept, slot, at, inside, pixels, normed, from_channels,
                      state_channels, channels, c_in, block, masked)  # fmt: skip
            total += x * tl.load(scale + slot * c_in + c, known, 0.0).to(tl.float32)[None, :]
        y = total.to(first.dtype.element_ty)
        if node == 0:
            tl.store(first + (at * c_in)[:, None] + c[None, :], y, inside)
        else:
            tl.store(others + ((at * (nodes - 1) + node - 1) * c_in)[:, None] + c[None, :], y, inside)


@triton.jit(do_not_specialize=["pixels", "steps", "normed"])
def _reduce(
    gradient, source, state, masks, reads, edges, into, kept, sums, pixels, steps, normed,
    to_channels, from_channels, state_channels, channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, masked: tl.constexpr, relu: tl.constexpr,
):  # fmt: skip
    """Sums over a part of the pixels, of the gradient for a slot and of that times what it weighs."""
    part, slot = tl.program_id(0), tl.program_id(1)
    node = tl.load(into + slot)
    c = tl.arange(0, block)
    known = c < c_in
    once = tl.zeros((tile, block), tl.float32)
    twice = tl.zeros((tile, block), tl.float32)
    for step in range(steps):
        at = (part * steps + step) * tile + tl.arange(0, tile)
        inside = (at < pixels)[:, None] & known[None, :]
        at = at.to(tl.int64)
        g = tl.load(gradient + (at * to_channels + node * c_in)[:, None] + c[None, :], inside, 0.0).to(tl.float32)
        x = _term(source, state, masks, reads, edges, kept, slot, at, inside, pixels, normed, from_channels,
                  state_channels, channels, c_in, block, masked)  # fmt: skip
        if relu:
            g = tl.where(x > 0, g, 0.0)
        once += g
        twice += g * x
    place = (part * 2 * tl.num_programs(1) + slot) * c_in + c
    tl.store(sums + place, tl.sum(once, 0), known)
    tl.store(sums + place + tl.num_programs(1) * c_in, tl.sum(twice, 0), known)


@triton.jit(do_not_specialize=["pixels", "readers"])
def _return(
    gradient, source, target, scale, readers_table, into, kept, of_gradient, of_product, pixels, readers,
    to_channels, from_channels, channels,
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
            node = tl.load(into + slot)
            g = tl.load(gradient + (at * to_channels + node * c_in)[:, None] + c[None, :], asked, 0.0).to(tl.float32)
            if relu:
                g = tl.where(standing > 0, g, 0.0)
            once = tl.load(of_gradient + own, known, 0.0) / pixels
            twice = tl.load(of_product + own, known, 0.0) / pixels
            if weighs:
                inverse *= tl.load(scale + own, known, 0.0).to(tl.float32)
            total += inverse[None, :] * (g - once[None, :] - standing * twice[None, :])
    tl.store(target + here, total.to(target.dtype.element_ty), asked)


@triton.jit(do_not_specialize=["pixels", "readers"])
def _return_skips(
    gradient, target, scale, masks, edges, readers_table, into, pixels, readers, to_channels, state_channels,
    c_in: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """The gradient for a tile of a state, from all skips that read it; `scale` and `into` are theirs."""
    at_block = tl.program_id(1)
    at = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.arange(0, block)
    known = c < c_in
    inside = (at < pixels)[:, None] & known[None, :]
    at = at.to(tl.int64)
    total = tl.zeros((tile, block), tl.float32)
    for reader in range(readers):
        skip = tl.load(readers_table + at_block * readers + reader)
        if skip >= 0:
            node = tl.load(into + skip)
            g = tl.load(gradient + (at * to_channels + node * c_in)[:, None] + c[None, :], inside, 0.0).to(tl.float32)
            if masked:
                edge = tl.load(edges + skip)
                g = tl.where(
                    tl.load(masks + ((edge * pixels + at) * c_in)[:, None] + c[None, :], inside, 0) != 0, g, 0.0
                )
            total += g * tl.load(scale + skip * c_in + c, known, 0.0).to(tl.float32)[None, :]
    here = (at * state_channels + at_block * c_in)[:, None] + c[None, :]
    tl.store(target + here, total.to(target.dtype.element_ty), inside)


def _plan(pixels: int, groups: int, width: int, most: int) -> tuple[int, int, int, int]:
    """Channels and pixels of a tile, tiles of a program, and programs for each of the groups."""
    block = block_of(width)
    tile = max(16, ELEMENTS // block)
    tiles = triton.cdiv(pixels, tile)
    steps = triton.cdiv(tiles, min(most, tiles, max(1, 2 * PROGRAMS // groups)))
    return block, tile, steps, triton.cdiv(tiles, steps)


def _sums(x: Tensor, blocks: int) -> tuple[Tensor, tuple[int, int, int]]:
    """What `_moments` gives, (parts, 2, blocks*C), and channels, their room in a tile, and pixels."""
    pixels, width = x.numel() // x.shape[1], x.shape[1] // blocks
    block, tile, steps, parts = _plan(pixels, blocks, width, PARTS)
    sums = torch.empty((parts, 2, x.shape[1]), dtype=torch.float32, device=x.device)
    _moments[parts, blocks](x, sums, pixels, steps, x.shape[1], width, block, tile)
    return sums, (width, block, pixels)


def forward(
    x: Tensor, reading: Reading, mean: Tensor, var: Tensor, momentum: float, eps: float, relu: bool
) -> tuple[Tensor, Tensor]:
    """Normalises `x` (n, blocks*C, h, w) for every slot, with a ReLU behind it if asked.

    Updates the running `mean` and `var` (slots*C,) in place; gives (n, slots*C, h, w), and mean and inverse deviation (2, slots*C).
    """
    slots = len(reading.sources)
    sums, (width, block, pixels) = _sums(x, reading.blocks)
    channels = slots * width
    result = torch.empty((len(x), channels, *x.shape[2:]), dtype=x.dtype, device=x.device,
                         memory_format=torch.channels_last)  # fmt: skip
    kept = torch.empty((2, channels), dtype=torch.float32, device=x.device)
    _, tile, steps, shares = _plan(pixels, slots, width, pixels)
    _normalise[shares, slots](
        x, result, table(reading.sources, x.device), sums, kept, mean, var, pixels, steps, len(sums), x.shape[1],
        channels, momentum, eps, width, block, tile, PARTS, relu,
    )  # fmt: skip
    return result, kept


def backward(gradient: Tensor, x: Tensor, reading: Reading, kept: Tensor, relu: bool) -> Tensor:
    """The gradient for `x`, given that for the result, of `forward`."""
    slots = len(reading.sources)
    own = table(tuple(range(slots)), x.device)
    total = _reduced(gradient, x, x, None, table(reading.sources, x.device), own, own, kept, slots, slots, relu)
    return _returned(gradient, x, reading, own, x, kept, total, weighs=False, relu=relu)


def weighed_sum(
    terms: Terms, room: Tensor, state: Tensor, masks: Tensor | None, scale: Tensor, pending: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Terms times `scale` (slots*C,), added to the nodes that they enter: what norms make of `room` (n, blocks*C, h, w), and skips.

    `state` is (n, states*C, h, w), `masks` (edges, n, h, w, C) of bool says what skips keep, and `pending` (n, nodes*C, h, w)
    is what the nodes are before. Gives the first node (n, C, h, w), the others side by side, and the statistics of every
    norm (3, slots*C): mean, inverse deviation, and the variance as it is tracked.
    """
    n, _, *size = room.shape
    sums, (width, block, pixels) = _sums(room, terms.norms.blocks)
    normed, device = len(terms.norms.sources), room.device
    kept = torch.empty((3, normed * width), dtype=torch.float32, device=device)
    reads = table(terms.reads, device)
    _settle[(normed,)](
        room, reads, sums, kept, pixels, len(sums), room.shape[1], kept.shape[1], terms.eps, width, block, PARTS
    )
    first, others = (
        torch.empty((n, count * width, *size), dtype=room.dtype, device=device, memory_format=torch.channels_last)
        for count in (1, terms.nodes - 1)
    )
    order = sorted(range(len(terms.into)), key=terms.into.__getitem__)
    starts = [sum(node < start for node in terms.into) for start in range(terms.nodes + 1)]
    _, tile, steps, shares = _plan(pixels, terms.nodes, width, pixels)
    _add[shares, terms.nodes](
        room, state, _bytes(masks, reads), room if pending is None else pending, first, others, scale, reads,
        table(terms.masks, device), table(tuple(order), device), table(tuple(starts), device), kept, pixels, steps,
        normed, room.shape[1], state.shape[1], kept.shape[1], width, block, tile, masks is not None, pending is not None,
    )  # fmt: skip
    return first, others, kept


def weighed_sum_backward(
    terms: Terms,
    gradient: Tensor,
    room: Tensor,
    state: Tensor | None,
    masks: Tensor | None,
    scale: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """The gradients for room and scale of `weighed_sum`, given that for all nodes side by side (n, nodes*C, h, w).

    That for the skips' scale takes the `state`; without it, it ends before them.
    """
    normed, device = len(terms.norms.sources), room.device
    into = table(terms.into, device)
    total = _reduced(
        gradient, room, room if state is None else state, masks, table(terms.reads, device), table(terms.masks, device),
        into, kept, normed, normed if state is None else len(terms.into), False,
    )  # fmt: skip
    return _returned(gradient, room, terms.norms, into, scale, kept, total, weighs=True, relu=False), total[1]


def skips_backward(terms: Terms, gradient: Tensor, masks: Tensor | None, scale: Tensor) -> Tensor:
    """The gradient for the state (n, states*C, h, w) of `weighed_sum`, whose size is that of the result."""
    normed, width, device = len(terms.norms.sources), gradient.shape[1] // terms.nodes, gradient.device
    n, _, *size = gradient.shape
    pixels, block = gradient.numel() // gradient.shape[1], block_of(width)
    tile = max(16, ELEMENTS // block)
    to_state = torch.empty((n, terms.skips.blocks * width, *size), dtype=gradient.dtype, device=device,
                           memory_format=torch.channels_last)  # fmt: skip
    readers, readers_table = readers_of(terms.skips)
    _return_skips[triton.cdiv(pixels, tile), terms.skips.blocks](
        gradient, to_state, scale[normed * width :], _bytes(masks, gradient), table(terms.masks, device),
        table(readers_table, device), table(terms.into[normed:], device), pixels, readers, gradient.shape[1],
        to_state.shape[1], width, block, tile, masks is not None,
    )  # fmt: skip
    return to_state


def _reduced(
    gradient: Tensor, x: Tensor, state: Tensor, masks: Tensor | None, reads: Tensor, edges: Tensor, into: Tensor,
    kept: Tensor, normed: int, slots: int, relu: bool,
) -> Tensor:  # fmt: skip
    """What `_reduce` gives, of all pixels: (2, slots*C)."""
    width = kept.shape[1] // normed
    pixels = x.numel() // x.shape[1]
    block, tile, steps, parts = _plan(pixels, slots, width, PARTS)
    sums = torch.empty((parts, 2, slots * width), dtype=torch.float32, device=x.device)
    _reduce[parts, slots](
        gradient, x, state, _bytes(masks, x), reads, edges, into, kept, sums, pixels, steps, normed, gradient.shape[1],
        x.shape[1], state.shape[1], kept.shape[1], width, block, tile, masks is not None, relu,
    )  # fmt: skip
    return sums.sum(0)


def _returned(
    gradient: Tensor, x: Tensor, reading: Reading, into: Tensor, scale: Tensor, kept: Tensor, total: Tensor,
    *, weighs: bool, relu: bool,
) -> Tensor:  # fmt: skip
    """The gradient for `x` by `_return`."""
    readers, readers_table = readers_of(reading)
    width, pixels = x.shape[1] // reading.blocks, x.numel() // x.shape[1]
    block = block_of(width)
    tile = max(16, ELEMENTS // block)
    to_x = torch.empty_like(x, memory_format=torch.channels_last)
    _return[triton.cdiv(pixels, tile), reading.blocks](
        gradient, x, to_x, scale, table(readers_table, x.device), into, kept, *total, pixels, readers,
        gradient.shape[1], x.shape[1], kept.shape[1], width, block, tile, weighs, relu,
    )  # fmt: skip
    return to_x


def _bytes(masks: Tensor | None, other: Tensor) -> Tensor:
    """Masks as a kernel reads them; anything where there are none."""
    return other if masks is None else masks.view(torch.uint8)

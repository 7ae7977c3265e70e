"""Max and average pools on a GPU, channels last; gradients are gathered, not scattered, so that a step is bit-reproducible."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapdarts.networks.batched.kernels.launch import TILE_ELEMENTS, output_buffer, pitch

SIZES = ("pixels", "from_height", "from_width", "height", "width")


@triton.jit(do_not_specialize=SIZES)
def _pool(
    source, target, which, pixels, from_height, from_width, height, width, from_pitch, to_pitch, channels,
    size: tl.constexpr, stride: tl.constexpr, padding: tl.constexpr, maximum: tl.constexpr,
    block: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Compute a tile of pixels of the result; for a max pool, also store the position of the maximum in the window."""
    pixel = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.program_id(1) * block + tl.arange(0, block)
    in_range, has_channel = pixel < pixels, c < channels
    column, row, image = pixel % width, pixel // width % height, (pixel // (width * height)).to(tl.int64)
    best = tl.full((tile, block), float("-inf"), tl.float32)
    chosen = tl.zeros((tile, block), tl.int32)
    total, count = tl.zeros((tile, block), tl.float32), tl.zeros((tile,), tl.float32)
    for i in range(size):
        h = row * stride - padding + i
        for j in tl.static_range(size):
            w = column * stride - padding + j
            inside = in_range & (h >= 0) & (h < from_height) & (w >= 0) & (w < from_width)
            mask = inside[:, None] & has_channel[None, :]
            offset = ((image * from_height + h) * from_width + w) * from_pitch
            x = tl.load(source + offset[:, None] + c[None, :], mask, 0.0).to(tl.float32)
            if maximum:
                larger = mask & ((x > best) | (x != x))  # NaN propagates, as in torch
                best = tl.where(larger, x, best)
                chosen = tl.where(larger, i * size + j, chosen)
            else:
                total += x
                count += inside.to(tl.float32)
    target_offset = pixel.to(tl.int64)[:, None] * to_pitch + c[None, :]
    target_mask = in_range[:, None] & has_channel[None, :]
    if maximum:
        tl.store(which + pixel.to(tl.int64)[:, None] * channels + c[None, :], chosen.to(tl.int8), target_mask)
        tl.store(target + target_offset, best.to(target.dtype.element_ty), target_mask)
    else:
        tl.store(
            target + target_offset, (total / tl.maximum(count, 1.0)[:, None]).to(target.dtype.element_ty), target_mask
        )


@triton.jit(do_not_specialize=SIZES)
def _pool_backward(
    gradient, target, which, pixels, from_height, from_width, height, width, to_pitch, channels,
    size: tl.constexpr, stride: tl.constexpr, padding: tl.constexpr, maximum: tl.constexpr,
    block: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Compute the gradient for a tile of pixels of the image from all windows that contain them."""
    pixel = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.program_id(1) * block + tl.arange(0, block)
    in_range, has_channel = pixel < pixels, c < channels
    column, row = pixel % from_width, pixel // from_width % from_height
    image = (pixel // (from_width * from_height)).to(tl.int64)
    total = tl.zeros((tile, block), tl.float32)
    for i in range(size):
        h_scaled = row + padding - i
        h = h_scaled // stride
        in_rows = in_range & (h_scaled >= 0) & (h * stride == h_scaled) & (h < height)
        for j in tl.static_range(size):
            w_scaled = column + padding - j
            w = w_scaled // stride
            inside = in_rows & (w_scaled >= 0) & (w * stride == w_scaled) & (w < width)
            mask = inside[:, None] & has_channel[None, :]
            window = ((image * height + h) * width + w)[:, None]
            g = tl.load(gradient + window * to_pitch + c[None, :], mask, 0.0).to(tl.float32)
            if maximum:
                chosen = tl.load(which + window * channels + c[None, :], mask, -1)
                total += tl.where(chosen == i * size + j, g, 0.0)
            else:
                top, left = h * stride - padding, w * stride - padding
                tall = tl.minimum(top + size, from_height) - tl.maximum(top, 0)
                wide = tl.minimum(left + size, from_width) - tl.maximum(left, 0)
                total += g / tl.maximum(tall * wide, 1).to(tl.float32)[:, None]
    offset = pixel.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(target + offset, total.to(target.dtype.element_ty), in_range[:, None] & has_channel[None, :])


def forward(
    x: Tensor, size: int, stride: int, padding: int, maximum: bool, out: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Pool `x` (n, C, h, w), ignoring the padding; the result is written into `out` if given.

    For a max pool, also returns the position of the maximum in the window. Both are (n, C, h', w'). `x` must have a pitch (see
    `launch.pitch`).
    """
    n, channels, *given = x.shape
    height, width = ((side + 2 * padding - size) // stride + 1 for side in given)
    shape = (n, channels, height, width)
    result = output_buffer(out, shape, x.dtype, x.device)
    which = output_buffer(None, shape, torch.int8, x.device) if maximum else None
    grid, *blocks = _plan(n * height * width, channels)
    _pool[grid](x, result, result if which is None else which, n * height * width, *given, height, width,
                pitch(x), pitch(result), channels, size, stride, padding, maximum, *blocks)  # fmt: skip
    return result, which


def backward(gradient: Tensor, given: torch.Size, which: Tensor | None, size: int, stride: int, padding: int) -> Tensor:
    """Return the gradient for the image, of shape `given` (n, C, h, w), from the gradient for the result (n, C, h', w')."""
    n, channels, height, width = given
    result = torch.empty(given, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    grid, *blocks = _plan(n * height * width, channels)
    _pool_backward[grid](gradient, result, gradient if which is None else which, n * height * width, height, width,
                  *gradient.shape[2:], pitch(gradient), channels, size, stride, padding, which is not None, *blocks)  # fmt: skip
    return result


def _plan(pixels: int, channels: int) -> tuple[tuple[int, int], int, int]:
    """Return the grid, the number of channels per tile, and the number of pixels per tile."""
    block = min(64, triton.next_power_of_2(channels))
    tile = TILE_ELEMENTS // block
    return (triton.cdiv(pixels, tile), triton.cdiv(channels, block)), block, tile

"""Max and average pools on a GPU, channels last; gradients are gathered, so that a step gives the same bits again."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapdarts.networks.batched.kernels.places import ELEMENTS, pitch, taken

SIZES = ("pixels", "from_height", "from_width", "height", "width")


@triton.jit(do_not_specialize=SIZES)
def _pool(
    source, target, which, pixels, from_height, from_width, height, width, from_pitch, to_pitch, channels,
    size: tl.constexpr, stride: tl.constexpr, padding: tl.constexpr, maximum: tl.constexpr,
    block: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """A tile of pixels of the result; of a maximum, also which pixel of the window it is."""
    at = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.program_id(1) * block + tl.arange(0, block)
    here, known = at < pixels, c < channels
    column, row, image = at % width, at // width % height, (at // (width * height)).to(tl.int64)
    best = tl.full((tile, block), float("-inf"), tl.float32)
    chosen = tl.zeros((tile, block), tl.int32)
    total, count = tl.zeros((tile, block), tl.float32), tl.zeros((tile,), tl.float32)
    for i in range(size):
        h = row * stride - padding + i
        for j in tl.static_range(size):
            w = column * stride - padding + j
            inside = here & (h >= 0) & (h < from_height) & (w >= 0) & (w < from_width)
            asked = inside[:, None] & known[None, :]
            place = ((image * from_height + h) * from_width + w) * from_pitch
            x = tl.load(source + place[:, None] + c[None, :], asked, 0.0).to(tl.float32)
            if maximum:
                larger = asked & ((x > best) | (x != x))  # a NaN wins, as it does in torch
                best = tl.where(larger, x, best)
                chosen = tl.where(larger, i * size + j, chosen)
            else:
                total += x
                count += inside.to(tl.float32)
    target_at = at.to(tl.int64)[:, None] * to_pitch + c[None, :]
    asked_out = here[:, None] & known[None, :]
    if maximum:
        tl.store(which + at.to(tl.int64)[:, None] * channels + c[None, :], chosen.to(tl.int8), asked_out)
        tl.store(target + target_at, best.to(target.dtype.element_ty), asked_out)
    else:
        tl.store(target + target_at, (total / tl.maximum(count, 1.0)[:, None]).to(target.dtype.element_ty), asked_out)


@triton.jit(do_not_specialize=SIZES)
def _gather(
    gradient, target, which, pixels, from_height, from_width, height, width, to_pitch, channels,
    size: tl.constexpr, stride: tl.constexpr, padding: tl.constexpr, maximum: tl.constexpr,
    block: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """The gradient for a tile of pixels of the image, from all windows that they lie in."""
    at = tl.program_id(0) * tile + tl.arange(0, tile)
    c = tl.program_id(1) * block + tl.arange(0, block)
    here, known = at < pixels, c < channels
    column, row = at % from_width, at // from_width % from_height
    image = (at // (from_width * from_height)).to(tl.int64)
    total = tl.zeros((tile, block), tl.float32)
    for i in range(size):
        up = row + padding - i
        h = up // stride
        in_rows = here & (up >= 0) & (h * stride == up) & (h < height)
        for j in tl.static_range(size):
            along = column + padding - j
            w = along // stride
            inside = in_rows & (along >= 0) & (w * stride == along) & (w < width)
            asked = inside[:, None] & known[None, :]
            pixel = ((image * height + h) * width + w)[:, None]
            g = tl.load(gradient + pixel * to_pitch + c[None, :], asked, 0.0).to(tl.float32)
            if maximum:
                chosen = tl.load(which + pixel * channels + c[None, :], asked, -1)
                total += tl.where(chosen == i * size + j, g, 0.0)
            else:
                top, left = h * stride - padding, w * stride - padding
                tall = tl.minimum(top + size, from_height) - tl.maximum(top, 0)
                wide = tl.minimum(left + size, from_width) - tl.maximum(left, 0)
                total += g / tl.maximum(tall * wide, 1).to(tl.float32)[:, None]
    place = at.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(target + place, total.to(target.dtype.element_ty), here[:, None] & known[None, :])


def forward(
    x: Tensor, size: int, stride: int, padding: int, maximum: bool, room: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Pools `x` (n, C, h, w), padding not counted, into the `room` for it if given; of a maximum also where in its window it lay.

    Both are (n, C, h', w'). Images have a pitch (`places.pitch`).
    """
    n, channels, *given = x.shape
    height, width = ((side + 2 * padding - size) // stride + 1 for side in given)
    shape = (n, channels, height, width)
    result = taken(room, shape, x.dtype, x.device)
    which = taken(None, shape, torch.int8, x.device) if maximum else None
    grid, *blocks = _plan(n * height * width, channels)
    _pool[grid](x, result, result if which is None else which, n * height * width, *given, height, width,
                pitch(x), pitch(result), channels, size, stride, padding, maximum, *blocks)  # fmt: skip
    return result, which


def backward(gradient: Tensor, given: torch.Size, which: Tensor | None, size: int, stride: int, padding: int) -> Tensor:
    """The gradient for the image, of the shape `given` (n, C, h, w)."""
    n, channels, height, width = given
    result = torch.empty(given, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
    grid, *blocks = _plan(n * height * width, channels)
    _gather[grid](gradient, result, gradient if which is None else which, n * height * width, height, width,
                  *gradient.shape[2:], pitch(gradient), channels, size, stride, padding, which is not None, *blocks)  # fmt: skip
    return result


def _plan(pixels: int, channels: int) -> tuple[tuple[int, int], int, int]:
    """The grid, and channels and pixels of a tile."""
    block = min(64, triton.next_power_of_2(channels))
    tile = ELEMENTS // block
    return (triton.cdiv(pixels, tile), triton.cdiv(channels, block)), block, tile

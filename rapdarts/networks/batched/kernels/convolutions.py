"""Triton kernels for the depthwise and pointwise convolutions of many slots, which read every image in place.

A slot reads a block of a bundle (`layout.BlockMap`). No input is copied, and the gradients of slots that read the same
block are summed as they are computed. The gradient for the weights is derived from the gradient of the equivalent
dense convolution, so that tensor cores sum over the pixels. Partial sums are added in a fixed order.
Images are channels last, (n, h, w, C) in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapdarts.networks.batched.kernels.launch import (
    PROGRAMS,
    TILE_ELEMENTS,
    block_of,
    index_table,
    output_buffer,
    pitch,
    precision,
    readers_of,
)
from rapdarts.networks.batched.layout import BlockMap, Geometry

SHARED_MEMORY = 96 * 1024
"""Bytes of shared memory that a program may use; GPUs of compute capability 8.6 and 8.9 allow 99 KB per program."""


MOVEMENT = ("scale_h", "scale_w", "offset_h", "offset_w", "step_h", "step_w")
"""Parameters of a window's movement; Triton does not specialise kernels on their values, nor on those of SIZES."""
SIZES = ("pixels", "from_height", "from_width", "height", "width", "steps", "parts")


@triton.jit(do_not_specialize=[*MOVEMENT, *SIZES])
def _convolve(
    source, target, depthwise, pointwise, reads, readers, pixels,
    from_height, from_width, height, width, from_channels, channels,
    scale_h, scale_w, offset_h, offset_w, step_h, step_w, divisor_h, divisor_w,
    rows: tl.constexpr, columns: tl.constexpr,
    c_in: tl.constexpr, c_out: tl.constexpr, block_in: tl.constexpr, block_out: tl.constexpr, tile: tl.constexpr,
    has_depthwise: tl.constexpr, has_pointwise: tl.constexpr, transposed: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Compute a tile of pixels of a slot.

    In each direction, the output pixel at x reads the input pixels at (x * scale + offset + k * step) / divisor, if this is
    an integer inside the image.
    """
    slot = tl.program_id(1)
    pixel = tl.program_id(0) * tile + tl.arange(0, tile)
    in_range = pixel < pixels
    column, row, image = pixel % width, pixel // width % height, (pixel // (width * height)).to(tl.int64)
    c = tl.arange(0, block_in)
    has_input = c < c_in
    total = tl.zeros((tile, block_in), tl.float32)
    for reader in range(readers):
        block = tl.load(reads + slot * readers + reader)
        kernel = block if has_depthwise and not has_pointwise else slot
        if block >= 0:
            for i in range(rows):
                h_scaled = row * scale_h + offset_h + i * step_h
                h = h_scaled // divisor_h
                in_rows = in_range & (h_scaled >= 0) & (h < from_height) & (h * divisor_h == h_scaled)
                for j in tl.static_range(columns):
                    w_scaled = column * scale_w + offset_w + j * step_w
                    w = w_scaled // divisor_w
                    inside = in_rows & (w_scaled >= 0) & (w < from_width) & (w * divisor_w == w_scaled)
                    offset = ((image * from_height + h) * from_width + w) * from_channels + block * c_in
                    x = tl.load(source + offset[:, None] + c[None, :], inside[:, None] & has_input[None, :], 0.0)
                    if has_depthwise:
                        k = tl.load(depthwise + ((kernel * c_in + c) * rows + i) * columns + j, has_input, 0.0)
                        total += x.to(tl.float32) * k.to(tl.float32)[None, :]
                    else:
                        total += x.to(tl.float32)
    o = tl.arange(0, block_out)
    if has_pointwise:
        if transposed:
            k = tl.load(pointwise + (slot * c_in + c[:, None]) * c_out + o[None, :],
                        has_input[:, None] & (o < c_out)[None, :], 0.0)  # fmt: skip
        else:
            k = tl.load(pointwise + (slot * c_out + o[None, :]) * c_in + c[:, None],
                        has_input[:, None] & (o < c_out)[None, :], 0.0)  # fmt: skip
        dtype = source.dtype.element_ty
        total = tl.dot(total.to(dtype), k.to(dtype), input_precision=precision)
    offset = pixel.to(tl.int64) * channels + slot * c_out
    tl.store(
        target + offset[:, None] + o[None, :],
        total.to(target.dtype.element_ty),
        in_range[:, None] & (o < c_out)[None, :],
    )


@triton.jit(do_not_specialize=[*MOVEMENT, *SIZES])
def _correlate(
    source, gradient, target, reads, pixels, steps,
    from_height, from_width, height, width, from_channels, channels,
    scale_h, scale_w, offset_h, offset_w, step_h, step_w,
    rows: tl.constexpr, columns: tl.constexpr, taps: tl.constexpr,
    c_in: tl.constexpr, c_out: tl.constexpr, block_in: tl.constexpr, block_out: tl.constexpr, tile: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a slot's dense weights for `taps` columns of a kernel row, summed over a part of the pixels."""
    part, slot, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    groups: tl.constexpr = (columns + taps - 1) // taps
    i, first = group // groups, group % groups * taps
    block = tl.load(reads + slot)
    wide: tl.constexpr = taps * block_in
    m = tl.arange(0, wide)
    j, c = first + m // block_in, m % block_in
    o = tl.arange(0, block_out)
    has_input, has_output = (c < c_in) & (j < columns), o < c_out
    total = tl.zeros((wide, block_out), tl.float32)
    for step in range(steps):
        pixel = (part * steps + step) * tile + tl.arange(0, tile)
        in_range = pixel < pixels
        column, row, image = pixel % width, pixel // width % height, (pixel // (width * height)).to(tl.int64)
        g = tl.load(gradient + (pixel.to(tl.int64) * channels + slot * c_out)[:, None] + o[None, :],
                    in_range[:, None] & has_output[None, :], 0.0)  # fmt: skip
        h = row * scale_h + offset_h + i * step_h
        w = (column * scale_w + offset_w)[:, None] + j[None, :] * step_w
        inside = (in_range & (h >= 0) & (h < from_height))[:, None] & (w >= 0) & (w < from_width) & has_input[None, :]
        offset = ((image * from_height + h)[:, None] * from_width + w) * from_channels + block * c_in + c[None, :]
        x = tl.load(source + offset, inside, 0.0)
        total = tl.dot(tl.trans(x), g, total, input_precision=precision)
    slots = tl.num_programs(1)
    offset = (((part * slots + slot) * rows + i) * columns + j) * c_in + c
    tl.store(
        target + offset[:, None].to(tl.int64) * c_out + o[None, :], total, has_input[:, None] & has_output[None, :]
    )


@triton.jit(do_not_specialize=["parts", "slots", "taps"])
def _split_gradient(
    sums, depthwise, pointwise, to_depthwise, to_pointwise, parts, slots, taps,
    c_in: tl.constexpr, c_out: tl.constexpr, block_out: tl.constexpr, block_taps: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of both weights from the dense weight gradient by the chain rule, for one channel of a slot."""
    slot, c = tl.program_id(0), tl.program_id(1)
    t, o = tl.arange(0, block_taps), tl.arange(0, block_out)
    offset = ((slot * taps + t) * c_in + c)[:, None] * c_out + o[None, :]
    mask = (t < taps)[:, None] & (o < c_out)[None, :]
    total = tl.zeros((block_taps, block_out), tl.float32)
    for part in range(parts):
        total += tl.load(sums + part * (slots * taps * c_in * c_out) + offset, mask, 0.0)
    own = (slot * c_in + c) * taps + t
    k = tl.load(depthwise + own, t < taps, 0.0).to(tl.float32)
    mixing = (slot * c_out + o) * c_in + c
    p = tl.load(pointwise + mixing, o < c_out, 0.0).to(tl.float32)
    tl.store(to_depthwise + own, tl.sum(total * p[None, :], 1), t < taps)
    tl.store(to_pointwise + mixing, tl.sum(total * k[:, None], 0), o < c_out)


def _launch(
    x: Tensor, size: tuple[int, int], reads: tuple[int, ...], readers: int, depthwise: Tensor | None,
    pointwise: Tensor | None, c_in: int, c_out: int, movement: Sequence[Sequence[int]], transposed: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    slots, (height, width), n = len(reads) // readers, size, len(x)
    rows, columns = (1, 1) if depthwise is None else depthwise.shape[2:]
    result = output_buffer(out, (n, slots * c_out, height, width), x.dtype, x.device)
    pixels, block = n * height * width, block_of(c_in)
    tile = max(16, TILE_ELEMENTS // max(block, block_of(c_out)))
    (scale, offset, step, divisor) = movement
    given = [x if weight is None else weight for weight in (depthwise, pointwise)]
    _convolve[triton.cdiv(pixels, tile), slots](
        x, result, *given, index_table(reads, x.device), readers, pixels, x.shape[2], x.shape[3], height, width,
        pitch(x), pitch(result), *scale, *offset, *step, *divisor, rows, columns, c_in, c_out,
        block, block_of(c_out), tile, depthwise is not None, pointwise is not None, transposed, precision(),
    )  # fmt: skip
    return result


def forward(
    x: Tensor, block_map: BlockMap, depthwise: Tensor, pointwise: Tensor, geometry: Geometry, out: Tensor | None = None
) -> Tensor:
    """Run a depthwise and then a pointwise convolution: `x` (n, blocks*C, h, w) to (n, slots*outputs, h', w').

    `depthwise` is (slots*C, 1, k, k) and `pointwise` (slots*outputs, C, 1, 1). Products are summed in float32. The result
    is written into `out` if given. Images here and in `backward` must have a pitch (`launch.pitch`).
    """
    c_in, c_out = pointwise.shape[1], len(pointwise) // len(block_map.sources)
    size = geometry.output_size((x.shape[2], x.shape[3]), (depthwise.shape[2], depthwise.shape[3]))
    movement = (geometry.stride, tuple(-p for p in geometry.padding), geometry.dilation, (1, 1))
    return _launch(x, size, block_map.sources, 1, depthwise, pointwise, c_in, c_out, movement, out=out)


def backward(
    gradient: Tensor, given: torch.Size | None, x: Tensor | None, block_map: BlockMap, depthwise: Tensor, pointwise: Tensor,
    geometry: Geometry,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Return the gradients for the inputs of `forward`: `x`, of shape `given` (n, blocks*C, h, w), and both weights.

    `gradient` (n, slots*outputs, h', w') is the gradient for the result. The gradient for `x` is computed only if `given` is
    not None, and the gradients for the weights only if `x` is not None.
    """
    slots, c_in = len(block_map.sources), pointwise.shape[1]
    c_out, kernel = len(pointwise) // slots, (depthwise.shape[2], depthwise.shape[3])
    to_x = to_depthwise = to_pointwise = None
    if given is not None:
        size, pointwise_movement = (gradient.shape[2], gradient.shape[3]), ((1, 1), (0, 0), (0, 0), (1, 1))
        between = _launch(
            gradient, size, tuple(range(slots)), 1, None, pointwise, c_out, c_in, pointwise_movement, transposed=True
        )
        readers, reads = readers_of(block_map)
        movement = ((1, 1), geometry.padding, tuple(-d for d in geometry.dilation), geometry.stride)
        to_x = _launch(between, (given[2], given[3]), reads, readers, depthwise, None, c_in, c_in, movement)
    if x is not None:
        dense = _dense_gradient(gradient, x, block_map, kernel, c_in, c_out, geometry)
        to_depthwise, to_pointwise = torch.empty_like(depthwise), torch.empty_like(pointwise)
        taps = kernel[0] * kernel[1]
        _split_gradient[slots, c_in](
            dense, depthwise, pointwise, to_depthwise, to_pointwise, len(dense), slots, taps,
            c_in, c_out, block_of(c_out), triton.next_power_of_2(taps),
        )  # fmt: skip
    return to_x, to_depthwise, to_pointwise


def _dense_gradient(
    gradient: Tensor, x: Tensor, block_map: BlockMap, kernel: tuple[int, int], c_in: int, c_out: int, geometry: Geometry
) -> Tensor:
    """Return the weight gradient of the equivalent dense convolution.

    It is (parts, slots, taps, C, outputs) in float32; the caller must sum it over the parts.
    """
    slots, (rows, columns), block = len(block_map.sources), kernel, block_of(c_in)
    pixels = len(gradient) * gradient.shape[2] * gradient.shape[3]
    taps = triton.next_power_of_2(columns) if block < 64 else 1
    groups = rows * triton.cdiv(columns, taps)
    # Two tiles of both images: the next one is loaded while the current one is multiplied.
    bytes_per_pixel = 2 * (taps * block + block_of(c_out)) * x.element_size()
    tile = next((tile for tile in (64, 32) if tile * bytes_per_pixel <= SHARED_MEMORY), 16)
    steps = triton.cdiv(triton.cdiv(pixels, max(1, PROGRAMS // (slots * groups))), tile)
    parts = triton.cdiv(pixels, steps * tile)
    sums = torch.empty((parts, slots, rows * columns, c_in, c_out), dtype=torch.float32, device=x.device)
    _correlate[parts, slots, groups](
        x, gradient, sums, index_table(block_map.sources, x.device), pixels, steps, x.shape[2], x.shape[3],
        gradient.shape[2], gradient.shape[3], pitch(x), pitch(gradient),
        *geometry.stride, *(-p for p in geometry.padding), *geometry.dilation, rows, columns, taps,
        c_in, c_out, block, block_of(c_out), tile, precision(),
        num_warps=8 if taps * block >= 128 else 4,
    )  # fmt: skip
    return sums

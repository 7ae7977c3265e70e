"""Depthwise and pointwise convolution as one operation that saves at most its input for the backward pass.

The input is saved only if a weight requires a gradient. The tensor between the two convolutions is recomputed for the
gradient of the pointwise weights: a depthwise convolution is cheap, and its output would be as large as everything else
that an edge saves. On a CPU, the gradients also avoid oneDNN's slow paths for dilated depthwise kernels and for kernels
wider than three columns (timings in docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rapdarts.networks.batched.bundles import Bundle, RecomputedSelection
from rapdarts.networks.batched.layout import BlockMap, Geometry, images, pixels

STRIP = 3
"""Maximum number of columns of a depthwise kernel for which oneDNN computes the weight gradient fast."""


def separable(
    x: Bundle, block_map: BlockMap, depthwise: Tensor, pointwise: Tensor, geometry: Geometry, out: Tensor | None = None
) -> Tensor:
    """Run a depthwise and then a pointwise convolution on slots of C channels, each slot with its own weights.

    `x` is (n, blocks*C, h, w), `depthwise` (slots*C, 1, k, k), `pointwise` (slots*outputs, C, 1, 1). Returns
    (n, slots*outputs, h', w'). If `out` is given, our kernel writes the result into it; without the kernel, `out` is ignored.
    """
    if x.uses("convolutions", max(pointwise.shape[1], len(pointwise) // len(block_map.sources))):
        image = x.x.to(torch.get_autocast_dtype("cuda")) if torch.is_autocast_enabled("cuda") else x.x
        result: Tensor = _SeparableOnGpu.apply(image, depthwise, pointwise, block_map, geometry, out)  # type: ignore[no-untyped-call]
        return result
    (rows, columns), (above, beside) = geometry.stride, geometry.padding
    if geometry.stride == geometry.dilation != (1, 1) and above % rows == 0 and beside % columns == 0:
        # Only every stride-th pixel is read, so this equals an undilated convolution of the subsampled image.
        x, geometry = x.subsampled(geometry.stride), Geometry((1, 1), (above // rows, beside // columns), (1, 1))
    inputs = x.index_select(block_map)
    tensors = [inputs.x, inputs.source, depthwise, pointwise]
    device = x.x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # Autocast does not cast the inputs of custom autograd functions.
        tensors = [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]
    result = _Separable.apply(*tensors, inputs.selection, geometry)  # type: ignore[no-untyped-call]
    return result


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        source: Tensor,
        depthwise: Tensor,
        pointwise: Tensor,
        selection: RecomputedSelection,
        geometry: Geometry,
    ) -> Tensor:
        _, _, *for_weights = ctx.needs_input_grad[:4]
        ctx.save_for_backward(source if any(for_weights) else None, depthwise, pointwise)
        ctx.size, ctx.selection, ctx.geometry = source.shape, selection, geometry
        return F.conv2d(_depthwise(x, depthwise, geometry), pointwise, groups=len(depthwise) // pointwise.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, depthwise, pointwise = ctx.saved_tensors
        channels = pointwise.shape[1]
        slots = len(depthwise) // channels
        for_x, _, for_depthwise, for_pointwise = ctx.needs_input_grad[:4]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        x = ctx.selection(source) if for_depthwise or for_pointwise else None
        to_pointwise = None
        if x is not None:
            between = _depthwise(x, depthwise, ctx.geometry)
            rows, columns = (pixels(y).flatten(0, 2).unflatten(1, (slots, -1)) for y in (gradient, between))
            to_pointwise = torch.bmm(rows.permute(1, 2, 0), columns.transpose(0, 1)).view_as(pointwise)
            del between
        to_between = F.conv_transpose2d(gradient, pointwise, groups=slots)
        to_x, to_depthwise = _depthwise_backward(to_between, x, ctx.size, depthwise, ctx.geometry, for_x)
        return to_x, None, to_depthwise, to_pointwise, None, None


class _SeparableOnGpu(torch.autograd.Function):
    """The operation of `_Separable` with our kernels, which read each slot's block in place."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, depthwise: Tensor, pointwise: Tensor, block_map: BlockMap, geometry: Geometry,
        out: Tensor | None,
    ) -> Tensor:  # fmt: skip
        from rapdarts.networks.batched.kernels import convolutions, launch

        x = launch.ensure_pitch(x)
        _, *for_weights = ctx.needs_input_grad[:3]
        ctx.save_for_backward(x if any(for_weights) else None, depthwise, pointwise)
        ctx.size, ctx.block_map, ctx.geometry = x.shape, block_map, geometry
        # detach() makes the result a new tensor, although it shares the memory of `out`.
        return convolutions.forward(x, block_map, depthwise, pointwise, geometry, out).detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from rapdarts.networks.batched.kernels import convolutions, launch

        x, depthwise, pointwise = ctx.saved_tensors
        gradient = launch.ensure_pitch(gradient)
        size = ctx.size if ctx.needs_input_grad[0] else None
        gradients = convolutions.backward(gradient, size, x, ctx.block_map, depthwise, pointwise, ctx.geometry)
        return *gradients, None, None, None


def _depthwise(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    return F.conv2d(x, weight, None, geometry.stride, geometry.padding, geometry.dilation, len(weight))


def _depthwise_backward(
    gradient: Tensor, x: Tensor | None, size: torch.Size, weight: Tensor, geometry: Geometry, for_x: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a depthwise convolution for its input, of shape `size`, and for its weight (None if `x` is None)."""
    kernel = (weight.shape[2], weight.shape[3])
    dilated = geometry.dilation != (1, 1)
    whole = all(p % d == 0 for p, d in zip(geometry.padding, geometry.dilation, strict=True))
    detour = weight.device.type == "cpu" and (geometry.keeps_size(kernel) and whole if dilated else kernel[1] > STRIP)
    if x is not None and not detour:
        return _library_backward(gradient, x, weight, geometry, (for_x, True, False))[:2]
    to_x = to_weight = None
    if for_x and dilated and detour:
        to_x = _depthwise(gradient, weight.flip(2, 3), geometry)  # convolution with the flipped kernel
    elif for_x:
        # Pixels at the bottom and right edges that no strided window reaches.
        output_padding = [
            side - ((given - 1) * s - 2 * p + d * (k - 1) + 1)
            for side, given, s, p, d, k in zip(
                size[2:], gradient.shape[2:], geometry.stride, geometry.padding, geometry.dilation, kernel, strict=True
            )
        ]
        to_x = F.conv_transpose2d(
            gradient, weight, None, geometry.stride, geometry.padding, output_padding, len(weight), geometry.dilation
        )
    if x is not None:
        if dilated:
            (rows, columns), (above, beside) = geometry.dilation, geometry.padding
            x, gradient = _phases(x, geometry.dilation), _phases(gradient, geometry.dilation)
            geometry = Geometry((1, 1), (above // rows, beside // columns), (1, 1))
        to_weight = _weight_in_strips(gradient, x, weight, geometry)
    return to_x, to_weight


def _library_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]
) -> Any:
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, (0, 0),
        len(weight), wanted,
    )  # fmt: skip


def _weight_in_strips(gradient: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Any:
    """Return the weight gradient of an undilated convolution, computed for at most STRIP kernel columns at a time."""
    if weight.shape[3] <= STRIP:
        return _library_backward(gradient, x, weight, geometry, (False, True, False))[1]
    rows, columns = geometry.padding
    padded = F.pad(x, (columns, columns))  # with explicit padding, each strip can slice the columns that it reads
    geometry = Geometry(geometry.stride, (rows, 0), (1, 1))
    inside = (gradient.shape[3] - 1) * geometry.stride[1]
    strips = []
    for first in range(0, weight.shape[3], STRIP):
        kernel = weight[..., first : first + STRIP]
        seen = padded[..., first : first + inside + kernel.shape[3]]
        strips.append(_library_backward(gradient, seen, kernel, geometry, (False, True, False))[1])
    return torch.cat(strips, 3)


def _phases(x: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Split images into the sets of pixels that a dilated convolution reads together.

    Maps (n, C, h, w) to (dh*dw*n, C, h/dh, w/dw). Sides that the dilation does not divide are padded with zeros, which
    add nothing to a sum of products.
    """
    rows, columns = dilation
    height, width = x.shape[-2:]
    if height % rows or width % columns:
        x = F.pad(x, (0, -width % columns, 0, -height % rows))
    apart = pixels(x).unflatten(2, (-1, columns)).unflatten(1, (-1, rows))  # n, h, dh, w, dw, C
    return images(apart.permute(2, 4, 0, 1, 3, 5).flatten(0, 2))

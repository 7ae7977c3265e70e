"""The primitives that can be placed on an edge: each is a `factory(channels, stride, affine) -> nn.Module` in PRIMITIVES.

Every primitive maps (n, C, h, w) to (n, C, ceil(h/stride), ceil(w/stride)). In the supernet, `affine` is False, because
the scale of a batch norm would compete with the mixing weight. A batch norm also follows every pool in the supernet, so
that no candidate is favoured for the scale of its output (Liu et al. 2019, section 3.1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rapdarts.architecture.space import Factory, SearchSpace
from rapdarts.errors import InputError, first_line
from rapdarts.networks.layers import AvgPool, FactorizedReduce, relu_conv_bn


class Zero(nn.Module):
    """No connection: zeros of the edge's output size, (n, C, h, w) to (n, C, ceil(h/stride), ceil(w/stride))."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0


def none(channels: int, stride: int, affine: bool) -> nn.Module:
    return Zero(stride)


def max_pool_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    return _pool(nn.MaxPool2d(3, stride, 1), channels, affine)


def avg_pool_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    return _pool(AvgPool(3, stride, 1, count_include_pad=False), channels, affine)


def skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=affine)


def conv(kernel: int) -> Factory:
    """A dense k x k convolution."""

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return relu_conv_bn(channels, channels, kernel, stride, affine=affine)

    return build


def sep_conv(kernel: int) -> Factory:
    """Depthwise k x k and pointwise convolution, applied twice; only the first depthwise convolution has the stride."""

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Sequential(
            _depthwise_pointwise(channels, kernel, stride, 1, affine),
            _depthwise_pointwise(channels, kernel, 1, 1, affine),
        )

    return build


def dil_conv(kernel: int) -> Factory:
    """A depthwise k x k convolution with dilation 2, followed by a pointwise convolution."""

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return _depthwise_pointwise(channels, kernel, stride, 2, affine)

    return build


def bottleneck(kernel: int) -> Factory:
    """1x1, strided k x k and 1x1 convolutions; the first two have a quarter of the output channels (He et al. 2016, figure 5)."""

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        narrow = max(1, channels // 4)
        return nn.Sequential(
            relu_conv_bn(channels, narrow, 1, affine=affine),
            relu_conv_bn(narrow, narrow, kernel, stride, affine=affine),
            relu_conv_bn(narrow, channels, 1, affine=affine),
        )

    return build


def factorized(kernel: int) -> Factory:
    """A k x 1 and then a 1 x k convolution (Szegedy et al. 2016, section 3.2), each with the stride along its longer side."""

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Sequential(
            relu_conv_bn(channels, channels, (kernel, 1), (stride, 1), affine=affine),
            relu_conv_bn(channels, channels, (1, kernel), (1, stride), affine=affine),
        )

    return build


def conv_7x1_1x7(channels: int, stride: int, affine: bool) -> nn.Module:
    """A 1 x 7 convolution strided along the width, a 7 x 1 strided along the height, and a batch norm (Zoph et al. 2018)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


PRIMITIVES: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "none": none,
    "max_pool_3x3": max_pool_3x3,
    "avg_pool_3x3": avg_pool_3x3,
    "skip_connect": skip_connect,
    "nor_conv_1x1": conv(1),
    "nor_conv_3x3": conv(3),
    "conv_3x3": conv(3),
    "conv_5x5": conv(5),
    "sep_conv_3x3": sep_conv(3),
    "sep_conv_5x5": sep_conv(5),
    "sep_conv_7x7": sep_conv(7),
    "dil_conv_3x3": dil_conv(3),
    "dil_conv_5x5": dil_conv(5),
    "bottleneck_3x3": bottleneck(3),
    "bottleneck_5x5": bottleneck(5),
    "factorized_3x3": factorized(3),
    "factorized_5x5": factorized(5),
    "conv_7x1_1x7": conv_7x1_1x7,
}


def choose(*names: str) -> dict[str, Factory]:
    """Return the named primitives in the order given, for the `primitives` of a search space."""
    return {name: PRIMITIVES[name] for name in names}


def check_primitives(space: SearchSpace, where: str) -> None:
    """Build every primitive of a user-defined space and check the shape of its output.

    Raises InputError with the name of the first primitive that violates the contract of this module.
    """
    given: object = space.primitives  # a user's file is not type-checked
    if not isinstance(given, Mapping):
        raise InputError(
            f"{where}: primitives must be a mapping from names to factories, not a {type(given).__name__}."
        )
    for name, factory in space.primitives.items():
        for stride, expected in ((1, (1, 4, 4, 6)), (2, (1, 4, 2, 3))):
            try:
                with torch.device("meta"):
                    shape = tuple(factory(4, stride, True).eval()(torch.empty(1, 4, 4, 6)).shape)
            except Exception as error:
                why = f"{type(error).__name__}: {first_line(error)}"
                raise InputError(f"{where}: the primitive {name} fails at stride {stride}: {why}.") from None
            if shape != expected:
                raise InputError(f"{where}: the primitive {name} maps (1, 4, 4, 6) to {shape} instead of {expected}.")


def _pool(pool: nn.Module, channels: int, affine: bool) -> nn.Module:
    return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))


def _depthwise_pointwise(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )

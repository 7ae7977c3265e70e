"""ShuffleNets: convolutions on parts of the channels (groups in v1, halves in v2), mixed by a channel shuffle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rapdarts.networks.layers import AvgPool
from rapdarts.networks.reference.layers import Concat, Image, Residual, global_pooled, named, unit

DEPTHS = (4, 8, 4)
"""Number of units in stages 2, 3 and 4, the same in both versions."""


def shufflenet_v1(image: Image, classes: int) -> nn.Sequential:
    """ShuffleNet with three groups and width 1x, (n, c, h, w) to (n, classes).

    Zhang, Zhou, Lin, Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices", 2018, table 1.
    """
    layers = _stem(image)
    inputs = 24
    for stage, outputs, depth in zip((2, 3, 4), (240, 480, 960), DEPTHS, strict=True):
        units = {"unit1": _unit_v1(inputs, outputs, 2)}
        units.update({f"unit{i}": _unit_v1(outputs, outputs, 1) for i in range(2, depth + 1)})
        layers[f"stage{stage}"] = named(**units)
        inputs = outputs
    return global_pooled("shufflenet_v1", image, inputs, classes, layers)


def shufflenet_v2_x1_0(image: Image, classes: int) -> nn.Sequential:
    """ShuffleNetV2 with width 1x, (n, c, h, w) to (n, classes).

    Ma, Zhang, Zheng, Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture design", 2018, table 5.
    """
    layers = _stem(image)
    inputs = 24
    for stage, outputs, depth in zip((2, 3, 4), (116, 232, 464), DEPTHS, strict=True):
        units = {"unit1": _reduction_v2(inputs, outputs)}
        units.update({f"unit{i}": _unit_v2(outputs) for i in range(2, depth + 1)})
        layers[f"stage{stage}"] = named(**units)
        inputs = outputs
    layers["conv5"] = unit(inputs, 1024, 1)
    return global_pooled("shufflenet_v2_x1_0", image, 1024, classes, layers)


def _stem(image: Image) -> dict[str, nn.Module]:
    return {"conv1": unit(image[0], 24, 3, 2), "pool1": nn.MaxPool2d(3, 2, 1)}


def _unit_v1(inputs: int, outputs: int, stride: int, groups: int = 3) -> nn.Module:
    """The unit of figure 2b or, if `stride` is 2, of figure 2c, which concatenates the pooled input instead of adding it."""
    width = outputs // 4
    new = outputs if stride == 1 else outputs - inputs
    body = named(
        # No groups after the stem, which has only 24 channels (section 3.3).
        reduce=unit(inputs, width, 1, groups=1 if inputs == 24 else groups),
        shuffle=Shuffle(groups),
        depthwise=unit(width, width, 3, stride, groups=width, activation=None),
        expand=unit(width, new, 1, groups=groups, activation=None),
    )
    if stride == 1:
        return Residual(body, nn.Identity(), nn.ReLU())
    return named(concat=Concat(pool=AvgPool(3, 2, 1), body=body), activation=nn.ReLU())


def _unit_v2(channels: int) -> nn.Module:
    """The unit of figure 3c: half of the channels are kept, the other half are filtered, and all are shuffled."""
    return named(halves=ChannelSplit(_filter_v2(channels // 2, channels // 2, 1)), shuffle=Shuffle(2))


def _reduction_v2(inputs: int, outputs: int) -> nn.Module:
    """The unit of figure 3d: each half of the output channels is computed from all input channels, at half the size."""
    half = outputs // 2
    plain = named(depthwise=unit(inputs, inputs, 3, 2, groups=inputs, activation=None), pointwise=unit(inputs, half, 1))
    return named(halves=Concat(branch1=plain, branch2=_filter_v2(inputs, half, 2)), shuffle=Shuffle(2))


def _filter_v2(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return named(
        conv1=unit(inputs, outputs, 1),
        depthwise=unit(outputs, outputs, 3, stride, groups=outputs, activation=None),
        conv2=unit(outputs, outputs, 1),
    )


class Shuffle(nn.Module):
    """Channel shuffle of (n, c, h, w): channel i of group j becomes channel i * groups + j."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(x.chunk(self.groups, 1), 2).flatten(1, 2)


class ChannelSplit(nn.Module):
    """Keep the first half of the channels and apply `body` to the second.

    Maps (n, c, h, w) to (n, c, h, w), if `body` keeps the shape.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = x.chunk(2, 1)
        return torch.cat([kept, self.body(rest)], 1)

"""MobileNets: alternating depthwise and pointwise convolutions in a plain chain (v1) or in inverted residuals (v2)."""

from __future__ import annotations

from torch import nn

from rapdarts.networks.reference.layers import Image, Residual, global_pooled, named, unit

V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Output channels and stride of the blocks (Howard et al. 2017, table 1, where the last stride of 2 is a misprint for 1)."""

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion factor, output channels, number of blocks and first stride of each stage (Sandler et al. 2018, table 2)."""


def mobilenet_v1(image: Image, classes: int) -> nn.Sequential:
    """MobileNet, (n, c, h, w) to (n, classes).

    Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017.
    """
    layers: dict[str, nn.Module] = {"conv1": unit(image[0], 32, 3, 2)}
    inputs = 32
    for i, (outputs, stride) in enumerate(V1, 1):
        layers[f"block{i}"] = named(
            depthwise=unit(inputs, inputs, 3, stride, groups=inputs), pointwise=unit(inputs, outputs, 1)
        )
        inputs = outputs
    return global_pooled("mobilenet_v1", image, inputs, classes, layers)


def mobilenet_v2(image: Image, classes: int) -> nn.Sequential:
    """MobileNetV2, (n, c, h, w) to (n, classes).

    Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
    """
    layers: dict[str, nn.Module] = {"conv1": unit(image[0], 32, 3, 2, activation=nn.ReLU6)}
    inputs = 32
    for stage, (expansion, outputs, depth, stride) in enumerate(V2, 1):
        blocks = {}
        for i in range(1, depth + 1):
            blocks[f"block{i}"] = _inverted_residual(inputs, outputs, stride if i == 1 else 1, expansion)
            inputs = outputs
        layers[f"stage{stage}"] = named(**blocks)
    layers["conv2"] = unit(inputs, 1280, 1, activation=nn.ReLU6)
    return global_pooled("mobilenet_v2", image, 1280, classes, layers, dropout=0.2)


def _inverted_residual(inputs: int, outputs: int, stride: int, expansion: int) -> nn.Module:
    """Expand the channels, filter them depthwise, and project them without activation; add a shortcut if the shape does not change."""
    wide = inputs * expansion
    body = named(
        **({"expand": unit(inputs, wide, 1, activation=nn.ReLU6)} if expansion > 1 else {}),
        depthwise=unit(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6),
        project=unit(wide, outputs, 1, activation=None),
    )
    return Residual(body, nn.Identity(), nn.Identity()) if (inputs, stride) == (outputs, 1) else body

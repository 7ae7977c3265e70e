"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2015, table 1, without auxiliary heads.

The variants differ in the use of batch norm, in the convolutions after the 1x1 reductions of an Inception module, and in residual
connections. Pools are padded, so that the feature maps of a 224x224 image have the sizes of the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from rapdarts.networks.reference.layers import (
    Concat,
    Image,
    Kernel,
    Residual,
    global_pooled,
    initialise,
    named,
    shortcut,
    unit,
)

Conv = Callable[[int, int, Kernel], nn.Module]

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Widths, in the order of the columns of table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection."""

SMALL_MODULES = {
    "inception1a": (32, 32),
    "inception1b": (32, 48),
    "downsample1": (0, 80),
    "inception2a": (112, 48),
    "inception2b": (96, 64),
    "inception2c": (80, 80),
    "inception2d": (48, 96),
    "downsample2": (0, 96),
    "inception3a": (176, 160),
    "inception3b": (176, 160),
}
"""Numbers of 1x1 and 3x3 filters. If the first number is 0, a pool replaces the 1x1 filters, and both branches halve the size."""


@dataclass(frozen=True)
class Design:
    """The kernels that replace the 3x3 and the 5x5 convolution after the 1x1 reductions of an Inception module.

    With `fork`, both branches end in a 1x3 and a 3x1 convolution in parallel, each with the full width of the branch.
    """

    three: tuple[Kernel, ...]
    five: tuple[Kernel, ...]
    fork: bool = False


ORIGINAL = Design((3,), (5,))
TORCHVISION = Design((3,), (3,))
# Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception architecture for computer vision", 2016, figures 5 to 7:
TWICE_3X3 = Design((3,), (3, 3))
ASYMMETRIC = Design(((1, 7), (7, 1)), ((1, 7), (7, 1), (1, 7), (7, 1)))
EXPANDED = Design((), (3,), fork=True)


def googlenet(image: Image, classes: int) -> nn.Sequential:
    """GoogLeNet with batch norm, and 3x3 convolutions in place of 5x5, as in torchvision."""
    return _googlenet("googlenet", image, classes, (TORCHVISION,) * 3, dropout=0.2)


def googlenet_d2l(image: Image, classes: int) -> nn.Sequential:
    """GoogLeNet of Zhang, Lipton, Li, Smola, "Dive into deep learning", 2023, section 8.4, without batch norm, as in the paper."""
    return initialise(_googlenet("googlenet_d2l", image, classes, (ORIGINAL,) * 3, norm=False))


def googlenet_factorized(image: Image, classes: int) -> nn.Sequential:
    """GoogLeNet with factorised convolutions (Szegedy et al. 2016).

    In the third and fifth stages, two 3x3 convolutions replace each 5x5. In the fourth, with feature maps of medium size, a
    1x7 and a 7x1 replace each 3x3, and two such pairs replace each 5x5.
    """
    return _googlenet("googlenet_factorized", image, classes, (TWICE_3X3, ASYMMETRIC, TWICE_3X3), dropout=0.2)


def googlenet_expanded(image: Image, classes: int) -> nn.Sequential:
    """`googlenet_factorized` with expanded outputs (parallel 1x3 and 3x1 convolutions) in the fifth stage (Szegedy et al. 2016)."""
    return _googlenet("googlenet_expanded", image, classes, (TWICE_3X3, ASYMMETRIC, EXPANDED), dropout=0.2)


def googlenet_residual(image: Image, classes: int) -> nn.Sequential:
    """`googlenet` with a residual connection around every module.

    A module is followed by a linear 1x1 convolution before the sum (Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4,
    Inception-ResNet and the impact of residual connections on learning", 2017, section 3.2). The shortcut is a linear 1x1
    convolution if the width changes (He et al. 2016, option B).
    """
    return _googlenet("googlenet_residual", image, classes, (TORCHVISION,) * 3, dropout=0.2, residual=True)


def googlenet_28(image: Image, classes: int) -> nn.Sequential:
    """The network "Inception (small)" for 28x28 images (Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep
    learning requires rethinking generalization", 2017, figure 3). Unlike in the paper, its batch norms have a scale.
    """
    layers: dict[str, nn.Module] = {"conv1": unit(image[0], 96, 3)}
    inputs = 96
    for name, (one, three) in SMALL_MODULES.items():
        if one:
            layers[name] = Concat(branch1=unit(inputs, one, 1), branch2=unit(inputs, three, 3))
            inputs = one + three
        else:
            layers[name] = Concat(branch1=nn.MaxPool2d(3, 2, 1), branch2=unit(inputs, three, 3, 2))
            inputs += three
    return global_pooled("googlenet_28", image, inputs, classes, layers)


def _googlenet(
    name: str,
    image: Image,
    classes: int,
    designs: tuple[Design, Design, Design],
    *,
    norm: bool = True,
    dropout: float = 0.0,
    residual: bool = False,
) -> nn.Sequential:
    """Build a network that maps (n, c, h, w) to (n, classes), with one design for each of stages 3, 4 and 5."""
    conv = partial(unit, norm=norm)
    layers: dict[str, nn.Module] = {
        "conv1": conv(image[0], 64, 7, 2),
        "pool1": nn.MaxPool2d(3, 2, 1),
        "conv2": named(reduce=conv(64, 64, 1), expand=conv(64, 192, 3)),
        "pool2": nn.MaxPool2d(3, 2, 1),
    }
    inputs = 192
    for number, widths in MODULES.items():
        module, outputs = _inception(conv, inputs, widths, designs[int(number[0]) - 3])
        if residual:
            body = named(inception=module, mix=conv(outputs, outputs, 1, activation=None))
            module = Residual(body, shortcut(inputs, outputs), nn.ReLU())
        layers[f"inception{number}"] = module
        if number in ("3b", "4e"):
            layers[f"pool{number[0]}"] = nn.MaxPool2d(3, 2, 1)
        inputs = outputs
    return global_pooled(name, image, inputs, classes, layers, dropout)


def _inception(conv: Conv, inputs: int, widths: tuple[int, ...], design: Design) -> tuple[nn.Module, int]:
    """Return an Inception module, (n, inputs, h, w) to (n, outputs, h, w), and the number of its output channels."""
    one, three_reduce, three, five_reduce, five, pool = widths
    module = Concat(
        branch1=nn.Sequential(conv(inputs, one, 1)),
        branch2=_branch(conv, (inputs, three_reduce, three), design.three, design.fork),
        branch3=_branch(conv, (inputs, five_reduce, five), design.five, design.fork),
        branch4=nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, pool, 1)),
    )
    return module, one + (three + five) * (2 if design.fork else 1) + pool


def _branch(conv: Conv, widths: tuple[int, int, int], kernels: tuple[Kernel, ...], fork: bool) -> nn.Sequential:
    """A 1x1 convolution, then one convolution per kernel; with `fork`, parallel 1x3 and 3x1 convolutions at the end."""
    inputs, width, outputs = widths
    layers = [conv(inputs, width, 1)]
    for kernel in kernels:
        layers.append(conv(width, outputs, kernel))
        width = outputs
    if fork:
        layers.append(Concat(row=conv(width, outputs, (1, 3)), column=conv(width, outputs, (3, 1))))
    return nn.Sequential(*layers)

"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2015, table 1, without auxiliary heads.

Its editions differ in the units (with batch norm or without), in what follows the 1x1 reductions of an
Inception module, and in residual connections. Pools are padded: at 224x224 their maps have the paper's sizes.
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
"""The columns of table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection."""

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
"""1x1 and 3x3 filters; without 1x1 there is a pool, and both halve the map."""


@dataclass(frozen=True)
class Design:
    """The kernels after the reductions of an Inception module, in the place of its 3x3 and of its 5x5.

    With `fork`, a 1x3 convolution stands beside a 3x1 at the end of both, and each gives the full width.
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
    """With batch norm, as torchvision has it: 3x3 in the place of 5x5."""
    return _googlenet("googlenet", image, classes, (TORCHVISION,) * 3, dropout=0.2)


def googlenet_d2l(image: Image, classes: int) -> nn.Sequential:
    """Zhang, Lipton, Li, Smola, "Dive into deep learning", 2023, section 8.4: the paper's, biases and no batch norm."""
    return initialise(_googlenet("googlenet_d2l", image, classes, (ORIGINAL,) * 3, norm=False))


def googlenet_factorized(image: Image, classes: int) -> nn.Sequential:
    """5x5 as two 3x3; where maps are of middle size, in the fourth stage, 7x7 as 1x7 and 7x1 (Szegedy et al. 2016)."""
    return _googlenet("googlenet_factorized", image, classes, (TWICE_3X3, ASYMMETRIC, TWICE_3X3), dropout=0.2)


def googlenet_expanded(image: Image, classes: int) -> nn.Sequential:
    """The factorised one with expanded outputs, 1x3 beside 3x1, where maps are smallest (Szegedy et al. 2016)."""
    return _googlenet("googlenet_expanded", image, classes, (TWICE_3X3, ASYMMETRIC, EXPANDED), dropout=0.2)


def googlenet_residual(image: Image, classes: int) -> nn.Sequential:
    """`googlenet` with a residual connection around every module.

    A linear 1x1 convolution stands before the sum (Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet
    and the impact of residual connections on learning", 2017, section 3.2), and one on the way around where the width
    changes (He et al. 2016, option B).
    """
    return _googlenet("googlenet_residual", image, classes, (TORCHVISION,) * 3, dropout=0.2, residual=True)


def googlenet_28(image: Image, classes: int) -> nn.Sequential:
    """For images of 28x28: Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep learning requires rethinking
    generalization", 2017, figure 3 ("Inception (small)"). Its batch norms have no scales; ours have.
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
    """(n, c, h, w) to (n, classes), with one design for each of the stages 3, 4, 5."""
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
    """One module, (n, inputs, h, w) to (n, outputs, h, w), and its outputs."""
    one, three_reduce, three, five_reduce, five, pool = widths
    module = Concat(
        branch1=nn.Sequential(conv(inputs, one, 1)),
        branch2=_branch(conv, (inputs, three_reduce, three), design.three, design.fork),
        branch3=_branch(conv, (inputs, five_reduce, five), design.five, design.fork),
        branch4=nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, pool, 1)),
    )
    return module, one + (three + five) * (2 if design.fork else 1) + pool


def _branch(conv: Conv, widths: tuple[int, int, int], kernels: tuple[Kernel, ...], fork: bool) -> nn.Sequential:
    """A 1x1 convolution and those of the given kernels after it; with `fork`, 1x3 beside 3x1 at the end."""
    inputs, width, outputs = widths
    layers = [conv(inputs, width, 1)]
    for kernel in kernels:
        layers.append(conv(width, outputs, kernel))
        width = outputs
    if fork:
        layers.append(Concat(row=conv(width, outputs, (1, 3)), column=conv(width, outputs, (3, 1))))
    return nn.Sequential(*layers)

"""Building blocks of the reference networks: convolutional units, branches, residuals, heads, and the check of the image size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.errors import InputError

Image = tuple[int, int, int]
"""Channels, height, width."""

Kernel = int | tuple[int, int]


def named(**layers: nn.Module) -> nn.Sequential:
    """Return a sequence of the layers, each named after its keyword argument."""
    return nn.Sequential(OrderedDict(layers))


def unit(
    inputs: int,
    outputs: int,
    kernel: Kernel,
    stride: int = 1,
    *,
    groups: int = 1,
    norm: bool = True,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Return a same-padded convolution, a batch norm and a ReLU: (n, inputs, h, w) to (n, outputs, ceil(h/stride), ceil(w/stride)).

    Without the norm, the convolution has a bias.
    """
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (rows // 2, columns // 2)
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inputs, outputs, (rows, columns), stride, padding, groups=groups, bias=not norm)
    }
    if norm:
        layers["norm"] = nn.BatchNorm2d(outputs)
    if activation is not None:
        layers["activation"] = activation()
    return named(**layers)


def global_pooled(
    network: str, image: Image, width: int, classes: int, layers: dict[str, nn.Module], dropout: float = 0.0
) -> nn.Sequential:
    """Return the layers, which output `width` channels, followed by a global average pool, dropout and a linear layer."""
    # Checking the first layer is enough: the others are padded and keep at least one pixel.
    map_behind(network, dict([next(iter(layers.items()))]), image)
    drop = {"dropout": nn.Dropout(dropout)} if dropout else {}
    return named(**layers, pool=GlobalPool(), **drop, fc=nn.Linear(width, classes))


def flattened(network: str, image: Image, classes: int, layers: dict[str, nn.Module]) -> nn.Sequential:
    """Return the layers followed by three linear layers, with dropout after the first two (Krizhevsky et al. 2012, section 3.5).

    Raises InputError if the output of the layers would have no pixels.
    """
    return named(
        **layers,
        flatten=nn.Flatten(),
        fc6=nn.Linear(prod(map_behind(network, layers, image, instead="small_alexnet")), 4096),
        relu6=nn.ReLU(),
        dropout6=nn.Dropout(0.5),
        fc7=nn.Linear(4096, 4096),
        relu7=nn.ReLU(),
        dropout7=nn.Dropout(0.5),
        fc8=nn.Linear(4096, classes),
    )


def map_behind(network: str, layers: dict[str, nn.Module], image: Image, instead: str = "") -> Image:
    """Return the output shape (channels, height, width) of a chain of convolutions and pools for an image.

    Raises InputError if the output would have no pixels. The message suggests the network `instead` for small images.
    """
    shape, needed = image, 1
    windows = [(name, layer) for name, parent in layers.items() for layer in parent.modules() if _is_window(layer)]
    for name, layer in windows:
        kernel, stride, padding = _window(layer)
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in shape[1:])
        shape = (layer.out_channels if isinstance(layer, nn.Conv2d) else shape[0], height, width)
        if min(height, width) < 1:
            for _, following in reversed(windows):
                kernel, stride, padding = _window(following)
                needed = max(1, (needed - 1) * stride + kernel - 2 * padding)
            raise InputError(
                f"{network} cannot take an image of {'x'.join(map(str, image))}: the output of its layer {name} would be "
                f"empty; use images of at least {image[0]}x{needed}x{needed}{instead and f', or the network {instead}'}."
            )
    return shape


def _is_window(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)


def _window(layer: Any) -> tuple[int, int, int]:
    """Return the kernel size, stride and padding of a square window."""
    kernel, stride, padding = (
        size if isinstance(size, int) else size[0] for size in (layer.kernel_size, layer.stride, layer.padding)
    )
    return kernel, stride, padding


def initialise(network: nn.Sequential) -> nn.Sequential:
    """Reinitialise a network: uniform weights with variance 2 / (fan-in + fan-out) and zero biases; return the network.

    This is for networks without batch norms (Glorot and Bengio 2010, equation 16). With torch's default initialisation, the
    signal vanishes from layer to layer. With that of He et al. 2015, the initial logits are so large that plain SGD with a
    learning rate of 0.05 reaches NaN within five steps (alexnet, vgg11, googlenet_d2l on eight random images).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


class Concat(nn.Module):
    """Branches that read the same feature map (n, c, h, w); their outputs are concatenated along the channels."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class Residual(nn.Module):
    """activation(body(x) + shortcut(x)), where both terms have the same shape (He et al. 2016, equation 2)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def shortcut(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Return an identity, or a 1x1 convolution if the width or the size changes (He et al. 2016, option B)."""
    return nn.Identity() if (inputs, stride) == (outputs, 1) else unit(inputs, outputs, 1, stride, activation=None)


def padded_shortcut(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Return an identity, or a `PaddedIdentity` if the width or the size changes (He et al. 2016, option A)."""
    return nn.Identity() if (inputs, stride) == (outputs, 1) else PaddedIdentity(outputs - inputs, stride)


class PaddedIdentity(nn.Module):
    """Every `stride`-th row and column of (n, c, h, w), followed by `more` channels of zeros."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


class GlobalPool(nn.Module):
    """The mean of every channel: (n, c, h, w) to (n, c)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

"""DenseNet: Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", 2017, table 1."""

from __future__ import annotations

from torch import nn

from rapdarts.networks.reference.layers import Concat, Image, global_pooled, named, unit

DEPTHS, GROWTH = (6, 12, 24, 16), 32


def densenet121(image: Image, classes: int) -> nn.Sequential:
    """DenseNet-121, (n, c, h, w) to (n, classes): every layer appends GROWTH channels to its input."""
    layers: dict[str, nn.Module] = {"conv1": unit(image[0], 2 * GROWTH, 7, 2), "pool1": nn.MaxPool2d(3, 2, 1)}
    channels = 2 * GROWTH
    for stage, depth in enumerate(DEPTHS, 1):
        layers[f"block{stage}"] = named(**{f"layer{i}": _dense(channels + i * GROWTH) for i in range(depth)})
        channels += depth * GROWTH
        if stage < len(DEPTHS):
            layers[f"transition{stage}"] = _transition(channels)
            channels //= 2
    layers["norm5"], layers["relu5"] = nn.BatchNorm2d(channels), nn.ReLU()
    return global_pooled("densenet121", image, channels, classes, layers)


def _dense(inputs: int) -> nn.Module:
    """A layer of DenseNet-B: (n, inputs, h, w) to (n, inputs + GROWTH, h, w)."""
    new = named(
        norm1=nn.BatchNorm2d(inputs),
        relu1=nn.ReLU(),
        conv1=nn.Conv2d(inputs, 4 * GROWTH, 1, bias=False),
        norm2=nn.BatchNorm2d(4 * GROWTH),
        relu2=nn.ReLU(),
        conv2=nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False),
    )
    return Concat(old=nn.Identity(), new=new)


def _transition(inputs: int) -> nn.Module:
    """A transition layer: (n, inputs, h, w) to (n, inputs/2, ceil(h/2), ceil(w/2)).

    The size is rounded up to support small images.
    """
    return named(
        norm=nn.BatchNorm2d(inputs),
        relu=nn.ReLU(),
        conv=nn.Conv2d(inputs, inputs // 2, 1, bias=False),
        pool=nn.AvgPool2d(2, ceil_mode=True),
    )

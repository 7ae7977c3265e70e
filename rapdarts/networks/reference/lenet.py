"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, figure 2."""

from __future__ import annotations

from math import prod

from torch import nn

from rapdarts.networks.reference.layers import Image, map_behind, named


def lenet(image: Image, classes: int) -> nn.Sequential:
    """(n, c, h, w) to (n, classes). Padded by two pixels: 28x28 is the paper's 32x32.

    As it is built today: plain average pools, all maps of conv2 see all of conv1, and a linear layer in place of the
    radial basis functions.
    """
    layers = {
        "conv1": nn.Conv2d(image[0], 6, 5, padding=2),
        "tanh1": nn.Tanh(),
        "pool1": nn.AvgPool2d(2),
        "conv2": nn.Conv2d(6, 16, 5),
        "tanh2": nn.Tanh(),
        "pool2": nn.AvgPool2d(2),
    }
    features = prod(map_behind("lenet", layers, image))
    return named(
        **layers,
        flatten=nn.Flatten(),
        fc3=nn.Linear(features, 120),
        tanh3=nn.Tanh(),
        fc4=nn.Linear(120, 84),
        tanh4=nn.Tanh(),
        fc5=nn.Linear(84, classes),
    )

"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, figure 2."""

from __future__ import annotations

from math import prod

from torch import nn

from rapdarts.networks.reference.layers import Image, map_behind, named


def lenet(image: Image, classes: int) -> nn.Sequential:
    """LeNet-5, (n, c, h, w) to (n, classes); images are padded by two pixels, so 28x28 corresponds to the paper's 32x32.

    As is usual today, the pools are plain averages, every output of conv2 depends on all outputs of conv1, and a linear
    layer replaces the radial basis functions.
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

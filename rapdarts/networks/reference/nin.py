"""Network in network (Lin, Chen, Yan, 2014) with the widths of "Dive into deep learning" (Zhang et al., 2023, section 8.3)."""

from __future__ import annotations

from torch import nn

from rapdarts.networks.reference.layers import GlobalPool, Image, initialise, map_behind, named


def nin(image: Image, classes: int) -> nn.Sequential:
    """Network in network, (n, c, h, w) to (n, classes): the last block has one channel per class, and the channel means are the logits."""
    layers: dict[str, nn.Module] = {
        "mlpconv1": _mlpconv(image[0], 96, 11, 4, 0),
        "pool1": nn.MaxPool2d(3, 2),
        "mlpconv2": _mlpconv(96, 256, 5, 1, 2),
        "pool2": nn.MaxPool2d(3, 2),
        "mlpconv3": _mlpconv(256, 384, 3, 1, 1),
        "pool3": nn.MaxPool2d(3, 2),
        "dropout": nn.Dropout(0.5),
        "mlpconv4": _mlpconv(384, classes, 3, 1, 1),
    }
    map_behind("nin", layers, image, instead="googlenet_28")
    return initialise(named(**layers, pool=GlobalPool()))


def _mlpconv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    """A convolution followed by a two-layer perceptron at every pixel."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1),
        nn.ReLU(),
    )

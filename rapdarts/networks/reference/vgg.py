"""VGG-11: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, table 1, column A."""

from __future__ import annotations

from torch import nn

from rapdarts.networks.reference.layers import Image, flattened, initialise

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg11(image: Image, classes: int) -> nn.Sequential:
    """Eight 3x3 convolutions in five stages, each followed by a pool, and three linear layers: (n, c, h, w) to (n, classes).

    Weights are initialised as proposed by Glorot and Bengio; the authors found that this makes pre-training unnecessary (section 3.1).
    """
    layers: dict[str, nn.Module] = {}
    channels = image[0]
    for stage, widths in enumerate(STAGES, 1):
        for i, width in enumerate(widths, 1):
            layers[f"conv{stage}_{i}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"relu{stage}_{i}"] = nn.ReLU()
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    return initialise(flattened("vgg11", image, classes, layers))

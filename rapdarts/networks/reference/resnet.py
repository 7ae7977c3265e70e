"""ResNet (He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, table 1 and section 4.2) and ResNeXt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from rapdarts.networks.reference.layers import Image, Residual, global_pooled, named, padded_shortcut, shortcut, unit


def resnet18(image: Image, classes: int) -> nn.Sequential:
    return _resnet("resnet18", image, classes, (2, 2, 2, 2), _basic, 64)


def resnet34(image: Image, classes: int) -> nn.Sequential:
    return _resnet("resnet34", image, classes, (3, 4, 6, 3), _basic, 64)


def resnet50(image: Image, classes: int) -> nn.Sequential:
    return _resnet("resnet50", image, classes, (3, 4, 6, 3), _bottleneck, 256)


def resnet101(image: Image, classes: int) -> nn.Sequential:
    return _resnet("resnet101", image, classes, (3, 4, 23, 3), _bottleneck, 256)


def resnet20(image: Image, classes: int, width: int) -> nn.Sequential:
    """The CIFAR-10 network of section 4.2 with n = 3. Stages have `width`, 2 x `width` and 4 x `width` channels (paper: 16, 32, 64).

    As in the paper, no shortcut has parameters (option A): where the width changes, zeros are appended to the channels.
    """
    block = partial(_basic, shortcut=padded_shortcut)
    layers = {"conv1": unit(image[0], width, 3), **_stages((3, 3, 3), block, width, width)}
    return global_pooled("resnet20", image, 4 * width, classes, layers)


def resnext50_32x4d(image: Image, classes: int) -> nn.Sequential:
    """Xie, Girshick, Dollar, Tu, He, "Aggregated residual transformations for deep neural networks", 2017, table 1."""
    block = partial(_bottleneck, groups=32, narrowing=2)
    return _resnet("resnext50_32x4d", image, classes, (3, 4, 6, 3), block, 256)


def _resnet(
    name: str,
    image: Image,
    classes: int,
    depths: tuple[int, ...],
    block: Callable[[int, int, int], nn.Module],
    width: int,
) -> nn.Sequential:
    """Build a network for ImageNet: (n, c, h, w) to (n, classes). The first stage outputs `width` channels."""
    stem = {"conv1": unit(image[0], 64, 7, 2), "pool1": nn.MaxPool2d(3, 2, 1)}
    layers = {**stem, **_stages(depths, block, 64, width)}
    return global_pooled(name, image, width * 2 ** (len(depths) - 1), classes, layers)


def _stages(
    depths: tuple[int, ...], block: Callable[[int, int, int], nn.Module], inputs: int, width: int
) -> dict[str, nn.Module]:
    """Return stages of blocks.

    The first stage maps `inputs` channels to `width` channels. Each later stage doubles the channels and halves the size.
    """
    layers: dict[str, nn.Module] = {}
    for stage, depth in enumerate(depths):
        outputs = width * 2**stage
        blocks = {"block1": block(inputs, outputs, 1 if stage == 0 else 2)}
        blocks.update({f"block{i}": block(outputs, outputs, 1) for i in range(2, depth + 1)})
        layers[f"stage{stage + 1}"] = named(**blocks)
        inputs = outputs
    return layers


def _basic(
    inputs: int, outputs: int, stride: int, shortcut: Callable[[int, int, int], nn.Module] = shortcut
) -> nn.Module:
    """Two 3x3 convolutions (figure 5, left)."""
    body = named(conv1=unit(inputs, outputs, 3, stride), conv2=unit(outputs, outputs, 3, activation=None))
    return Residual(body, shortcut(inputs, outputs, stride), nn.ReLU())


def _bottleneck(inputs: int, outputs: int, stride: int, groups: int = 1, narrowing: int = 4) -> nn.Module:
    """1x1, 3x3 and 1x1 convolutions (figure 5, right).

    The 3x3 convolution has the stride (Goyal et al. 2017, section 5.1), as in torchvision.
    """
    inner = outputs // narrowing
    body = named(
        conv1=unit(inputs, inner, 1),
        conv2=unit(inner, inner, 3, stride, groups=groups),
        conv3=unit(inner, outputs, 1, activation=None),
    )
    return Residual(body, shortcut(inputs, outputs, stride), nn.ReLU())

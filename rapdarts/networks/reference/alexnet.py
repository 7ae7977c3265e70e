"""AlexNet and its variants: with two groups, with a single tower, as in a textbook, and for small images."""

from __future__ import annotations

from math import prod

from torch import nn

from rapdarts.networks.reference.layers import Image, flattened, initialise, map_behind, named


def alexnet_two_group(image: Image, classes: int) -> nn.Sequential:
    """AlexNet of Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012, figure 2.

    The two groups of conv2, conv4 and conv5 represent the two GPUs of the paper. The authors drew weights from N(0, 0.01) and
    initialised the biases of these layers and of fc6 and fc7 to one (section 5). Here, weights and biases are initialised as
    in all reference networks without batch norms.
    """
    network = _alexnet("alexnet_two_group", image, classes, (96, 256, 384, 384, 256), padding=0, groups=2, norm=True)
    return initialise(network)


def alexnet(image: Image, classes: int) -> nn.Sequential:
    """The single tower of Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.

    As in torchvision, conv1 has 64 filters, and there are no groups and no response normalisation. fc6 has the same size for
    224x224 and 227x227 images.
    """
    return initialise(_alexnet("alexnet", image, classes, (64, 192, 384, 256, 256), padding=2))


def alexnet_d2l(image: Image, classes: int) -> nn.Sequential:
    """AlexNet of Zhang, Lipton, Li, Smola, "Dive into deep learning", 2023, section 8.1."""
    return initialise(_alexnet("alexnet_d2l", image, classes, (96, 256, 384, 384, 256), padding=1))


def small_alexnet(image: Image, classes: int) -> nn.Sequential:
    """The small AlexNet for 28x28 images (Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep learning requires
    rethinking generalization", 2017, appendix A). Its pools are padded and reduce the image to 7x7.
    """
    layers = {
        "conv1": nn.Conv2d(image[0], 64, 5, padding=2),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(3, 2, 1),
        "norm1": _response_norm(),
        "conv2": nn.Conv2d(64, 64, 5, padding=2),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(3, 2, 1),
        "norm2": _response_norm(),
    }
    network = named(
        **layers,
        flatten=nn.Flatten(),
        fc3=nn.Linear(prod(map_behind("small_alexnet", layers, image)), 384),
        relu3=nn.ReLU(),
        fc4=nn.Linear(384, 192),
        relu4=nn.ReLU(),
        fc5=nn.Linear(192, classes),
    )
    return initialise(network)


def _alexnet(
    name: str, image: Image, classes: int, widths: tuple[int, ...], *, padding: int, groups: int = 1, norm: bool = False
) -> nn.Sequential:
    """Build five convolutions of the given widths, three of them followed by a pool, and three linear layers.

    Maps (n, c, h, w) to (n, classes).
    """
    first, second, third, fourth, fifth = widths
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(image[0], first, 11, 4, padding),
        "relu1": nn.ReLU(),
        **({"norm1": _response_norm()} if norm else {}),
        "pool1": nn.MaxPool2d(3, 2),
        "conv2": nn.Conv2d(first, second, 5, padding=2, groups=groups),
        "relu2": nn.ReLU(),
        **({"norm2": _response_norm()} if norm else {}),
        "pool2": nn.MaxPool2d(3, 2),
        "conv3": nn.Conv2d(second, third, 3, padding=1),
        "relu3": nn.ReLU(),
        "conv4": nn.Conv2d(third, fourth, 3, padding=1, groups=groups),
        "relu4": nn.ReLU(),
        "conv5": nn.Conv2d(fourth, fifth, 3, padding=1, groups=groups),
        "relu5": nn.ReLU(),
        "pool5": nn.MaxPool2d(3, 2),
    }
    return flattened(name, image, classes, layers)


def _response_norm() -> nn.LocalResponseNorm:
    """Response normalisation of Krizhevsky et al. 2012, section 3.3.

    The alpha of the paper is 1e-4; torch divides its alpha by the five channels.
    """
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

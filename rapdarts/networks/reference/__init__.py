"""Reference networks for comparisons, implemented from their papers and listed by name in REFERENCE.

Each is built by a function `name(image, classes) -> nn.Module`, or `name(image, classes, width)` if its width can be chosen. The result
maps (n, c, h, w) to logits (n, classes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Reference:
    """A reference network, with the image (channels, height, width) and the number of classes of its paper.

    `width` is the number of channels of the first stage; the other stages scale with it. It is None for a network of fixed width.
    `factory` names the function that builds it, as `module.function` in this package. The module is imported only when a network
    is built, so that the names can be listed without importing torch.
    """

    factory: str
    image: tuple[int, int, int]
    classes: int
    width: int | None = None

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Return a network with new weights. Raises InputError if the image is too small for it."""
        module, _, function = self.factory.partition(".")
        factory = getattr(import_module(f"{__name__}.{module}"), function)
        network: nn.Module = factory(image, classes, *(() if self.width is None else (self.width,)))
        return network


REFERENCE: dict[str, Reference] = {
    "lenet": Reference("lenet.lenet", (1, 28, 28), 10),
    "alexnet": Reference("alexnet.alexnet", (3, 227, 227), 1000),
    "alexnet_two_group": Reference("alexnet.alexnet_two_group", (3, 227, 227), 1000),
    "alexnet_d2l": Reference("alexnet.alexnet_d2l", (3, 224, 224), 10),
    "small_alexnet": Reference("alexnet.small_alexnet", (3, 28, 28), 10),
    "vgg11": Reference("vgg.vgg11", (3, 224, 224), 1000),
    "vgg11_d2l": Reference("vgg.vgg11", (3, 224, 224), 10),
    "nin": Reference("nin.nin", (3, 224, 224), 10),
    "googlenet": Reference("googlenet.googlenet", (3, 224, 224), 1000),
    "googlenet_d2l": Reference("googlenet.googlenet_d2l", (3, 224, 224), 10),
    "googlenet_factorized": Reference("googlenet.googlenet_factorized", (3, 224, 224), 1000),
    "googlenet_expanded": Reference("googlenet.googlenet_expanded", (3, 224, 224), 1000),
    "googlenet_residual": Reference("googlenet.googlenet_residual", (3, 224, 224), 1000),
    "googlenet_28": Reference("googlenet.googlenet_28", (3, 28, 28), 10),
    "resnet20": Reference("resnet.resnet20", (3, 32, 32), 10, width=16),
    "resnet18": Reference("resnet.resnet18", (3, 224, 224), 1000),
    "resnet34": Reference("resnet.resnet34", (3, 224, 224), 1000),
    "resnet50": Reference("resnet.resnet50", (3, 224, 224), 1000),
    "resnet101": Reference("resnet.resnet101", (3, 224, 224), 1000),
    "resnext50_32x4d": Reference("resnet.resnext50_32x4d", (3, 224, 224), 1000),
    "mobilenet_v1": Reference("mobilenet.mobilenet_v1", (3, 224, 224), 1000),
    "mobilenet_v2": Reference("mobilenet.mobilenet_v2", (3, 224, 224), 1000),
    "shufflenet_v1": Reference("shufflenet.shufflenet_v1", (3, 224, 224), 1000),
    "shufflenet_v2_x1_0": Reference("shufflenet.shufflenet_v2_x1_0", (3, 224, 224), 1000),
    "densenet121": Reference("densenet.densenet121", (3, 224, 224), 1000),
}


WIDEST = 4096
"""Maximum width of a reference network."""


def find_reference(name: str) -> str | None:
    """Return the full name of a reference network, ignoring case: `lenet`, or `resnet20@12` for a width other than the default.

    Returns None if there is no such network, or if it cannot have that width.
    """
    known, width = _split(name)
    if known is None or width is None:
        return known
    return None if width_problem(name) else at_width(known, int(width))


def width_problem(name: str) -> str:
    """Return the reason why the width after the @ in `name` is invalid, or "" if it is valid or the network is unknown."""
    known, width = _split(name)
    if known is None or width is None:
        return ""
    if REFERENCE[known].width is None:
        return f"{known} has a fixed width; leave the @{width[:20]} out."
    if re.fullmatch("[0-9]{1,9}", width) and 1 <= int(width) <= WIDEST:
        return ""
    return f"{known}@{width[:20]}: the width must be a whole number from 1 to {WIDEST}, such as {known}@12."


def at_width(name: str, width: int) -> str:
    """Return the full name of a network of REFERENCE at a width: NAME for the default width, NAME@WIDTH for any other width."""
    return name if width == REFERENCE[name].width else f"{name}@{width}"


def reference_named(name: str) -> Reference:
    """Return the reference network with a full name. Raises KeyError for any other name."""
    if find_reference(name) != name:
        raise KeyError(name)
    known, at, width = name.partition("@")
    return replace(REFERENCE[known], width=int(width)) if at else REFERENCE[known]


def _split(name: str) -> tuple[str | None, str | None]:
    """Return the name in REFERENCE, or None if there is no such network, and the text after the @, or None if there is no @."""
    base, at, width = name.partition("@")
    return next((known for known in REFERENCE if known.lower() == base.lower()), None), width if at else None

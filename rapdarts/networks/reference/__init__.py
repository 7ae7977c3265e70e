"""Reference networks: networks that papers compare with, implemented from the papers and listed by name in REFERENCE.

Each is built by a function `name(image, classes) -> nn.Module`, whose result maps (n, c, h, w) to logits (n, classes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Reference:
    """A reference network, with the image (channels, height, width) and the number of classes of its paper.

    `factory` names the function that builds it, as `module.function` in this package. The module is imported only when a
    network is built, so that the names can be listed without importing torch.
    """

    factory: str
    image: tuple[int, int, int]
    classes: int

    @property
    def build(self) -> Callable[[tuple[int, int, int], int], nn.Module]:
        """The function that builds a network with new weights from (image, classes)."""
        module, _, function = self.factory.partition(".")
        build: Callable[[tuple[int, int, int], int], nn.Module] = getattr(
            import_module(f"{__name__}.{module}"), function
        )
        return build


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


def find_reference(name: str) -> str | None:
    """Return the name of a reference network as spelled in REFERENCE, ignoring case, or None if there is no such network."""
    return next((known for known in REFERENCE if known.lower() == name.lower()), None)

"""Images of a data set: in memory on the device, or in files that are decoded on demand (rapdarts.data.pictures)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rapdarts.data.pictures import Pictures


class Images(Protocol):
    """Images of one half of a data set, accessed by position, and their labels."""

    @property
    def labels(self) -> Tensor:
        """Labels (n,) int64, on the device."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> Tensor:
        """Return the images (b, c, h, w) uint8, on the device, at positions (b,) int64 on any device."""

    def take(self, index: Tensor) -> Images:
        """Return the images at positions (k,) as a new collection."""

    def to(self, device: torch.device) -> Images:
        """Return the images on a device."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Images as one tensor (n, c, h, w) on the device."""

    pixels: Tensor  # (n, c, h, w) uint8
    labels: Tensor  # (n,) int64

    @property
    def image(self) -> tuple[int, int, int]:
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, index: Tensor) -> Tensor:
        return self.pixels[index.to(self.pixels.device)]

    def take(self, index: Tensor) -> InMemory:
        return InMemory(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> InMemory:
        return InMemory(self.pixels.to(device), self.labels.to(device))

    def digest(self) -> bytes:
        hashed = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        hashed.update(self.labels.numpy().tobytes())
        hashed.update(np.ascontiguousarray(self.pixels.numpy()).data)
        return hashed.digest()


@dataclass(frozen=True)
class ReadImages:
    """Images returned by a reader: training images, test images (None if the data mark none) and class names.

    `remarks` describe images that were changed or left out.
    """

    train: InMemory | Pictures
    test: InMemory | Pictures | None
    names: list[str]
    remarks: tuple[str, ...] = ()

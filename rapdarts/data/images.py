"""Images of a data set, in memory on the device or in files that are decoded on demand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rapdarts.errors import InputError


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
        """Return a selection of the images, at positions (k,)."""


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


@dataclass(frozen=True, eq=False)
class Pictures:
    """Image files, decoded every time they are read; all formats are converted to RGB with 8 bits per channel.

    Positions are (b,) int64, and images are (b, 3, h, w) uint8.
    """

    root: Path
    files: Sequence[str]  # paths relative to root
    labels: Tensor  # (n,) int64
    image: tuple[int, int, int]  # 3, height, width; images of other sizes are scaled and cropped to this

    def __len__(self) -> int:
        return len(self.files)

    def begin(self, index: Tensor) -> list[Future[Tensor]]:
        """Start decoding the images at positions `index` (b,), on the CPU, in the background."""
        return [_pool().submit(self._decode, i) for i in index.tolist()]

    def collect(self, decoding: list[Future[Tensor]]) -> Tensor:
        """Wait for the decoded images and return them, (b, 3, h, w) uint8, on the device.

        Raises InputError, naming the file, for a broken image.
        """
        pixels = torch.stack([picture.result() for picture in decoding])
        if self.labels.is_cuda:
            pixels = pixels.pin_memory()
        return pixels.to(self.labels.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()

    def fetch(self, index: Tensor) -> Tensor:
        return self.collect(self.begin(index))

    def take(self, index: Tensor) -> Pictures:
        return Pictures(self.root, [self.files[i] for i in index.tolist()], self.labels[index], self.image)

    def to(self, device: torch.device) -> Pictures:
        return Pictures(self.root, self.files, self.labels.to(device), self.image)

    def digest(self) -> bytes:
        """Return a hash of labels, shape, file names and file sizes; reading all files would take as long as an epoch."""
        hashed = hashlib.sha256(repr((len(self), *self.image)).encode())
        hashed.update(self.labels.numpy().tobytes())
        for file in self.files:
            hashed.update(f"{file}\0{(self.root / file).stat().st_size}\0".encode())
        return hashed.digest()

    def _decode(self, position: int) -> Tensor:
        """Decode an image, (h, w, 3) uint8."""
        from PIL import Image

        file = self.root / self.files[position]
        _, height, width = self.image
        try:
            with Image.open(file) as picture:
                if picture.mode.startswith("I"):  # 16 bits; Pillow's conversion would clip at 255
                    high = np.asarray(picture).astype(np.int64) >> 8
                    colour = Image.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
                elif picture.mode in ("P", "PA"):  # via RGBA, because Pillow otherwise warns about transparency
                    colour = picture.convert("RGBA").convert("RGB")
                else:
                    colour = picture.convert("RGB")
            if colour.size != (width, height):
                # Equivalent to scaling the shorter side and cropping the centre.
                left, top = (colour.width - min(colour.size)) / 2, (colour.height - min(colour.size)) / 2
                box = (left, top, colour.width - left, colour.height - top)
                colour = colour.resize((width, height), Image.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(colour))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} is not a readable image ({error}); repair or remove it.") from None


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pictures")


def open_pictures(root: Path, files: Sequence[str], labels: Tensor, size: int) -> Pictures:
    """Return image files with labels (n,) after reading their headers; `size` is the side to scale to, or 0 for no scaling.

    Raises InputError, naming the file, if a file is not an image, or if `size` is 0 and the images differ in size.
    """
    from PIL import Image

    def header(file: str) -> tuple[int, int]:
        try:
            with Image.open(root / file) as picture:
                return picture.size
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            kind = "is empty" if (root / file).stat().st_size == 0 else f"is not a readable image ({error})"
            raise InputError(f"{root / file} {kind}; repair or remove it.") from None

    first: tuple[int, int] | None = None
    for start in range(0, len(files), 4096):  # in chunks, because ImageNet would queue a million calls
        some = files[start : start + 4096]
        for file, found in zip(some, _pool().map(header, some), strict=True):
            first = first or found
            if not size and found != first:
                raise InputError(
                    f"{root / file} has {found[0]}x{found[1]} pixels but {root / files[0]} has {first[0]}x{first[1]}; "
                    "set data.size to scale them."
                )
    width, height = (size, size) if size or not first else first
    return Pictures(root, files, labels, (3, height, width))

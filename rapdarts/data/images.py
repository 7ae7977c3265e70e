"""Images in memory or in picture files, under one interface: any of them by position, and their labels."""

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
    """One half of a data set: pictures by their position, and their labels."""

    @property
    def labels(self) -> Tensor:
        """(n,) int64 on the device."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> Tensor:
        """(b, c, h, w) uint8 on the device, for positions (b,) int64 on whatever device."""

    def take(self, index: Tensor) -> Images:
        """The pictures at some positions (n,) alone."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """All pictures as one tensor on the device."""

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
    """Picture files, decoded whenever they are asked for; every kind of picture becomes RGB, 8 bits a channel."""

    root: Path
    files: Sequence[str]  # inside root
    labels: Tensor  # (n,) int64
    image: tuple[int, int, int]  # 3, height, width: another size is scaled and cropped to it

    def __len__(self) -> int:
        return len(self.files)

    def begin(self, index: Tensor) -> list[Future[Tensor]]:
        """Starts to decode the pictures at `index` (CPU) in the background."""
        return [_pool().submit(self._decode, i) for i in index.tolist()]

    def collect(self, decoding: list[Future[Tensor]]) -> Tensor:
        """(b, 3, h, w) uint8 on the device, once they are there. Raises InputError, naming it, for a broken picture."""
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
        """Of the names and sizes of the files: reading them all would take as long as an epoch."""
        hashed = hashlib.sha256(repr((len(self), *self.image)).encode())
        hashed.update(self.labels.numpy().tobytes())
        for file in self.files:
            hashed.update(f"{file}\0{(self.root / file).stat().st_size}\0".encode())
        return hashed.digest()

    def _decode(self, position: int) -> Tensor:
        """(h, w, 3) uint8."""
        from PIL import Image

        file = self.root / self.files[position]
        _, height, width = self.image
        try:
            with Image.open(file) as picture:
                if picture.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
                    high = np.asarray(picture).astype(np.int64) >> 8
                    colour = Image.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
                elif picture.mode in ("P", "PA"):  # by way of RGBA: a transparent colour would warn
                    colour = picture.convert("RGBA").convert("RGB")
                else:
                    colour = picture.convert("RGB")
            if colour.size != (width, height):
                # The largest centred square is what scaling the shorter side and cropping the centre leaves.
                left, top = (colour.width - min(colour.size)) / 2, (colour.height - min(colour.size)) / 2
                box = (left, top, colour.width - left, colour.height - top)
                colour = colour.resize((width, height), Image.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(colour))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise InputError(f"{file} is not a picture that can be read ({error}); repair or remove it.") from None


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pictures")


def open_pictures(root: Path, files: Sequence[str], labels: Tensor, size: int) -> Pictures:
    """Pictures whose headers have been read; `size` is the side they are scaled to, 0: as they are.

    Raises InputError, naming the file, for one that is no picture, or that has another size than the first (size 0).
    """
    from PIL import Image

    def header(file: str) -> tuple[int, int]:
        try:
            with Image.open(root / file) as picture:
                return picture.size
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            kind = "is empty" if (root / file).stat().st_size == 0 else f"is not a picture that can be read ({error})"
            raise InputError(f"{root / file} {kind}; repair or remove it.") from None

    first: tuple[int, int] | None = None
    for start in range(0, len(files), 4096):  # ImageNet at once would queue a million calls
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

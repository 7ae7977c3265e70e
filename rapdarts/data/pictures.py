"""Image files and PIL images, decoded upright and without transparency.

Colour, palette and 8-bit grey images have pixels from 0 to 255. Images with more than 8 bits per pixel keep their own
values, which are scaled like those of arrays (rapdarts.data.pixels).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from rapdarts.config.experiment import DataConfig
from rapdarts.data.pixels import SAY_RANGE, Array, Lost, PixelRange, range_of
from rapdarts.errors import InputError, first_line, plural, shorten
from rapdarts.files.regular import open_regular

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats that are decoded, whatever the suffix of a file; Pillow passes others, such as EPS, to external programs."""

MOST_FILE_BYTES, MOST_PIXELS = 10**9, 89_478_485
"""Maximum size of an image file, and of the decoded image, which is Pillow's limit; four bytes per pixel are 358 MB."""

BACKGROUND = (255, 255, 255)
"""Background colour of transparent images: white, as on most web pages."""

ORIENTATION = 0x0112
"""EXIF tag of the orientation; values above 4 exchange width and height."""

KINDS = {
    "grey": ("grey image", "{are} read as RGB"),
    "palette": ("image", "with a palette {are} read as RGB"),
    "transparent": ("transparent image", "{are} placed on white"),
    "deep colour": ("colour image", "with 16 bits per value {are} reduced to 8 bits"),
    "animated": ("animated image", "{are} reduced to the first frame"),
    "other": ("image", "in other colour systems {are} converted to RGB"),
}
"""Kinds of images that are changed when they are read, with the noun and the rest of the remark that reports them."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Image files that are decoded to RGB with 8 bits per channel every time they are read.

    `range` contains the values of black and white in images with more than 8 bits per pixel, or in all images if the user
    set it; it is None if there are no such images. `lost` collects the conversion losses until the images are used for
    training. Positions are (b,) int64, and images are (b, 3, h, w) uint8.
    """

    root: Path
    files: Sequence[str]  # paths relative to root
    labels: Tensor  # (n,) int64
    image: tuple[int, int, int]  # 3, height, width; images of other sizes are scaled and cropped to this
    range: PixelRange | None = None
    remarks: tuple[str, ...] = ()
    lost: list[Lost] | None = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files)

    def begin(self, index: Tensor) -> list[Future[Tensor]]:
        """Start decoding the images at positions `index` (b,), on the CPU, in the background."""
        return [_pool().submit(self._decode, i) for i in index.tolist()]

    def collect(self, decoding: list[Future[Tensor]]) -> Tensor:
        """Wait for the decoded images and return them, (b, 3, h, w) uint8, on the device.

        Raises InputError, naming the file, if an image is broken or its pixels are out of range.
        """
        pixels = torch.stack([picture.result() for picture in decoding])
        if self.labels.is_cuda:
            pixels = pixels.pin_memory()
        return pixels.to(self.labels.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()

    def fetch(self, index: Tensor) -> Tensor:
        return self.collect(self.begin(index))

    def take(self, index: Tensor) -> Pictures:
        return replace(self, files=[self.files[i] for i in index.tolist()], labels=self.labels[index], lost=[])

    def to(self, device: torch.device) -> Pictures:
        return replace(self, labels=self.labels.to(device), lost=None)

    def digest(self) -> bytes:
        """Return a hash of labels, file names and file sizes; reading all pixels would take as long as an epoch."""
        hashed = hashlib.sha256(repr((len(self), *self.image)).encode())
        hashed.update(self.labels.numpy().tobytes())
        for file in self.files:
            hashed.update(os.fsencode(f"{file}\0{(self.root / file).stat().st_size}\0"))
        return hashed.digest()

    def _decode(self, position: int) -> Tensor:
        """Return the image at a position, (h, w, 3) uint8."""
        file = self.root / self.files[position]
        _, height, width = self.image
        pixels = read_picture(file)
        if self.range is None and pixels.dtype != np.uint8:
            raise InputError(f"{file} has more than 8 bits per pixel, but no training image does; {SAY_RANGE}.")
        if self.range is not None and (self.range.asked or pixels.dtype != np.uint8):
            pixels, lost = self.range.to_bytes(pixels, str(file))
            if self.lost is not None:
                self.lost.append(lost)
        colour = Image.fromarray(pixels).convert("RGB")
        if colour.size != (width, height):
            # Equivalent to scaling the shorter side and cropping the centre.
            left, top = (colour.width - min(colour.size)) / 2, (colour.height - min(colour.size)) / 2
            box = (left, top, colour.width - left, colour.height - top)
            colour = colour.resize((width, height), Image.Resampling.BILINEAR, box=box)
        return torch.from_numpy(np.array(colour))


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pictures")


def open_pictures(
    root: Path, files: Sequence[str], labels: Tensor, config: DataConfig, training: Pictures | None = None
) -> Pictures:
    """Read the headers of image files with labels (n,); `training` is None if these are the training images.

    Raises InputError, naming the file, if a file is not an image, if sizes differ and data.size is 0, or if the scale of
    pixels with more than 8 bits is ambiguous.
    """
    headers: list[Header] = []
    for start in range(0, len(files), 4096):  # in chunks, because ImageNet would queue a million calls
        headers += _pool().map(lambda file: _header(root / file), files[start : start + 4096])
        for file, found in zip(files[start:], headers[start:], strict=False):
            if not config.size and found.size != headers[0].size:
                (w, h), (first_w, first_h) = found.size, headers[0].size
                raise InputError(
                    f"{root / file} has {w}x{h} pixels but {root / files[0]} has {first_w}x{first_h}; set data.size to scale them."
                )
    width, height = (config.size, config.size) if config.size else headers[0].size
    deep = [root / file for file, found in zip(files, headers, strict=True) if found.is_deep]
    if config.range:
        pixel_range: PixelRange | None = PixelRange(config.range[0], config.range[1], asked=True)
    else:
        pixel_range = training.range if training else range_of(_extremes(deep), (), str(root)) if deep else None
        if training and pixel_range and deep:
            pixel_range.check_half(_extremes(deep), str(root))
    remarks = remarks_on(kind for found in headers for kind in found.kinds)
    if deep and pixel_range:
        remarks.append(
            _remark(len(deep), "image", f"with more than 8 bits per pixel {{are}} scaled from the range {pixel_range}")
        )
    return Pictures(root, files, labels, (3, height, width), pixel_range, tuple(remarks))


def remarks_on(kinds: Iterable[str]) -> list[str]:
    """Return a remark with the number of images for each kind in KINDS."""
    found = Counter(kinds)
    return [_remark(found[kind], *words) for kind, words in KINDS.items() if found[kind]]


def _remark(count: int, noun: str, rest: str) -> str:
    """Return a remark on a number of images; `rest` contains {are} for the verb."""
    return f"{plural(count, noun)} {rest.format(are='is' if count == 1 else 'are')}"


# --- one image ---------------------------------------------------------------------------------------------------


class Header(NamedTuple):
    """Header of an image: its upright (width, height), whether it has more than 8 bits per pixel, and its KINDS."""

    size: tuple[int, int]
    is_deep: bool
    kinds: tuple[str, ...]


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """Open an image file whose header and pixels are read in the `with` block.

    Raises InputError, naming the file, if it is not a regular file, too large, broken, or not in one of FORMATS.
    """
    with open_regular(file, most=MOST_FILE_BYTES) as stream:
        try:
            with Image.open(stream, formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    size = f"{picture.width:,} x {picture.height:,} pixels"
                    raise InputError(f"{file} has {size}, more than {MOST_PIXELS / 1e6:.0f} million; reduce its size.")
                yield picture
        except (InputError, MemoryError):
            raise
        except Exception as error:  # those of Pillow's decoders on altered files have no common class
            is_empty = os.fstat(stream.fileno()).st_size == 0
            kind = "is empty" if is_empty else f"is not a readable image ({why_broken(error)})"
            raise InputError(f"{file} {kind}; repair or remove it.") from None


def why_broken(error: Exception) -> str:
    """Return the reason why Pillow cannot decode an image."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is in none of the formats {', '.join(FORMATS)}"
    return shorten(first_line(error, type(error).__name__))


def read_picture(file: Path) -> Array:
    """Return the pixels of an image file, as `pixels_of` does. Raises InputError, naming the file, if it is broken."""
    with opened(file) as picture:
        return pixels_of(picture)


def pixels_of(picture: Image.Image) -> Array:
    """Return the pixels of an image, upright and without transparency: (h, w) if it is grey, else (h, w, 3), uint8 or deeper."""
    picture = ImageOps.exif_transpose(picture) if _orientation(picture) > 1 else picture
    if _is_deep(picture):
        pixels = np.asarray(picture)
        return pixels.astype(pixels.dtype.newbyteorder("="))
    if _may_be_transparent(picture):
        picture = picture.convert("RGBA")
        below = Image.new("RGBA", picture.size, (*BACKGROUND, 255))
        return np.asarray(Image.alpha_composite(below, picture).convert("RGB"))
    if picture.mode == "1":
        picture = picture.convert("L")
    return np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))


def kinds_of(picture: Image.Image) -> tuple[str, ...]:
    """Return the KINDS of an image, from its header; the pixels are decoded only if some of them may be transparent."""
    mode = picture.mode
    known = {"L": "grey", "1": "grey", "LA": "grey", "P": "palette", "PA": "palette", "RGB": "", "RGBA": ""}
    found = ["" if _is_deep(picture) else known.get(mode, "other")]
    found.append("deep colour" if mode.startswith("RGB") and _is_stored_deep(picture) else "")
    found.append("animated" if getattr(picture, "is_animated", False) and picture.format != "MPO" else "")
    if _may_be_transparent(picture) and not _is_deep(picture):
        opaque = picture.convert("RGBA").getchannel("A").getextrema() == (255, 255)
        found.append("" if opaque else "transparent")
    return tuple(filter(None, found))


def _header(file: Path) -> Header:
    """Return the header of an image file. Raises InputError, naming the file, if it is not an image."""
    with opened(file) as picture:
        width, height = picture.size
        turned = _orientation(picture) > 4
        return Header((height, width) if turned else (width, height), _is_deep(picture), kinds_of(picture))


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation of an image, or 1 if it has none. Avoid `getexif` where possible, because it decodes a whole PNG file."""
    has_none = picture.format == "PNG" and "exif" not in picture.info
    return 1 if has_none else int(picture.getexif().get(ORIENTATION, 1))


def _is_deep(picture: Image.Image) -> bool:
    """Return whether an image is grey with more than 8 bits per pixel."""
    return picture.mode.startswith(("I", "F"))


def _is_stored_deep(picture: Image.Image) -> bool:
    """Return whether the file of an image has 16 bits per value, which Pillow's `mode` does not show for colour images."""
    for codec, _, _, arguments in getattr(picture, "tile", []):
        values = arguments if isinstance(arguments, tuple) else (arguments,)
        largest = max((value for value in values if type(value) is int), default=0) if codec == "ppm" else 0
        if largest > 255 or any(";16" in str(value) for value in values):
            return True
    return False


def _may_be_transparent(picture: Image.Image) -> bool:
    return picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info


def _extremes(files: Sequence[Path]) -> Array:
    """Return pixels that determine the range of images: from each image, the smallest, the largest and, if any, a fraction."""

    def some(file: Path) -> list[float]:
        pixels = read_picture(file)
        fractions = pixels[pixels != np.rint(pixels)] if pixels.dtype.kind == "f" else pixels[:0].ravel()
        return [pixels.min(), pixels.max(), *fractions[:1]]

    return np.array([value for found in _pool().map(some, files) for value in found])

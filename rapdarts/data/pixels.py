"""Scale and layout of images in arrays, with one rule for files, folders and in-memory data.

Ambiguous arrays are rejected; the message names the key that resolves the ambiguity, `data.range` or `data.layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rapdarts.config.experiment import DataConfig
from rapdarts.errors import InputError, plural

Array = np.ndarray[Any, Any]

COUNTS_OF_CHANNELS = (1, 3, 4)
"""Sizes of a first or last axis that may be the channels if no two sides are equal."""

FIRST, LAST = "channels_first", "channels_last"
AXES = {FIRST: "first", LAST: "last"}
SHORT_SIDE = 4
"""Equal sides count as height and width only if they are longer than this, because images can have up to 4 channels."""

LONG_SIDE = 16
"""The axis opposite the channels must be longer than this, so that it cannot be mistaken for channels."""

SAY_RANGE = "set data.range=LOW,HIGH to the values of black and white"
SAME_SCALE = "store both on one scale, or set data.range=LOW,HIGH to the values of black and white in both"

AT_ONCE = 1024
"""Number of images that are converted at once."""

ROUNDING = 0.1
"""Largest difference from a whole number, in steps of 1/255, that is attributed to the precision of the values."""


@dataclass(frozen=True)
class Lost:
    """Information lost in converting pixels to uint8: how many were clipped to the range, and whether any were rounded to 256 levels."""

    clipped: int = 0
    rounded: bool = False

    def __add__(self, other: Lost) -> Lost:
        return Lost(self.clipped + other.clipped, self.rounded or other.rounded)

    def in_words(self, asked: Sequence[float], pixels: int) -> list[str]:
        """Return a remark on each loss; `pixels` is the total number of pixels, and `asked` is data.range."""
        remarks = []
        if self.clipped:
            low, high = asked
            share = f"{100 * self.clipped / pixels:.3f}".rstrip("0").rstrip(".") + " % of all"
            remarks.append(f"pixel values outside data.range={low:g},{high:g} were clipped: {self.clipped:,} ({share})")
        if self.rounded:
            remarks.append("pixel values were rounded to 256 levels")
        return remarks


@dataclass(frozen=True)
class PixelRange:
    """Pixel values of black and white. Values outside are clipped if the user set the range (`asked`), otherwise rejected."""

    low: float
    high: float
    asked: bool = False

    @property
    def is_bytes(self) -> bool:
        """True if the range is 0 to 255, so that values are not scaled."""
        return (self.low, self.high) == (0, 255)

    def check_half(self, pixels: Array, source: str) -> None:
        """Raise InputError if all pixels of a half, of any shape, are on the scale from 0 to 1, but the training images are not.

        Pixels from 0 to 1 are nearly black on a scale from 0 to 255, whatever their type. Images that are entirely black are
        the same on both scales. If the training images range from 0 to 1, pixels above 1 are out of range, and `to_bytes` rejects them.
        """
        if self.is_bytes and not self.asked and pixels.min() >= 0 and 0 < pixels.max() <= 1:
            raise InputError(self._contradiction(pixels, source))

    def to_bytes(self, pixels: Array, source: str) -> tuple[Array, Lost]:
        """Return pixels of any shape (n, ...) as uint8, 0 for `low` and 255 for `high`, and the conversion losses.

        Raises InputError for values outside the range, unless the user set it, and for fractions if the training images
        have whole numbers from 0 to 255.
        """
        _check_finite(pixels, source)
        if pixels.dtype == np.uint8 and self.is_bytes:
            return pixels, Lost()
        result, outside, rounded = np.empty(pixels.shape, np.uint8), 0, False
        for start in range(0, len(pixels), AT_ONCE):  # float64 copies of all images may not fit into memory
            values = pixels[start : start + AT_ONCE].astype(np.float64)
            outside += int(((values < self.low) | (values > self.high)).sum())
            scaled = np.clip((values - self.low) * (255 / (self.high - self.low)), 0, 255)
            whole = np.rint(scaled)
            rounded = rounded or bool((np.abs(scaled - whole) > ROUNDING).any())
            result[start : start + AT_ONCE] = whole
        if not self.asked and outside:
            raise InputError(self._contradiction(pixels, source))
        if not self.asked and self.is_bytes and rounded:
            raise InputError(self._contradiction(pixels, source, "fractions ", "whole numbers from "))
        return result, Lost(outside, rounded)

    def _contradiction(self, pixels: Array, source: str, kind: str = "", own_kind: str = "") -> str:
        """Return the error message for pixels that are not on the scale of the training images."""
        return (
            f"{source}: pixels are {kind}{extent(pixels)}, but those of the training images are {own_kind}{self};"
            f" {SAME_SCALE}."
        )

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


def range_of(pixels: Array, asked: Sequence[float], source: str) -> PixelRange:
    """Return the range of training pixels of any shape, or the range that the user set in `asked`, (low, high) or empty.

    Floats from 0 to 1 are fractions of 255. Integers and other floats must be whole numbers from 0 to 255, which are kept.
    Raises InputError for all other values, for integers that are only 0 and 1, and for infinite or missing values.
    """
    _check_finite(pixels, source)
    if asked:
        return PixelRange(asked[0], asked[1], asked=True)
    low, high, is_float = pixels.min(), pixels.max(), pixels.dtype.kind == "f"
    if not is_float and low >= 0 and high == 1:
        raise InputError(
            f"{source}: the pixels are only 0 and 1, which may be black and white or two dark greys on a scale of 0 to 255; set"
            " data.range=0,1 or"
            " data.range=0,255."
        )
    if is_float and low >= 0 and high <= 1:
        return PixelRange(0, 1)
    if low >= 0 and high <= 255 and not (is_float and (pixels != np.rint(pixels)).any()):
        return PixelRange(0, 255)
    kind = "fractions" if is_float and (pixels != np.rint(pixels)).any() else "whole numbers"
    raise InputError(
        f"{source}: pixels are {kind} {extent(pixels)}, neither whole numbers from 0 to 255 nor fractions from 0 to 1; {SAY_RANGE}."
    )


def extent(pixels: Array) -> str:
    """Return the smallest and the largest pixel as text, precise enough to distinguish 1 from the next float32."""
    low, high = (f"{float(str(value + 0)):.10g}" for value in (pixels.min(), pixels.max()))  # + 0: booleans as numbers
    return f"from {low} to {high}"


def _check_finite(pixels: Array, source: str) -> None:
    """Raise InputError for pixels that are infinite or NaN."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(
            f"{source}: the images contain {plural(int((~np.isfinite(pixels)).sum()), 'NaN or infinite value')}; repair them."
        )


def _check_images(raw: Array, source: str) -> None:
    """Raise InputError for an array that is not (n, h, w), (n, h, w, c) or (n, c, h, w) of numbers."""
    if raw.ndim not in (3, 4) or 0 in raw.shape:
        raise InputError(f"{source}: images must be (n, h, w), (n, h, w, c) or (n, c, h, w), not {raw.shape}.")
    if raw.dtype.kind not in "buif":
        raise InputError(f"{source}: pixels must be numbers, not {raw.dtype}.")


def layout_of(shape: Sequence[int]) -> str:
    """Return the layout of arrays (n, h, w), (n, h, w, c) or (n, c, h, w): `channels_first`, `channels_last`, or "" if it is ambiguous.

    If two sides above 4 are equal, the other axis contains the channels. Otherwise, a first or last axis of size 1, 3 or 4
    contains them if the opposite axis is longer than 16.
    """
    if len(shape) == 3:
        return FIRST
    first, middle, last = shape[1:]
    if (middle == last > SHORT_SIDE) != (first == middle > SHORT_SIDE):
        return FIRST if middle == last else LAST
    if first in COUNTS_OF_CHANNELS and last > LONG_SIDE:
        return FIRST
    return LAST if last in COUNTS_OF_CHANNELS and first > LONG_SIDE else ""


@dataclass(frozen=True)
class Form:
    """Form of the training images, which also applies to test images: the values of black and white, and the layout.

    `layout` is empty for grey images without an axis of channels; test images may then have such an axis.
    """

    range: PixelRange
    layout: str
    layout_asked: bool

    @staticmethod
    def of(raw: Array, config: DataConfig, source: str) -> Form:
        """Return the form of training images (n, h, w), (n, h, w, c) or (n, c, h, w). Raises InputError if it is ambiguous."""
        _check_images(raw, source)
        is_asked = config.layout != "auto"
        layout = config.layout if is_asked else layout_of(raw.shape) if raw.ndim == 4 else ""
        if not layout and raw.ndim == 4:
            raise InputError(
                f"{source}: the channels of images {raw.shape[1:]} could be the first or the last axis; set"
                f" data.layout={FIRST} or data.layout={LAST}."
            )
        return Form(range_of(raw, config.range, source), layout, is_asked)

    def read(self, raw: Array, source: str) -> tuple[Tensor, Lost]:
        """Return images of this form as a tensor (n, c, h, w) uint8, and the conversion losses.

        Raises InputError for images of another form.
        """
        _check_images(raw, source)
        layout = self._layout_of_half(raw, source)
        self.range.check_half(raw, source)
        pixels, lost = self.range.to_bytes(raw, source)
        if pixels.ndim == 3:
            pixels = pixels[:, None]
        elif layout == LAST:
            pixels = pixels.transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(pixels)), lost

    def _layout_of_half(self, raw: Array, source: str) -> str:
        """Return the layout in which to read images. Raises InputError if their shape shows another layout than the training images."""
        if raw.ndim == 3 or self.layout_asked:
            return self.layout
        own = layout_of(raw.shape)
        if own and self.layout and own != self.layout:
            raise InputError(
                f"{source}: the channels of images {raw.shape[1:]} are the {AXES[own]} axis, but those of the training images are the"
                f" {AXES[self.layout]} axis; store both in one layout."
            )
        return self.layout or own or FIRST

"""In-memory data passed by a program: arrays or tensors of images and labels, or data sets of (image, label) items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rapdarts.data.images import InMemory
from rapdarts.data.readers import as_labels, as_pixels, numbers
from rapdarts.errors import InputError, shorten

PIXELS = (
    "pixels must be 0 to 255, or fractions from 0 to 1; pass them unnormalised, because a run normalises them itself"
)


def read_in_memory(data: Any, test: Any = None) -> tuple[InMemory, InMemory | None, list[str]]:
    """Return the train half, the test half (None if `test` is None), and the class names; images are uint8 in memory.

    `data` and `test` are (images, labels) or data sets. Images are arrays or tensors (n, c, h, w), (n, h, w, c) or
    (n, h, w) of pixels from 0 to 255, or of fractions up to 1, which are rounded to 8 bits; labels are integers (n,) from
    0. A data set has a length and returns (image, label) by position, where an image is a PIL image or an array as above
    without n; the class names are its `classes`, if it has them. Raises InputError.
    """
    train, names = _half(data, "data", None)
    if test is None:
        return train, None, names
    held_out, others = _half(test, "test", len(names))
    if names != numbers(len(names)) and others not in (names, numbers(len(others))):
        raise InputError(
            f"test has the classes {shorten(', '.join(others))}, but data has {shorten(', '.join(names))}; number the"
            " classes in the same order in both."
        )
    return train, held_out, names


def _half(source: Any, what: str, classes: int | None) -> tuple[InMemory, list[str]]:
    """Return the images and labels of one half, and its class names (numbers if it has none).

    `classes` is the number of classes, if known.
    """
    known: Any = None
    if isinstance(source, tuple) and len(source) == 2:
        images, labels = source
    elif hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, Mapping):
        images, labels = _items(source, what)
        known = getattr(source, "classes", None)
    else:
        raise InputError(
            f"{what} must be a pair (images, labels), or a data set with a length whose items are (image, label), not"
            f" a {type(source).__name__}."
        )
    names = [str(name) for name in known] if isinstance(known, Sequence) and not isinstance(known, str) else []
    pixels = as_pixels(_scaled(_array(images, f"{what}, images"), what), f"{what}, images")
    numbered = as_labels(_array(labels, f"{what}, labels"), len(pixels), classes or len(names), f"{what}, labels")
    return InMemory(pixels, numbered), names or numbers(int(numbered.max()) + 1)


def _items(dataset: Any, what: str) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """Return all images of a data set and all labels, each as an array."""
    images: list[np.ndarray[Any, Any]] = []
    labels = []
    for position in range(len(dataset)):
        item = dataset[position]
        if not (isinstance(item, Sequence) and len(item) == 2):
            raise InputError(f"{what}: item {position} must be (image, label), not a {type(item).__name__}.")
        image = _picture(item[0]) if isinstance(item[0], Image.Image) else _array(item[0], f"{what}, image {position}")
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{what}: image {position} is {image.shape}, but image 0 is {images[0].shape}; resize all of them to one size."
            )
        images.append(image)
        labels.append(_array(item[1], f"{what}, label {position}"))
    if not images:
        raise InputError(f"{what} has no images; add some.")
    return images, labels


def _picture(picture: Image.Image) -> np.ndarray[Any, Any]:
    """Return a PIL image as (c, h, w) uint8, with one channel for grey images and RGB for all others."""
    pixels = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _array(values: Any, what: str) -> np.ndarray[Any, Any]:
    """Return an array of numbers on the CPU. Raises InputError for anything else."""
    try:
        if isinstance(values, Tensor):
            tensor = values.detach().cpu()
            values = (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
        array = np.asarray(values)
    except (TypeError, ValueError, NotImplementedError) as error:  # sparse, on the meta device, or ragged
        raise InputError(f"{what} cannot be converted to an array ({' '.join(str(error).split())[:200]}).") from None
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} must be numbers, not {array.dtype}.")
    return array if array.flags.writeable else array.copy()  # torch does not accept read-only arrays


def _scaled(pixels: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """Return pixels scaled to 0..255. Raises InputError for normalised pixels, NaN, and integers that are only 0 and 1."""
    if pixels.size == 0:
        return pixels
    if pixels.dtype.kind in "ui" and pixels.max() == 1:
        raise InputError(
            f"{what}: {PIXELS} (these are whole numbers up to 1, which is ambiguous; use 255, or 1.0, instead of 1)."
        )
    if pixels.dtype == np.uint8:
        return pixels
    if not (pixels.min() >= 0 and pixels.max() <= 255):
        raise InputError(f"{what}: {PIXELS} (these range from {pixels.min():g} to {pixels.max():g}).")
    fractions = pixels.dtype.kind in "bf" and pixels.max() <= 1
    return np.rint(pixels * 255.0 if fractions else pixels).astype(np.uint8)

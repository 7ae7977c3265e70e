"""In-memory data: arrays or tensors of pictures and labels, or a data set of items, as a program passes them."""

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
    "pixels must be 0 to 255, or fractions from 0 to 1; give them before they are normalised, a run does that itself"
)


def read_in_memory(data: Any, test: Any = None) -> tuple[InMemory, InMemory | None, list[str]]:
    """Return the train half, the test half (None where `test` is), and the class names; pictures as uint8 in memory.

    `data` and `test` are (images, labels) or data sets. Images are arrays or tensors (n, c, h, w), (n, h, w, c) or
    (n, h, w) of pixels from 0 to 255, or of fractions up to 1, which are rounded to 8 bits; labels are whole numbers
    (n,) from 0. A data set has a length and gives (image, label) by position, an image being a PIL picture or one such
    array; names are its `classes`, where it has them. Raises InputError.
    """
    train, names = _half(data, "data", None)
    if test is None:
        return train, None, names
    held_out, others = _half(test, "test", len(names))
    if names != numbers(len(names)) and others not in (names, numbers(len(others))):
        raise InputError(
            f"test has the classes {shorten(', '.join(others))}, but data have {shorten(', '.join(names))}; number the"
            " labels of both alike."
        )
    return train, held_out, names


def _half(source: Any, what: str, classes: int | None) -> tuple[InMemory, list[str]]:
    """Return the pictures of one half with their labels, and its class names, or else numbers; `classes` is their number, if known."""
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
    """Return all images of a data set, each as an array, and all labels."""
    images: list[np.ndarray[Any, Any]] = []
    labels = []
    for position in range(len(dataset)):
        item = dataset[position]
        if not (isinstance(item, Sequence) and len(item) == 2):
            raise InputError(f"{what}: item {position} must be (image, label), not a {type(item).__name__}.")
        image = _picture(item[0]) if isinstance(item[0], Image.Image) else _array(item[0], f"{what}, image {position}")
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{what}: image {position} is {image.shape}, but image 0 is {images[0].shape}; bring all to one size."
            )
        images.append(image)
        labels.append(_array(item[1], f"{what}, label {position}"))
    if not images:
        raise InputError(f"{what} has no images; give some.")
    return images, labels


def _picture(picture: Image.Image) -> np.ndarray[Any, Any]:
    """Return (c, h, w) uint8: one channel for grey pictures, RGB for all others."""
    pixels = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _array(values: Any, what: str) -> np.ndarray[Any, Any]:
    """Return an array of numbers on the CPU. Raises InputError for anything else."""
    try:
        if isinstance(values, Tensor):
            tensor = values.detach().cpu()
            values = (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
        array = np.asarray(values)
    except (TypeError, ValueError, NotImplementedError) as error:  # sparse, without numbers, of several lengths
        raise InputError(f"{what} are no array ({' '.join(str(error).split())[:200]}).") from None
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} must be numbers, not of the type {array.dtype}.")
    return array if array.flags.writeable else array.copy()  # torch takes no read-only arrays


def _scaled(pixels: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """Return pixels from 0 to 255. Raises InputError for normalised ones, NaN, and whole numbers of 0 and 1 only."""
    if pixels.size == 0:
        return pixels
    if pixels.dtype.kind in "ui" and pixels.max() == 1:
        raise InputError(
            f"{what}: {PIXELS} (these are whole numbers up to 1, which could mean either: give 255, or 1.0)."
        )
    if pixels.dtype == np.uint8:
        return pixels
    if not (pixels.min() >= 0 and pixels.max() <= 255):
        raise InputError(f"{what}: {PIXELS} (these go from {pixels.min():g} to {pixels.max():g}).")
    fractions = pixels.dtype.kind in "bf" and pixels.max() <= 1
    return np.rint(pixels * 255.0 if fractions else pixels).astype(np.uint8)

"""Pictures and labels that a program gives: arrays or tensors, or a data set that is read item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rapdarts.data.images import InMemory
from rapdarts.data.readers import labels_of, numbers, pixels_of
from rapdarts.errors import InputError, shorten

PIXELS = (
    "pixels must be 0 to 255, or fractions from 0 to 1; give them before they are normalised, a run does that itself"
)


def read_in_memory(data: Any, test: Any = None) -> tuple[InMemory, InMemory | None, list[str]]:
    """The train half, the test half (None: none was given), class names; pictures as uint8 in memory.

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


def _half(given: Any, what: str, classes: int | None) -> tuple[InMemory, list[str]]:
    """Pictures with their labels, of so many classes where that is known, and class names: its own, else numbers."""
    known: Any = None
    if isinstance(given, tuple) and len(given) == 2:
        images, labels = given
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, Mapping):
        images, labels = _items(given, what)
        known = getattr(given, "classes", None)
    else:
        raise InputError(
            f"{what} must be a pair (images, labels), or a data set with a length whose items are (image, label), not"
            f" a {type(given).__name__}."
        )
    names = [str(name) for name in known] if isinstance(known, Sequence) and not isinstance(known, str) else []
    pixels = pixels_of(_scaled(_array(images, f"{what}, images"), what), f"{what}, images")
    numbered = labels_of(_array(labels, f"{what}, labels"), len(pixels), classes or len(names), f"{what}, labels")
    return InMemory(pixels, numbered), names or numbers(int(numbered.max()) + 1)


def _items(given: Any, what: str) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """All images, each as an array, and all labels of a data set."""
    images: list[np.ndarray[Any, Any]] = []
    labels = []
    for position in range(len(given)):
        item = given[position]
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
    """(c, h, w) uint8: of grey pictures one channel, of all others RGB."""
    pixels = np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _array(values: Any, what: str) -> np.ndarray[Any, Any]:
    """An array of numbers, on the CPU. Raises InputError for what is none."""
    try:
        if isinstance(values, Tensor):
            tensor = values.detach().cpu()
            values = (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
        array = np.asarray(values)
    except (TypeError, ValueError, NotImplementedError) as error:  # sparse, without numbers, of several lengths
        raise InputError(f"{what} are no array ({' '.join(str(error).split())[:200]}).") from None
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} must be numbers, not of the type {array.dtype}.")
    return array if array.flags.writeable else array.copy()  # torch does not take what nobody may write


def _scaled(pixels: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """Pixels from 0 to 255. Raises InputError for those that are normalised, no numbers, or of 0 and 1 in whole numbers."""
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

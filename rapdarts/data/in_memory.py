"""In-memory data passed by a program: arrays or tensors of images and labels, or data sets of (image, label) items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from rapdarts.config.experiment import DataConfig
from rapdarts.data.images import InMemory, ReadImages
from rapdarts.data.labels import as_labels, check_numbers
from rapdarts.data.pictures import kinds_of, pixels_of, remarks_on, why_broken
from rapdarts.data.pixels import Array, Form, Lost
from rapdarts.data.readers import numbers
from rapdarts.errors import InputError, shorten

IMAGE_KEYS, LABEL_KEYS = ("image", "img"), ("label", "labels", "fine_label")
"""Keys of the image and the label in items that are mappings, as in Hugging Face's `datasets`."""

FORMS = "a pair (images, labels), or a data set with a length whose items are (image, label)"


@dataclass(frozen=True)
class Given:
    """Images and labels (n,) as passed by the calling program, and class names, if any; `layout` is empty if it is unknown."""

    images: Array
    labels: Array
    names: list[str]
    layout: str = ""
    remarks: tuple[str, ...] = ()


def read_in_memory(config: DataConfig, data: Any, test: Any = None) -> ReadImages:
    """Return the images passed by the calling program, as uint8 in memory; the test half is None if `test` is None.

    `data` and `test` are pairs (images, labels) or data sets. Images are arrays or tensors (n, c, h, w), (n, h, w, c) or
    (n, h, w); labels are integers (n,) from 0. Scale and layout are set in `config` or detected by rapdarts.data.pixels.
    A data set has a length, and its items are (image, label) or mappings with both. Its images are PIL images, or arrays
    as above without n. The class names are its `classes`, or the names of its label feature. Raises InputError for
    invalid data.
    """
    given = _given(data, "data")
    form = Form.of(given.images, replace(config, layout=given.layout or config.layout), "data, images")
    train, lost = _half(given, form, "data", len(given.names))
    names = given.names or numbers(int(train.labels.max()) + 1)
    held_out = None
    if test is not None:
        other = _given(test, "test")
        own = replace(form, layout=other.layout, layout_asked=True) if other.layout else form
        held_out, lost_there = _half(other, own, "test", len(names))
        lost += lost_there
        if given.names and other.names not in ([], names):
            raise InputError(
                f"test has the classes {shorten(', '.join(other.names))}, but data has {shorten(', '.join(names))}; number the"
                " classes in the same order in both."
            )
    pixels = sum(half.pixels.numel() for half in (train, held_out) if half)
    remarks = [f"data: {remark}" for remark in given.remarks]
    if test is not None:
        remarks += [f"test: {remark}" for remark in other.remarks]
    return ReadImages(train, held_out, names, (*remarks, *lost.in_words(config.range, pixels)))


def read_test_in_memory(config: DataConfig, test: Any, names: Sequence[str]) -> ReadImages:
    """Return the images of `test` as `read_in_memory` returns training images; `names` are the classes if `test` does not name its own."""
    given = _given(test, "test")
    form = Form.of(given.images, replace(config, layout=given.layout or config.layout), "test, images")
    classes = given.names or [*names]
    images, lost = _half(given, form, "test", len(classes))
    remarks = [f"test: {remark}" for remark in given.remarks] + lost.in_words(config.range, images.pixels.numel())
    return ReadImages(images, None, classes, tuple(remarks))


def _half(given: Given, form: Form, what: str, classes: int) -> tuple[InMemory, Lost]:
    """Return one half as tensors, and the conversion losses; `classes` is the number of classes, or 0 if it is unknown."""
    pixels, lost = form.read(given.images, f"{what}, images")
    return InMemory(pixels, as_labels(given.labels, len(pixels), classes or None, f"{what}, labels")), lost


def _given(source: Any, what: str) -> Given:
    """Return the images, labels and class names of one half."""
    if isinstance(source, DataLoader):
        raise InputError(
            f"{what} is a DataLoader, which may shuffle and transform images; pass its data set: {what}=loader.dataset."
        )
    if isinstance(source, tuple) and len(source) == 2:
        return Given(_numbers(source[0], f"{what}, images"), _labels(source[1], f"{what}, labels"), [])
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")) or isinstance(source, Mapping):
        raise InputError(f"{what} must be {FORMS}, not {type(source).__name__}.")
    items = [_item(source[position], f"{what}: item {position}") for position in range(len(source))]
    if not items:
        raise InputError(f"{what} has no images; add some.")
    images = [
        _picture(image, f"{what}: image {position}")
        if isinstance(image, Image.Image)
        else _numbers(image, f"{what}, image {position}")
        for position, (image, _) in enumerate(items)
    ]
    for position, image in enumerate(images):
        if image.shape != images[0].shape:
            is_colour = image.shape[1:] == images[0].shape[1:]
            remedy = (
                'convert all images to one mode, for example with picture.convert("RGB")'
                if is_colour
                else "resize all images to one size"
            )
            raise InputError(f"{what}: image {position} is {image.shape}, but image 0 is {images[0].shape}; {remedy}.")
    labels = [_labels(label, f"{what}, label {position}") for position, (_, label) in enumerate(items)]
    layout = "channels_first" if all(isinstance(image, Image.Image) for image, _ in items) else ""
    kinds = (kind for image, _ in items if isinstance(image, Image.Image) for kind in kinds_of(image) if kind != "grey")
    return Given(np.stack(images), _labels(labels, f"{what}, labels"), _names(source), layout, tuple(remarks_on(kinds)))


def _item(item: Any, what: str) -> tuple[Any, Any]:
    """Return the image and the label of an item."""
    if isinstance(item, Mapping):
        keys = [[key for key in known if key in item] for known in (IMAGE_KEYS, LABEL_KEYS)]
        if [len(found) for found in keys] == [1, 1]:
            return item[keys[0][0]], item[keys[1][0]]
        raise InputError(
            f"{what} has the keys {shorten(', '.join(map(str, item)))}; use one key for the image ({' or '.join(IMAGE_KEYS)}) and one"
            f" for the label ({' or '.join(LABEL_KEYS)})."
        )
    if not (isinstance(item, Sequence) and len(item) == 2):
        raise InputError(f"{what} must be (image, label), not {type(item).__name__}.")
    return item[0], item[1]


def _names(source: Any) -> list[str]:
    """Return the class names of a data set, or [] if it has none."""
    known = getattr(source, "classes", None)
    features = getattr(source, "features", None)  # of Hugging Face's `datasets`
    if known is None and isinstance(features, Mapping):
        known = next((getattr(features[key], "names", None) for key in LABEL_KEYS if key in features), None)
    return [str(name) for name in known] if isinstance(known, Sequence) and not isinstance(known, str) else []


def _picture(picture: Image.Image, what: str) -> Array:
    """Return a PIL image as (c, h, w), with one channel for grey images and RGB for all others. Raises InputError if it is broken."""
    try:
        pixels = pixels_of(picture)
    except MemoryError:
        raise
    except Exception as error:  # as in rapdarts.data.pictures.opened
        raise InputError(f"{what} cannot be decoded ({why_broken(error)}); repair or remove it.") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _numbers(values: Any, what: str) -> Array:
    """Return an array of numbers on the CPU. Raises InputError for anything else."""
    array = _array(values, what)
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} must be numbers, not {array.dtype}.")
    return array


def _labels(values: Any, what: str) -> Array:
    """Return an array of numbers on the CPU. Raises InputError, with advice for names of classes, for anything else."""
    array = _array(values, what)
    check_numbers(array, what)
    return array


def _array(values: Any, what: str) -> Array:
    """Return a writeable array on the CPU. Raises InputError for values that cannot be converted to one."""
    try:
        if isinstance(values, Tensor):
            tensor = values.detach().cpu()
            values = (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
        array = np.asarray(values)
    except (TypeError, ValueError, NotImplementedError) as error:  # sparse, on the meta device, or ragged
        raise InputError(
            f"{what} cannot be converted to an array ({' '.join(str(error).split())[:200]}); pass a dense array."
        ) from None
    return array if array.flags.writeable else array.copy()  # torch does not accept read-only arrays

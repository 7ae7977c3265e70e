"""Labels of images: a number from 0 for each image, or an error with the line of numpy that converts them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rapdarts.data.pixels import Array
from rapdarts.errors import InputError

NUMBERED = "number the classes from 0, for example with np.unique(y, return_inverse=True)[1]"


def as_labels(raw: Array, count: int, classes: int | None, source: str) -> Tensor:
    """Return labels (n,) int64 in 0..classes - 1; `classes` defaults to the number of distinct labels.

    Raises InputError for other labels.
    """
    if raw.shape != (count,):
        raise InputError(
            f"{source}: {count} images need labels of shape ({count},), not {raw.shape}{_flattened(raw, count)}."
        )
    check_numbers(raw, source)
    if raw.dtype.kind not in "iu":
        bad = np.flatnonzero(raw != np.trunc(raw)) if raw.dtype.kind == "f" else np.zeros(0, int)
        first = int(bad[0]) if len(bad) else 0
        raise InputError(f"{source}: the label of image {first} is {raw[first]} ({raw.dtype}); save labels as int64.")
    is_given, classes = classes is not None, classes or len(np.unique(raw))
    bad = np.flatnonzero((raw < 0) | (raw >= classes))
    if len(bad):
        from_one = raw.min() == 1 and raw.max() == classes
        remedy = "subtract 1 from all labels" if from_one else "" if is_given else NUMBERED
        raise InputError(
            f"{source}: the label of image {bad[0]} is {raw[bad[0]]}, but labels of {classes} classes must be 0 to"
            f" {classes - 1}{remedy and '; '}{remedy}."
        )
    return torch.from_numpy(raw.astype(np.int64))


def check_numbers(raw: Array, source: str) -> None:
    """Raise InputError, with the line that converts them, for labels that are names or other objects."""
    if raw.dtype.kind not in "buif":
        example = f", such as {raw.flat[0]!s:.40}" if raw.dtype.kind in "OSU" and raw.size else ""
        raise InputError(f"{source} must be numbers, not {raw.dtype}{example}; {NUMBERED}.")


def _flattened(raw: Array, count: int) -> str:
    """Return advice for labels of another shape, as the end of a sentence: a single column, or rows with one 1 each."""
    if raw.shape == (count, 1):
        return "; pass y.ravel()"
    numeric = raw.dtype.kind in "buif"
    if numeric and raw.ndim == 2 and len(raw) == count and np.isin(raw, (0, 1)).all() and (raw.sum(1) == 1).all():
        return "; each row has a single 1, so pass y.argmax(1)"
    return ""

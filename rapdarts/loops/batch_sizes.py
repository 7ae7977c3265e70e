"""Check of all batch sizes of a run before it starts, with advice on the sizes that fit the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rapdarts.data.batches import BatchTooLarge
from rapdarts.data.dataset import DataSet
from rapdarts.errors import InputError


def within_images(data: DataSet, *uses: Callable[[], Any]) -> list[Any]:
    """Return the batches that the functions `uses` build from a data set.

    Raises a single InputError for all batches that are larger than the set of images they are drawn from.
    """
    built: list[Any] = []
    found: dict[str, BatchTooLarge] = {}
    for use in uses:
        try:
            built.append(use())
        except BatchTooLarge as error:
            if error.key not in found or error.most < found[error.key].most:
                found[error.key] = error
    if found:
        raise InputError(_advice(data, [*found.values()]))
    return built


def _advice(data: DataSet, errors: list[BatchTooLarge]) -> str:
    """Return the message for the batches that are too large: sizes that fit, and the images that were read."""
    limits = [f"{error.most:,}" if len(errors) == 1 else f"{error.key}={error.most}" for error in errors]
    fits = " ".join(error.example for error in errors if error.example)
    example = f", or smaller batches with learning rates in proportion, such as {fits}" if fits else ""
    return f"{', and '.join(error.finding for error in errors)}; use at most {' and '.join(limits)}{example}. {data.counts}"

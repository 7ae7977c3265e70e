"""Shapes of inputs, as users write them and as messages show them: 3x32x32, or 3x32x32,5 for two inputs."""

from __future__ import annotations

import re

from rapdarts.errors import InputError, shorten

Inputs = tuple[int, ...] | tuple[tuple[int, ...], ...]
"""Shape of a network's input without the batch, such as (channels, height, width), or the shapes of several inputs."""

MOST_SIDES = 8


def input_shapes(text: str) -> Inputs:
    """Return the shape or shapes in a string such as 3x32x32 or 3x32x32,5. Raises InputError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,5}(x[0-9]{1,5})*", part) for part in parts):
        raise _wrong(text)
    shapes = tuple(tuple(map(int, part.split("x"))) for part in parts)
    if not all(len(shape) <= MOST_SIDES and all(shape) for shape in shapes):
        raise _wrong(text)
    return shapes if len(shapes) > 1 else shapes[0]


def _wrong(text: str) -> InputError:
    return InputError(
        f"input={shorten(text)} is not the shape of an input; write CxHxW, such as 3x32x32, or 3x32x32,5 for two inputs."
    )


def each(inputs: Inputs) -> tuple[tuple[int, ...], ...]:
    """Return the shape of each input."""
    several = [shape for shape in inputs if isinstance(shape, tuple)]
    return tuple(several) or (tuple(side for side in inputs if isinstance(side, int)),)


def shown(inputs: Inputs) -> str:
    """Return shapes as users write them."""
    return ",".join("x".join(map(str, shape)) for shape in each(inputs))

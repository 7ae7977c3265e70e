"""Advice for budgets that no genotype meets: the smallest changes of width, depth and stem that make them feasible."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.errors import InputError, plural

NARROWEST = 2
"""Smallest number of channels of a skeleton."""

STEMS = ("cifar", "imagenet")
STEM_CHANGE = 1.0
"""Size of a change of the stem, counted in halvings of the width or the depth."""

Fits = Callable[[Skeleton], bool]


def remedy(skeleton: Skeleton, space: SearchSpace, fits: Fits) -> str:
    """Return advice for budgets that no genotype of a space meets at a skeleton; `fits` tells whether one meets them at another skeleton.

    The advice lists the smallest change of the width alone, of the depth alone and of the stem alone that suffices, even if
    a combination would be a smaller change. If no single change suffices, the advice is the smallest combined change (`_change`).
    """

    def fitting(smaller: Skeleton) -> bool:
        try:
            return fits(smaller)
        except InputError:  # the images are too small for the stem
            return False

    alone = {
        "channels": _largest(fitting, skeleton, "channels", NARROWEST, skeleton.channels - 1),
        "layers": _largest(fitting, skeleton, "layers", space.fewest_layers, skeleton.layers - 1),
    }
    other = next(stem for stem in STEMS if stem != skeleton.stem)
    offers = [f"skeleton.{name}={size}" for name, size in alone.items() if size]
    if fitting(replace(skeleton, stem=other)):
        offers.append(f"skeleton.stem={other}")
    if offers:
        return f"raise the budget, or set {' or '.join(offers)}"
    together = _smallest_change(skeleton, space, fitting)
    if together is None:
        tried = f"{NARROWEST} channels x {plural(space.fewest_layers, 'layer')}"
        return f"raise the budget; smaller networks, down to {tried} with either stem, do not meet it either"
    changes = " ".join(
        f"skeleton.{name}={getattr(together, name)}"
        for name in ("channels", "layers", "stem")
        if getattr(together, name) != getattr(skeleton, name)
    )
    return f"raise the budget, or set {changes}"


def _smallest_change(skeleton: Skeleton, space: SearchSpace, fits: Fits) -> Skeleton | None:
    """Return the skeleton with the smallest change of width, depth and stem that fits; None if no skeleton fits.

    Every check computes prices and solves an integer program. Most stems and depths need a single check, at the narrowest
    width that would be a smaller change than the best so far.
    """
    best, least = None, math.inf
    for stem in STEMS:
        narrow = replace(skeleton, channels=NARROWEST, stem=stem)
        deepest = _largest(fits, narrow, "layers", space.fewest_layers, skeleton.layers)
        for depth in range(deepest or 0, space.fewest_layers - 1, -1):
            shallow = replace(narrow, layers=depth)
            widths = range(NARROWEST, skeleton.channels + 1)
            smaller = (width for width in widths if _change(skeleton, replace(shallow, channels=width)) < least)
            if width := _largest(fits, shallow, "channels", next(smaller, skeleton.channels + 1), skeleton.channels):
                best = replace(shallow, channels=width)
                least = _change(skeleton, best)
    return best


def _change(skeleton: Skeleton, smaller: Skeleton) -> float:
    """Return the size of a change, in halvings of the width and the depth."""
    narrower, shallower = skeleton.channels / smaller.channels, skeleton.layers / smaller.layers
    return math.log2(narrower) + math.log2(shallower) + STEM_CHANGE * (skeleton.stem != smaller.stem)


def _largest(fits: Fits, skeleton: Skeleton, key: str, low: int, high: int) -> int | None:
    """Return the largest value of `key` (channels or layers) from `low` to `high` that fits; None if `low` does not fit."""
    return largest(lambda value: fits(replace(skeleton, **{key: value})), low, high)  # type: ignore[arg-type]


def largest(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the largest number from `low` to `high` that fits, or None if `low` does not. If a number fits, all smaller ones must fit."""
    if high < low or not fits(low):
        return None
    step = low
    while low + step <= high and fits(low + step):
        low, step = low + step, 2 * step
    over = min(low + step, high + 1)
    while over - low > 1:
        middle = (low + over) // 2
        low, over = (middle, over) if fits(middle) else (low, middle)
    return low

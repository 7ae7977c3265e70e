"""Advice for budgets that no genotype meets: the smallest changes of width, depth and stem with which a genotype does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.errors import InputError, plural

NARROWEST = 2
"""Fewest channels of a skeleton."""

DEPTHS = 8
"""Number of depths that are tried together with each stem; each requires a few prices and an integer program."""

STEMS = ("cifar", "imagenet")
STEM_CHANGE = 1.0
"""Size of a change of the stem, in halvings of the width or the depth."""


def remedy(skeleton: Skeleton, space: SearchSpace, fits: Callable[[Skeleton], bool]) -> str:
    """Return what to do if no genotype of a space meets the budgets at a skeleton; `fits` decides whether one does at another.

    Offers every change of the width, depth or stem that suffices alone, or else the smallest combined change.
    """

    def fitting(**changes: int | str) -> bool:
        try:
            return fits(replace(skeleton, **changes))  # type: ignore[arg-type]
        except InputError:  # the images are too small for the stem
            return False

    alone = {
        "channels": largest(lambda width: fitting(channels=width), NARROWEST, skeleton.channels - 1),
        "layers": largest(lambda depth: fitting(layers=depth), space.fewest_layers, skeleton.layers - 1),
    }
    other = next(stem for stem in STEMS if stem != skeleton.stem)
    offers = [f"skeleton.{name}={size}" for name, size in alone.items() if size]
    if fitting(stem=other):
        offers.append(f"skeleton.stem={other}")
    if offers:
        return f"raise the budget, or set {' or '.join(offers)}"
    both = min(_together(skeleton, space, fitting), key=lambda smaller: _change(skeleton, smaller), default=None)
    if both is None:
        tried = f"{NARROWEST} channels x {plural(space.fewest_layers, 'layer')}"
        return f"raise the budget; smaller networks, down to {tried} with either stem, do not meet it either"
    changes = " ".join(
        f"skeleton.{name}={getattr(both, name)}"
        for name in ("channels", "layers", "stem")
        if getattr(both, name) != getattr(skeleton, name)
    )
    return f"raise the budget, or set {changes}"


def _together(skeleton: Skeleton, space: SearchSpace, fitting: Callable[..., bool]) -> Iterator[Skeleton]:
    """Yield the widest fitting skeleton for each stem and several depths."""
    fewest = space.fewest_layers
    depths = {max(fewest, round(skeleton.layers * part / DEPTHS)) for part in range(1, DEPTHS + 1)} | {fewest}
    for stem in STEMS:
        for depth in sorted(depths):

            def fits(width: int, depth: int = depth, stem: str = stem) -> bool:
                return fitting(channels=width, layers=depth, stem=stem)

            width = largest(fits, NARROWEST, skeleton.channels)
            if width is None:
                break  # a deeper network does not fit either
            yield replace(skeleton, channels=width, layers=depth, stem=stem)


def _change(skeleton: Skeleton, smaller: Skeleton) -> float:
    """Return the size of a change, in halvings of the width and the depth."""
    narrower, shallower = skeleton.channels / smaller.channels, skeleton.layers / smaller.layers
    return math.log2(narrower) + math.log2(shallower) + STEM_CHANGE * (skeleton.stem != smaller.stem)


def largest(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the largest number from `low` to `high` that fits, or None if `low` does not; if a number fits, so must all below."""
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

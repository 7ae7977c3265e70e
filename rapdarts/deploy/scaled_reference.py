"""The widest reference network that meets given budgets, for comparison with a network searched within them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from functools import cache

import torch

from rapdarts.config.resources import in_words, within
from rapdarts.cost.count import COUNTERS, Counter, count
from rapdarts.cost.trace import Image
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.errors import InputError
from rapdarts.networks.reference import REFERENCE, WIDEST, at_width


def scaled_to(
    name: str,
    image: Image,
    classes: int,
    limits: Mapping[str, float],
    counters: Mapping[str, Counter] = COUNTERS,
) -> tuple[ReferenceBlueprint, str]:
    """Return the widest version of a reference network that meets every budget, and a remark on budgets that do not apply to it.

    `limits` are upper bounds by resource, each in its unit. Costs are counted by `counters`, for an image (channels, height,
    width); they must rise with the width, as all built-in costs do. Budgets on resources without a counter, such as latency,
    are ignored and named in the remark, which is empty if all apply. Without a budget that applies, the network has its default
    width. Raises InputError for a network of fixed width, and for budgets that even a width of 1 exceeds.
    """
    if name not in REFERENCE or REFERENCE[name].width is None:
        scalable = ", ".join(known for known, reference in REFERENCE.items() if reference.width is not None)
        raise InputError(f"{name} is not a reference network of variable width; choose from {scalable}.")
    counted = {resource: limit for resource, limit in limits.items() if resource in counters}
    if not counted:
        return ReferenceBlueprint(name, image, classes), _remark(name, limits, counted)

    def at(width: int) -> ReferenceBlueprint:
        return ReferenceBlueprint(at_width(name, width), image, classes)

    @cache
    def over(width: int) -> dict[str, float]:
        """Return the costs that exceed their budgets at a width."""
        with torch.device("meta"):
            network = at(width).build()
        costs = count(network, image, {resource: counters[resource] for resource in counted})
        return {resource: cost for resource, cost in costs.items() if cost > counted[resource]}

    # The widths that fit come first, so their number is the largest of them.
    width = bisect_left(range(1, WIDEST + 1), True, key=lambda width: bool(over(width)))
    if not width:
        exceeded = within({resource: counted[resource] for resource in over(1)})
        cheapest = " and ".join(in_words(resource, cost) for resource, cost in over(1).items())
        raise InputError(f"no width of {name} meets {exceeded}: {name}@1 has {cheapest}; raise the budget.")
    return at(width), _remark(name, limits, counted)


def _remark(name: str, limits: Mapping[str, float], counted: Mapping[str, float]) -> str:
    """Return a sentence that names the budgets in `limits` that are not `counted`; empty if there are none."""
    ignored = {resource: limit for resource, limit in limits.items() if resource not in counted}
    if not ignored:
        return ""
    return f"the width of {name} ignores budgets that cannot be counted for reference networks: {within(ignored)}."

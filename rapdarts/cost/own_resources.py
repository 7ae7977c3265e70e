"""User-defined resources: functions of a network and an image, counted like built-in resources, and priced if they are additive."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from rapdarts.architecture.genotype import random_genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.shapes import Inputs
from rapdarts.cost.count import Counter, count_derived
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.errors import InputError, first_line

CHECKED = 5
"""Number of random networks used to check that a resource is additive."""


def own_counters(space: SearchSpace | None) -> dict[str, Counter]:
    """Return the counters of a space's own resources by name. Counters raise InputError for a failing function or an invalid amount."""
    return {name: partial(_amount, name, function) for name, function in (space.resources if space else {}).items()}


def _amount(name: str, function: Callable[..., object], network: nn.Module, image: Inputs) -> float:
    try:
        amount = function(network, image)
    except InputError:
        raise
    except Exception as error:
        why = first_line(error).rstrip(".")
        raise InputError(
            f"the resource {name} fails on a {type(network).__name__}: {type(error).__name__}: {why[:300]}; fix its function."
        ) from error
    number = isinstance(amount, int | float | np.number) and not isinstance(amount, bool | np.complexfloating)
    value = float(amount) if number else math.nan  # type: ignore[arg-type]
    if not 0 <= value < math.inf:
        raise InputError(
            f"the resource {name} returns {str(amount)[:80]!r} for a {type(network).__name__}; return a finite number of at least 0."
        )
    return int(value) if value.is_integer() else value


def full_price_table(space: SearchSpace, skeleton: Skeleton, resources: Mapping[str, Counter]) -> PriceTable:
    """Return the prices of `resources` and of the space's own additive resources. A note names each resource that is not additive."""
    own = own_counters(space)
    table = price_table(space, skeleton, {**resources, **own})
    kept, notes = list(resources), list(table.notes)
    rng = np.random.default_rng(1)
    drawn = [random_genotype(space, rng) for _ in range(CHECKED)] if own else []
    counted = [count_derived(genotype, space, skeleton, own) for genotype in drawn]
    priced = [table.exact(genotype) for genotype in drawn]
    for name in own:
        differ = [
            (whole[name], parts[name])
            for whole, parts in zip(counted, priced, strict=True)
            if not math.isclose(whole[name], parts[name], rel_tol=1e-9, abs_tol=1e-9)
        ]
        if differ:
            whole, parts = differ[0]
            notes.append(
                f"{name} is not additive ({whole:,.6g} for a network, but {parts:,.6g} for the sum of its parts); it can be counted,"
                " but cannot have a price or a budget"
            )
        else:
            kept.append(name)
    rows = [table.row(name) for name in kept]
    return replace(table, resources=tuple(kept), fixed=table.fixed[rows], prices=table.prices[rows], notes=tuple(notes))

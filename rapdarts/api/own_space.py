"""Keys for the prices and budgets of user-defined resources in library calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from rapdarts.architecture.space import SearchSpace
from rapdarts.deploy import lookup
from rapdarts.deploy.space_lookup import known_resources

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def with_own_resources(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Wrap a library function so that it accepts keys for the resources of `space`, or of the runs passed as its first argument."""

    @wraps(function)
    def call(*given: Arguments.args, **named: Arguments.kwargs) -> Result:
        first = given[:1]
        targets = first[0] if first and isinstance(first[0], list | tuple) else first
        space = lookup.space_of(named.get("space"), *targets)  # type: ignore[arg-type]
        with known_resources(space if isinstance(space, SearchSpace | os.PathLike) else None):
            return function(*given, **named)

    return call

"""The state of the process that calls the library, which is the same after every call."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def unchanged_process(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Wrap a library function so that it leaves the warning filters and the global random generators of Python and NumPy as they were.

    The packages that it imports would change them. `in_programs.as_it_was` does the same for what training changes.
    """

    @wraps(function)
    def call(*given: Arguments.args, **named: Arguments.kwargs) -> Result:
        filters, generator = warnings.filters[:], random.getstate()
        numpy = sys.modules.get("numpy")  # most messages about wrong arguments do not need it
        numbers = numpy.random.get_state() if numpy else None
        try:
            return function(*given, **named)
        finally:
            warnings.filters[:] = filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]  # as warnings.catch_warnings does
            random.setstate(generator)
            if numpy:
                numpy.random.set_state(numbers)

    return call

"""Pool of single-threaded processes for a list of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any


def each(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[tuple[Any, Any]]:
    """Yield the arguments and the result of every call as it finishes; with one job, all calls run in this process."""
    if jobs == 1:
        for call in calls:
            yield call, function(*call)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        running = {pool.submit(function, *call): call for call in calls}
        for done in as_completed(running):
            yield running[done], done.result()

"""Jobs timed alternately in one process, so that a slow moment of the machine affects all of them, and the ratios of their times."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from rapdarts.config.resources import show

Job = Callable[[], object]


Key = TypeVar("Key", bound=Hashable)


def in_turns(
    jobs: Mapping[Key, Job], time_of: Callable[[Job], float], rounds: int, warm_up: int
) -> dict[Key, list[float]]:
    """Return the seconds of every job in each of the rounds, after `warm_up` rounds that are dropped."""
    seconds: dict[Key, list[float]] = {name: [] for name in jobs}
    for number in range(warm_up + rounds):
        for name, job in jobs.items():
            spent = time_of(job)
            if number >= warm_up:
                seconds[name].append(spent)
    return seconds


def side_by_side(
    builds: Mapping[str, object], names: Sequence[str], time_of: Callable[[Job], float], rounds: int, warm_up: int
) -> dict[str, Any]:
    """Return the result of `timed` for each method in `names`; all methods of all builds run alternately."""
    jobs = {(name, build): getattr(has, name) for name in names for build, has in builds.items()}
    seconds = in_turns(jobs, time_of, rounds, warm_up)
    return {name: timed({build: seconds[name, build] for build in builds}) for name in names}


def timed(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return medians, minima and all times; `ratio` has the first job's median divided by that of every other job."""
    figures = {
        name: {"median_s": median(times), "minimum_s": min(times), "seconds": list(times)}
        for name, times in seconds.items()
    }
    return {**figures, "ratio": _ratios({name: median(times) for name, times in seconds.items()})}


def counted(numbers: Mapping[str, float]) -> dict[str, Any]:
    """Return counted or predicted numbers, with `ratio`: the first number divided by each of the others."""
    return {**numbers, "ratio": _ratios(numbers)}


def _ratios(numbers: Mapping[str, float]) -> dict[str, float]:
    (_, first), *others = numbers.items()
    return {name: first / number for name, number in others}


# --- output ------------------------------------------------------------------------------------------------------


def seconds(value: float) -> str:
    """Format a time in a suitable unit."""
    return (
        f"{value / 3600:.2f} h"
        if value >= 3600
        else f"{value / 60:.1f} min"
        if value >= 120
        else show(value, "latency")
    )


def megabytes(value: float) -> str:
    """Format bytes in MB, 10^6 bytes."""
    return f"{value / 1e6:,.2f} MB"


def words_of(sizes: Mapping[str, Any]) -> str:
    """Describe the sizes of a measurement."""
    image = f"3x{sizes['side']}x{sizes['side']}"
    return f"batch {sizes['batch']}, {sizes['channels']} channels, {sizes['images']:,} images of {image}"


def rows(title: str, figures: Mapping[str, Any], shown: Callable[[float], str] = seconds) -> list[list[str]]:
    """Return the lines of a table for the result of `timed` (two lines: medians, minima) or `counted` (one line)."""
    ratio: Mapping[str, float] = figures["ratio"]
    values = [value for name, value in figures.items() if name != "ratio"]
    ratios = [f"{number:.2f}" for number in ratio.values()]
    if not isinstance(values[0], Mapping):
        return [[title, *map(shown, values), *ratios]]
    medians = [f"{title}, median", *(shown(value["median_s"]) for value in values), *ratios]
    return [medians, [f"{title}, minimum", *(shown(value["minimum_s"]) for value in values), *("" for _ in ratios)]]


def header(title: str, names: Sequence[str]) -> list[str]:
    """Return the header of a table with these columns and their ratios."""
    return [title, *names, *(f"{names[0]} / {name}" for name in names[1:])]


def table(lines: Sequence[Sequence[str]]) -> str:
    """Format lines of cells as text, with the first column aligned left and the others right."""
    columns = max(map(len, lines))
    cells = [[*line, *[""] * (columns - len(line))] for line in lines]
    widths = [max(len(line[column]) for line in cells) for column in range(columns)]
    texts = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    return "\n".join(text.rstrip() for text in texts)


def say(words: str) -> None:
    """Print progress."""
    print(words, file=sys.stderr, flush=True)

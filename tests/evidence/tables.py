"""Markdown: tables, paragraphs, and the list of commands below a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

WIDTH = 150
NOT_RUN = "Not run yet."


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a table as lines, with an empty line after it. The first column is left-aligned, the others right-aligned."""
    aligned = ["---", *["---:"] * (len(head) - 1)]
    return [*(f"| {' | '.join(map(str, row))} |" for row in (head, aligned, *rows)), ""]


def paragraph(*sentences: str) -> list[str]:
    """Return sentences as wrapped lines with an empty line after them; line breaks in the input are ignored."""
    text = " ".join(" ".join(sentences).split())
    return [*textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False), ""] if text else []


def sources(origins: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a list of the commands that produced the rows of a table, without duplicates, grouped by date and machine."""
    facts = sorted({(one["date"], one["machine"], one["command"]) for one in origins})
    lines = []
    for (date, machine), found in groupby(facts, key=lambda one: one[:2]):
        commands = [f"  `{command}`" for *_, command in found]
        lines += [
            f"- {date}, one thread of an {machine}:"
            if machine[0] in "AEIOU"
            else f"- {date}, one thread of a {machine}:"
        ]
        lines += [f"{command}{',' if command != commands[-1] else ''}" for command in commands]
    return [*lines, ""] if lines else []


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text such as `0-3, 10-11`."""
    runs = [[one for _, one in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words joined as in `a, b and c`."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))

"""Genotypes in text that is not Python, JSON or YAML, such as a log, found by their first characters."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from rapdarts.architecture.dialects.python_values import python_values
from rapdarts.architecture.dialects.values import Call, parts_of, unread_in
from rapdarts.errors import InputError
from rapdarts.files.json import quote_value

CALL = re.compile(r"Genotype\s{0,8}\(")
BARS = re.compile(r"\|[^\s|+~]{1,64}~0\|\+\|(?:[^\s|+~]{1,64}~[01]\|){2}\+\|(?:[^\s|+~]{1,64}~[0-2]\|){3}")
LABEL = re.compile(
    r"(?P<quote>[\"']?)(?P<name>[A-Za-z_][\w.-]{0,63})(?P=quote)\s{0,8}[=:]\s{0,8}[\"']?(?:\w{1,64}\.){0,4}\w{0,64}$"
)
"""Pattern for a label before a genotype, `name =` or `name:`. Part of a dotted call name may come between them."""
STAMP = re.compile(r"\d\d:\d\d")
STAMPED, HEAD = 48, 400
"""Maximum length, in characters, of the text searched for a time stamp at the start of a line, and for a label before a genotype."""

EPOCH = re.compile(
    r"(?:[\"']step[\"']\s{0,8}:|\b(?:epoch|iter|iteration|generation)\b[\"']?\s{0,8}[:=]?)\s{0,8}\[?(\d{1,18})\b",
    re.IGNORECASE,
)
"""Pattern for the epoch or step number before a genotype in a log without time stamps."""

MOST = 200_000
"""Maximum number of genotypes in a text that is scanned."""

BRACKETS = re.compile(r"[()\[\]{}]|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
MAX_CHARACTERS = 64_000
"""Maximum length of a genotype in a text, in characters."""


@dataclass(frozen=True)
class Mention:
    """A place in a text where a genotype begins: its line, its label, and whether the line begins with a time stamp.

    `key` is true if the label is in quotes, like the key of a record.
    """

    start: int
    line: int
    name: str
    stamped: bool
    key: bool = False


def mentions(text: str, where: str) -> list[Mention]:
    """Return the places where a Genotype call or a NAS-Bench-201 string begins, in order. Raises InputError if there are too many."""
    places = [match.start() for match in CALL.finditer(text)]
    if "~0|+|" in text:
        places = sorted([*places, *(match.start() for match in BARS.finditer(text))])
    if len(places) > MOST:
        raise InputError(
            f"{where} mentions genotypes more than {MOST:,} times; copy the one you want into a separate file."
        )
    lines = [1 + before for before in accumulate(text.count("\n", *between) for between in pairwise([0, *places]))]
    found = []
    for place, line in zip(places, lines, strict=True):
        begin = text.rfind("\n", 0, place) + 1
        label = LABEL.search(text[max(begin, place - HEAD) : place])
        stamped = STAMP.search(text[begin : min(place, begin + STAMPED)]) is not None
        key = label is not None and bool(label["quote"])
        found.append(Mention(place, line, label["name"] if label else "", stamped, key))
    return found


def is_log(text: str, found: Sequence[Mention]) -> bool:
    """Return whether the genotypes come from a log: a line has a time stamp, or several genotypes follow increasing step numbers."""
    if any(one.stamped for one in found):
        return True
    ends = [0, *(one.start for one in found)]
    return len(found) > 1 and ascend([EPOCH.search(text, *between) for between in pairwise(ends)])


def ascend(counts: Sequence[re.Match[str] | None]) -> bool:
    """Return whether no count is missing and the counts increase strictly."""
    numbers = [int(count[1]) for count in counts if count is not None]
    return len(numbers) == len(counts) and all(one < other for one, other in pairwise(numbers))


def changes_of(names: Collection[str], text: str) -> dict[str, re.Match[str]]:
    """Return, for each name, the last line that may change its value in place: `NAME.normal[0] = ...`, `NAME[0].pop()`, `del NAME[0]`."""
    if not names:
        return {}
    name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    changing = re.compile(
        rf"^[ \t>\"']{{0,80}}(?:({name})[ \t]{{0,8}}[.\[][^\n=(]{{0,200}}[=(]|del ({name})\b)[^\n]{{0,80}}",
        re.MULTILINE,
    )
    return {found[1] or found[2]: found for found in changing.finditer(text)}


def value_at(text: str, mention: Mention) -> tuple[Any, str]:
    """Return the value of a mentioned genotype, and the reason why it cannot be used (empty if it can).

    The value is None if it cannot be parsed. A value with parts that are not plain is returned with a reason.
    """
    if bars := BARS.match(text, mention.start):
        return bars.group(), ""
    end = _end(text, mention.start)
    if end is None:
        return None, "Genotype( is not closed"
    read = python_values(text[mention.start : end])
    if not read:
        return None, f"{quote_value(text[mention.start : end])} is not in Python syntax"
    value = read[0].value
    unread = next(filter(None, map(unread_in, parts_of(value))), None) if isinstance(value, Call) else unread_in(value)
    return value, "" if unread is None else unread.finding


def _end(text: str, start: int) -> int | None:
    """Return the position after the bracket that closes the first one after `start`; None if it is not closed."""
    depth = 0
    for token in BRACKETS.finditer(text, start, start + MAX_CHARACTERS):
        depth += (token.group() in "([{") - (token.group() in ")]}")
        if depth == 0 and token.group() in ")]}":
            return token.end()
    return None

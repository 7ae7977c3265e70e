"""Unchecked values in a text: plain values, calls, and parts that cannot be read."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rapdarts.files.json import quote_value

MAX_DEPTH = 50
MAX_PARTS = 100_000
"""Maximum number of values in a tree; a list that is referenced several times counts each time."""
PLAIN = "only whole numbers and lists of pairs such as ('skip_connect', 0) are allowed here"
MISSING = object()


@dataclass(frozen=True, repr=False)
class Unread:
    """Part of a text that is not a plain value, and the reason, for messages. `former` is the value before a change."""

    node: ast.AST
    text: str
    reason: str = PLAIN
    former: Any = None

    @property
    def source(self) -> str:
        """The part as it is written in the text."""
        return ast.get_source_segment(self.text, self.node) or self.text

    @property
    def finding(self) -> str:
        """The source and the reason, for messages."""
        return f"found {quote_value(self.source)}; {self.reason}"

    def __repr__(self) -> str:
        return " ".join(self.source.split())


@dataclass(frozen=True, repr=False)
class Call:
    """A call in the text, such as `module.Genotype(...)`: its dotted name, and its positional and named arguments."""

    name: str
    arguments: tuple[Any, ...]
    fields: Mapping[str, Any]
    source: Unread = field(compare=False)

    def __repr__(self) -> str:
        return repr(self.source)


@dataclass(frozen=True)
class Named:
    """A value in a text, its name (empty: none), and its first and last line (0: unknown).

    `target` is the name that the statement assigns (empty: none); the name of a nested value begins with it.
    `conditional` marks a value in a branch or a loop, which may never be assigned.
    """

    name: str
    value: Any
    first: int = 0
    last: int = 0
    conditional: bool = False
    target: str = ""


def moderate(values: Sequence[Named]) -> list[Named]:
    """Return the values that are small and shallow enough to traverse; lists that refer to other lists can be huge or endless."""
    known: dict[int, tuple[float, float]] = {}

    def size_and_depth(value: Any) -> tuple[float, float]:
        if id(value) not in known:
            known[id(value)] = math.inf, math.inf  # while it is measured: a list may contain itself
            parts = [size_and_depth(part) for part in parts_of(value)]
            known[id(value)] = 1 + sum(size for size, _ in parts), 1 + max((depth for _, depth in parts), default=0)
        return known[id(value)]

    def fits(value: Any) -> bool:
        try:
            size, depth = size_and_depth(value)
        except RecursionError:
            return False
        return size <= MAX_PARTS and depth <= MAX_DEPTH

    return [one for one in values if fits(one.value)]


def parts_of(value: Any) -> Sequence[Any]:
    """Return the values directly inside a list, a dictionary or a call, and the former value of a changed value."""
    if isinstance(value, Unread):
        return [value.former]
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        return [*value.values()]
    return [*value.arguments, *value.fields.values()] if isinstance(value, Call) else []


def unread_in(value: Any) -> Unread | None:
    """Return the first part of a value that is not plain; a call is not plain either."""
    if isinstance(value, Unread):
        return value
    if isinstance(value, Call):
        return value.source
    return next(filter(None, map(unread_in, parts_of(value))), None)


def part_of(value: Any, key: str | int | None) -> Any:
    """Return the part of a value at a key, a field or an index; MISSING if there is none."""
    if isinstance(value, list) and type(key) is int and 0 <= key < len(value):
        return value[key]
    fields = value if isinstance(value, dict) else value.fields if isinstance(value, Call) else {}
    return fields.get(str(key), MISSING)

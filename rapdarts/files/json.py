"""Strict JSON: rejects repeated keys, NaN, very long numbers and deep nesting, and checks every field of a format.

`strict_loads` parses a text. `record` and the readers check its values against a format. A reader is a function
of `(value, where)`; `where` names the value in messages. It returns the value, converted if necessary, or raises InputError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from rapdarts.errors import InputError, shorten, suggestion

MAX_DEPTH = 50
MAX_DIGITS = 18

ValueReader = Callable[[Any, str], Any]

TOKEN = re.compile(r'(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")(?P<colon>\s*:)?|(?P<bracket>[\[\]{}])|(?P<word>[-+.\w]+)')


class Fault(ValueError):
    """An error in a JSON text, with line and column; the caller adds the file name and the remedy.

    `kind` is `syntax`, `depth`, `key` (a repeated key) or `number`; `found` is the text at that position.
    """

    def __init__(self, text: str, at: int, kind: str, problem: str, found: str = "") -> None:
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        super().__init__(f"line {line}, column {column}: {problem}")
        self.kind, self.problem, self.found = kind, problem, found


def strict_loads(text: str, infinite: bool = False) -> Any:
    """Return the values of a JSON text; with `infinite`, numbers too large for a float become infinity, which a range check can reject.

    Raises Fault for invalid JSON, and for repeated keys, NaN, very long numbers and deep nesting, which Python's parser accepts.
    """
    try:
        # Truncated numbers are never returned: the loop over the tokens rejects long ones.
        tree = json.loads(text, parse_int=lambda digits: int(digits[: MAX_DIGITS + 2]))
    except json.JSONDecodeError as error:
        raise Fault(text, error.pos, "syntax", f"not JSON: {error.msg}") from None
    except RecursionError:
        tree = None

    # The text that was parsed is valid JSON, so its tokens need no further checks.
    keys: list[set[str]] = []  # the keys of every object that is still open; none for a list
    for token in TOKEN.finditer(text):
        word = token["word"] or ""
        if token["bracket"] in ("{", "["):
            keys.append(set())
            if len(keys) > MAX_DEPTH:
                raise Fault(text, token.start(), "depth", f"values are nested deeper than {MAX_DEPTH} levels")
        elif token["bracket"]:
            keys.pop()
        elif token["colon"]:
            key = json.loads(token["text"])
            if key in keys[-1]:
                raise Fault(text, token.start(), "key", f"the key {quote_value(key)} is repeated in one object", key)
            keys[-1].add(key)
        elif problem := _number_problem(word, infinite):
            raise Fault(text, token.start(), "number", problem, word)
    return tree


def _number_problem(word: str, infinite: bool) -> str:
    """Return the reason why a token outside strings is rejected, or an empty string."""
    digits = word.lstrip("-")
    if digits in ("NaN", "Infinity"):
        return f"{word} is not a finite number"
    if digits.isdigit():
        return f"the number has more than {MAX_DIGITS} digits" if len(digits) > MAX_DIGITS else ""
    endless = digits[:1].isdigit() and not infinite and not math.isfinite(float(word))
    return f"the number {quote_value(word)} is too large" if endless else ""


# --- readers -----------------------------------------------------------------------------------------------------


def reader(fits: Callable[[Any], bool], wanted: str) -> ValueReader:
    """Return a reader that accepts only the values that fit; its error message says what is `wanted`."""

    def read(value: Any, where: str) -> Any:
        if not fits(value):
            raise InputError(f"{where} must be {wanted}, not {quote_value(value)}.")
        return value

    return read


as_object = reader(lambda value: isinstance(value, dict), "an object {...}")
as_list = reader(lambda value: isinstance(value, list), "a list")


def number(low: float, high: float, *, whole: bool = False, above: bool = False) -> ValueReader:
    """Return a reader of numbers from `low` to `high`; with `above`, `low` is excluded."""
    kinds = (int,) if whole else (int, float)  # but not bool, which is a subclass of int
    bounds = f"above {low:g}, up to {high:g}" if above else f"from {low:g} to {high:g}"
    return reader(
        lambda value: type(value) in kinds and low <= value <= high and not (above and value == low),
        f"{'a whole number' if whole else 'a number'} {bounds}",
    )


def record(
    tree: Any,
    where: str,
    required: Mapping[str, ValueReader | None],
    optional: Mapping[str, ValueReader | None] | None = None,
) -> dict[str, Any]:
    """Read the fields of an object with their readers, and return them in the readers' order; a reader that is None accepts any value.

    Raises InputError for an unknown field (naming the nearest), a missing field, or a value that its reader rejects.
    """
    readers = {**required, **(optional or {})}
    for name in as_object(tree, where):
        if name not in readers:
            raise InputError(f"{where}: there is no field {quote_value(name)}; {suggestion(name, readers)}.")
    for name in required:
        if name not in tree:
            raise InputError(f"{where}: the field {name} is missing.")
    present = {name: read for name, read in readers.items() if name in tree}
    return {name: read(tree[name], f"{where}: {name}") if read else tree[name] for name, read in present.items()}


# --- values ------------------------------------------------------------------------------------------------------


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value is an int and not a bool."""
    return type(value) is int


def quote_value(value: Any) -> str:
    """Format a value for a message, short and on one line."""
    return shorten(repr(value))


def dump(value: Any, indent: str = "") -> str:
    """Return JSON with a line for each entry of an object, or of a list nested at least three levels deep; other values take one line.

    Raises ValueError for NaN or infinity.
    """
    inner = indent + "  "
    if isinstance(value, Mapping) and value:
        rows = [f"{json.dumps(str(key))}: {dump(item, inner)}" for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and _depth(value) > 2:
        rows = [dump(item, inner) for item in value]
    else:
        return json.dumps(value, allow_nan=False)
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    return opening + "\n" + ",\n".join(inner + row for row in rows) + "\n" + indent + closing


def _depth(value: Any) -> int:
    """Return the depth to which lists are nested."""
    return 1 + max(map(_depth, value), default=0) if isinstance(value, (list, tuple)) else 0

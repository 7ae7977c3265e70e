"""JSON, read strictly and written to be read: what Python's own reader lets pass is refused, and every field is checked.

`load` gives the values of a text; `record` and the readers check that they are what a format asks for. A reader is a
function of a value and of what messages call it: it gives the value back, or what it makes of it, or raises InputError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from rapdarts.errors import InputError, shorten, suggestion

MAX_DEPTH = 50
MAX_DIGITS = 18

Reader = Callable[[Any, str], Any]

TOKEN = re.compile(r'(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")(?P<colon>\s*:)?|(?P<bracket>[\[\]{}])|(?P<word>[-+.\w]+)')


class Fault(ValueError):
    """Why a text is not plain JSON, with line and column; its reader says of which file, and what to do about it.

    `kind` is `syntax`, `depth`, `key` (one that stands twice) or `number`; `found` is what stands at that place.
    """

    def __init__(self, text: str, at: int, kind: str, problem: str, found: str = "") -> None:
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        super().__init__(f"line {line}, column {column}: {problem}")
        self.kind, self.problem, self.found = kind, problem, found


def strict_loads(text: str, infinite: bool = False) -> Any:
    """The values of a JSON text; `infinite` lets numbers too large for a float pass as infinity, for a range to refuse.

    Raises Fault, also where Python's own reader is lenient: for repeated keys, NaN, and numbers or depths without end.
    """
    try:
        # A cut number never gets out of here: the walk over the tokens refuses a long one.
        tree = json.loads(text, parse_int=lambda digits: int(digits[: MAX_DIGITS + 2]))
    except json.JSONDecodeError as error:
        raise Fault(text, error.pos, "syntax", f"not JSON: {error.msg}") from None
    except RecursionError:
        tree = None

    # From here on the text is JSON as far as it was read, so that its tokens need no further checking.
    keys: list[set[str]] = []  # of every object (or list) that is still open
    for token in TOKEN.finditer(text):
        word = token["word"] or ""
        if token["bracket"] in ("{", "["):
            keys.append(set())
            if len(keys) > MAX_DEPTH:
                raise Fault(text, token.start(), "depth", f"nested deeper than {MAX_DEPTH} levels")
        elif token["bracket"]:
            keys.pop()
        elif token["colon"]:
            key = json.loads(token["text"])
            if key in keys[-1]:
                raise Fault(text, token.start(), "key", f"the key {show(key)} stands twice in one object", key)
            keys[-1].add(key)
        elif problem := _number_problem(word, infinite):
            raise Fault(text, token.start(), "number", problem, word)
    return tree


def _number_problem(word: str, infinite: bool) -> str:
    """Why a word outside of texts is refused, or nothing."""
    digits = word.lstrip("-")
    if digits in ("NaN", "Infinity"):
        return f"{word} is not a finite number"
    if digits.isdigit():
        return f"a whole number of more than {MAX_DIGITS} digits" if len(digits) > MAX_DIGITS else ""
    endless = digits[:1].isdigit() and not infinite and not math.isfinite(float(word))
    return f"{show(word)} is too large a number" if endless else ""


# --- readers -----------------------------------------------------------------------------------------------------


def reader(fits: Callable[[Any], bool], wanted: str) -> Reader:
    """A reader of the values that fit; a message says that others must be what is wanted."""

    def read(value: Any, where: str) -> Any:
        if not fits(value):
            raise InputError(f"{where} must be {wanted}, not {show(value)}.")
        return value

    return read


as_object = reader(lambda value: isinstance(value, dict), "an object {...}")
as_list = reader(lambda value: isinstance(value, list), "a list")


def number(low: float, high: float, *, whole: bool = False, above: bool = False) -> Reader:
    """A reader of numbers from `low` (or `above` it) to `high`."""
    kinds = (int,) if whole else (int, float)  # to Python True is an int as well
    bounds = f"above {low:g}, up to {high:g}" if above else f"from {low:g} to {high:g}"
    return reader(
        lambda value: type(value) in kinds and low <= value <= high and not (above and value == low),
        f"{'a whole number' if whole else 'a number'} {bounds}",
    )


def record(
    tree: Any, where: str, required: Mapping[str, Reader | None], optional: Mapping[str, Reader | None] | None = None
) -> dict[str, Any]:
    """The fields of an object, each by its reader and in the readers' order; None takes a value as it stands.

    Raises InputError for an unknown field (naming the nearest), a missing one, and as the readers do.
    """
    readers = {**required, **(optional or {})}
    for name in as_object(tree, where):
        if name not in readers:
            raise InputError(f"{where}: there is no field {show(name)}; {suggestion(name, readers)}.")
    for name in required:
        if name not in tree:
            raise InputError(f"{where}: the field {name} is missing.")
    present = {name: read for name, read in readers.items() if name in tree}
    return {name: read(tree[name], f"{where}: {name}") if read else tree[name] for name, read in present.items()}


# --- words -------------------------------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as a message quotes it: on one line, and short."""
    return shorten(repr(value))


def dump(value: Any, indent: str = "") -> str:
    """JSON with a line for every entry of an object and of a list of lists of lists; what is flatter takes one line.

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
    """How many lists stand within one another."""
    return 1 + max(map(_depth, value), default=0) if isinstance(value, (list, tuple)) else 0

"""Values in a text in Python syntax: the text is parsed, and calls and names are looked up in tables, never evaluated."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rapdarts.files.json import is_whole

MAX_CHARACTERS = 300_000
"""Longest text that is parsed as Python, which takes a few seconds at worst."""
MAX_DEPTH = 50
MAX_PARTS = 100_000
"""Largest number of values in a tree, counting repeated references to a list each time."""
MAX_RANGE = 1000

PLAIN = "only lists of pairs such as ('skip_connect', 0) and whole numbers are allowed here"


@dataclass(frozen=True, eq=False, repr=False)
class Unread:
    """Part of a text that is not a plain value, and the reason, for messages."""

    node: ast.AST
    text: str
    reason: str = PLAIN

    @property
    def source(self) -> str:
        """The part as it is written in the text."""
        return ast.get_source_segment(self.text, self.node) or self.text

    def __repr__(self) -> str:
        return " ".join(self.source.split())


@dataclass(frozen=True, repr=False)
class Call:
    """A call such as `module.Genotype(...)` that the text contains: its dotted name and its arguments, by position and by name."""

    name: str
    arguments: tuple[Any, ...]
    fields: Mapping[str, Any]
    source: Unread = field(compare=False)

    def __repr__(self) -> str:
        return repr(self.source)


@dataclass(frozen=True)
class Named:
    """A value in a text, the name it is assigned to (empty: none), and its first and last line (0: unknown).

    `conditional` marks a value in a branch or a loop, which may not be assigned at all.
    """

    name: str
    value: Any
    first: int = 0
    last: int = 0
    conditional: bool = False


def python_values(text: str) -> list[Named] | None:
    """Return the values of the statements in a text, in order; None if the text is not in Python syntax.

    A value is None, a truth value, a number, a string, a list (also for tuples), a dictionary, a Call, or Unread. A name
    stands for the value last assigned to it. Functions are left out.
    """
    if len(text) > MAX_CHARACTERS or "\0" in text:
        return None
    # Python would read leading blanks as indentation. Leading line breaks are kept so that line numbers stay correct.
    source = "\n" * text[: len(text) - len(text.lstrip())].count("\n") + text.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in strings cause warnings
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nesting too deep for the parser
        return None
    reader = _Reader(source)
    reader.run(body, "")
    return reader.found


def moderate(values: Sequence[Named]) -> list[Named]:
    """Return the values that are small and shallow enough to walk through; names of lists in lists may make them huge or endless."""
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
    """Return the values directly inside a list, a dictionary or a call; nothing for other values."""
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


class _Reader:
    """Reader of the statements of one text, which remembers the values of names and the fields of named tuples."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Named] = []
        self.names: dict[str, Any] = {}
        self.fields: dict[str, list[str]] = {}
        self.depth = 0  # of branches and loops

    def run(self, body: Sequence[ast.stmt], prefix: str) -> None:
        """Read statements in order, with those inside classes (their names begin with `prefix`) and conditions."""
        for statement in body:
            if isinstance(statement, ast.Assign):
                value = self.value(statement.value)
                for target in statement.targets:
                    self.assign(target, value, prefix, statement)
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                self.assign(statement.target, self.value(statement.value), prefix, statement)
            elif isinstance(statement, ast.Expr):
                self.add("", self.value(statement.value), statement)
            elif isinstance(statement, ast.ClassDef):
                order = [
                    part.target.id
                    for part in statement.body
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
                ]
                if any(_dotted(base).endswith("NamedTuple") for base in statement.bases):
                    self.fields[statement.name] = order
                self.run(statement.body, f"{prefix}{statement.name}.")
            elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self.depth += 1
                for part in ("body", "orelse", "finalbody"):
                    self.run(getattr(statement, part, []), prefix)
                self.depth -= 1

    def assign(self, target: ast.expr, value: Any, prefix: str, statement: ast.stmt) -> None:
        """Record an assignment to a name, an attribute, an item with a constant key, or a tuple of these."""
        if isinstance(target, ast.Tuple | ast.List):
            if isinstance(value, list) and len(value) == len(target.elts):
                for one, part in zip(target.elts, value, strict=True):
                    self.assign(one, part, prefix, statement)
            return
        name = _dotted(target)
        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            name = f"{_dotted(target.value)}.{target.slice.value!s}"
        if not prefix:
            self.names[name] = value
        if isinstance(value, Call) and value.name.rpartition(".")[2] in ("namedtuple", "NamedTuple"):
            self.fields |= dict.fromkeys((name, *map(str, value.arguments[:1])), _field_names(value))
        self.add(f"{prefix}{name}", value, statement)

    def add(self, name: str, value: Any, statement: ast.stmt) -> None:
        end = statement.end_lineno or statement.lineno
        self.found.append(Named(name, value, statement.lineno, end, conditional=self.depth > 0))

    def value(self, node: ast.AST, depth: int = 0) -> Any:
        """Return a plain value, a Call, or Unread for everything else."""
        if depth > MAX_DEPTH:
            return Unread(node, self.text, f"values may be nested {MAX_DEPTH} deep")
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item, depth + 1) for item in node.elts]
        if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (str, int, float, bool)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self.value(node.operand, depth + 1)
            return -number if type(number) in (int, float) else Unread(node, self.text)
        if isinstance(node, ast.Name) and node.id in self.names:
            return self.names[node.id]
        if isinstance(node, ast.Dict):
            return self.dictionary(node, depth)
        if isinstance(node, ast.Call) and _dotted(node.func):
            return self.call(node, depth)
        return Unread(node, self.text)

    def dictionary(self, node: ast.Dict, depth: int) -> Any:
        """Return a dictionary; its keys, names or numbers, must be unique."""
        tree: dict[str, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            name = str(key.value) if isinstance(key, ast.Constant) and type(key.value) in (str, int) else None
            if name is None or name in tree:
                return Unread(
                    key or node, self.text, "every key of a dictionary must be a name or a number and occur once"
                )
            tree[name] = self.value(value, depth + 1)
        return tree

    def call(self, node: ast.Call, depth: int) -> Any:
        """Return the value of a call that only makes a list, a dictionary or a number, else the Call."""
        name = _dotted(node.func)
        arguments = [self.value(item, depth + 1) for item in node.args]
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in named:
                return Unread(keyword, self.text, f"each field of {name}(...) must be named once")
            named[keyword.arg] = self.value(keyword.value, depth + 1)
        last = name.rpartition(".")[2]
        for pattern, made in MAKERS:
            if pattern.fullmatch(last):
                value = made(arguments, named)
                return Unread(node, self.text) if value is FAILED else value
        known = self.fields.get(last, [])[: len(arguments)]
        if not named.keys() & set(known):
            named = dict(zip(known, arguments, strict=False)) | named
            arguments = arguments[len(known) :]
        return Call(name, tuple(arguments), named, Unread(node, self.text))


def _dotted(node: ast.AST) -> str:
    """Return a name with dots, such as np.int64; empty for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    home = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{home}.{node.attr}" if home and isinstance(node, ast.Attribute) else ""


def _field_names(made: Call) -> list[str]:
    """Return the fields of namedtuple("Genotype", "normal normal_concat ...") or NamedTuple("Genotype", [("normal", list), ...])."""
    given = made.arguments[1] if len(made.arguments) > 1 else made.fields.get("field_names")
    if isinstance(given, str):
        return given.replace(",", " ").split()
    return [one[0] if isinstance(one, list) and one else one for one in given] if isinstance(given, list) else []


# --- calls that only make a value --------------------------------------------------------------------------------

FAILED = object()


def _range(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    bounded = all(is_whole(number) and abs(number) <= MAX_RANGE for number in arguments)
    fits = bounded and 1 <= len(arguments) <= 3 and arguments[2:] != [0] and not named
    return list(range(*arguments)) if fits else FAILED


def _sequence(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else FAILED if arguments else []


def _number(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    return arguments[0] if len(arguments) == 1 and type(arguments[0]) in (int, float) else FAILED


def _text(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], str) else FAILED


def _array(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    """Return the values of an array or a tensor; its dtype and its device say nothing about them."""
    return arguments[0] if arguments and isinstance(arguments[0], list | int | float) else FAILED


def _mapping(arguments: list[Any], named: Mapping[str, Any]) -> Any:
    pairs = arguments[0] if arguments else []
    if isinstance(pairs, dict):
        return pairs | dict(named)
    if not (isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)):
        return FAILED
    keys = [key for key, _ in pairs]
    unique = all(isinstance(key, str) for key in keys) and len({*keys, *named}) == len(keys) + len(named)
    return {**dict(pairs), **named} if unique else FAILED


MAKERS: Sequence[tuple[re.Pattern[str], Callable[[list[Any], Mapping[str, Any]], Any]]] = (
    (re.compile("range|arange"), _range),
    (re.compile("list|tuple"), _sequence),
    (re.compile("u?int(8|16|32|64)?|int_|intp|float(16|32|64)?"), _number),
    (re.compile("str|str_"), _text),
    (re.compile("array|asarray|tensor|as_tensor"), _array),
    (re.compile("dict|OrderedDict"), _mapping),
)
"""Calls by the last part of their names, each with the function that returns its value, or FAILED."""

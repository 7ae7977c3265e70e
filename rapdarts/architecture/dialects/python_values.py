"""Values in Python source. The source is parsed, never executed; calls and names are looked up in tables."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any

from rapdarts.architecture.dialects.changes import (
    VIEWS,
    Change,
    Extent,
    blocks,
    changes,
    effects_of_functions,
    names_bound,
    own_nodes,
)
from rapdarts.architecture.dialects.makers import FAILED, MAKERS, set_of
from rapdarts.architecture.dialects.values import (
    MAX_DEPTH,
    MISSING,
    Call,
    Named,
    Unread,
    part_of,
    spoil,
    spoil_part,
)

MAX_CHARACTERS = 300_000
"""Maximum length of a text that is parsed as Python; parsing takes a few seconds at worst."""
MAX_JOINED = 200
"""Maximum length of a sum of lists, and maximum number of fields of a named tuple in a call of `_replace`."""
WAY_OUT = "print the genotype and pass the output, or select another"


def python_values(text: str) -> list[Named] | None:
    """Return the values of the statements in a text, in order; None if the text is not in Python syntax.

    A value is None, a bool, a number, a string, a list (also for tuples), a dictionary, a Call, or Unread. A name
    stands for the value last assigned to it. Functions are skipped. If anything other than an assignment to its name
    may change a value, anywhere in the text, the value or its parts become Unread.
    """
    if len(text) > MAX_CHARACTERS or "\0" in text:
        return None
    # Python would read leading blanks as indentation. Leading line breaks are kept so that line numbers stay correct.
    source = "\n" * text[: len(text) - len(text.lstrip())].count("\n") + text.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in strings cause warnings
            module = ast.parse(source)
        reader = _Reader(source, module)
        reader.run(module.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return None
    return reader.found


class _Reader:
    """Reader of the statements of one text, which remembers the values of names and the fields of named tuples.

    Values that Python shares between names are shared here too, so that a change through one name affects all of them.
    """

    def __init__(self, text: str, module: ast.Module) -> None:
        self.text = text
        self.found: list[Named] = []
        self.names: dict[str, Any] = {}
        self.parts: dict[
            str, list[str]
        ] = {}  # the names of attributes and items that are assigned, by the name before the last dot
        self.before: list[tuple[str, Any]] = []  # names in the order in which they were bound, with their former values
        self.fields: dict[str, list[str]] = {}
        self.functions = effects_of_functions(module)
        self.prefix = ""  # the classes around a statement
        self.depth = 0  # nesting depth of branches and loops

    def run(self, body: Sequence[ast.stmt]) -> None:
        """Read statements in order, including those in classes (names there begin with `prefix`) and in branches."""
        for statement in body:
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                value = MISSING if statement.value is None else self.value(statement.value)
                self.change(statement)
                for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                    if value is not MISSING:
                        self.assign(target, value, statement)
                continue
            if isinstance(statement, ast.Expr):
                self.add("", self.value(statement.value), statement)
            self.change(statement)
            for name in names_bound(own_nodes(statement)):
                self.rebind(f"{self.prefix}{name}", statement)
            if isinstance(statement, ast.ClassDef):
                self.run_class(statement)
            elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self.run_blocks(statement)

    def run_class(self, statement: ast.ClassDef) -> None:
        if any(_dotted(base).endswith("NamedTuple") for base in statement.bases):
            parts = [part.target for part in statement.body if isinstance(part, ast.AnnAssign)]
            self.fields[statement.name] = [part.id for part in parts if isinstance(part, ast.Name)]
        around, self.prefix = self.prefix, f"{self.prefix}{statement.name}."
        self.run(statement.body)
        self.prefix = around

    def run_blocks(self, statement: ast.stmt) -> None:
        """Read the branches of a statement; a name that one of them rebinds has no known value afterwards."""
        self.depth += 1
        if isinstance(statement, ast.For | ast.AsyncFor | ast.While):
            for name in names_bound(ast.walk(statement)):
                self.rebind(f"{self.prefix}{name}", statement, listed=False)
        for block in blocks(statement):
            mark = len(self.before)
            self.run(block)
            for name, value in self.before[mark:]:
                if value is not MISSING and self.names.get(name) is not value:
                    self.names[name] = self.unknown(statement, f"assign another value to {name}", value)
        self.depth -= 1

    def assign(self, target: ast.expr, value: Any, statement: ast.stmt) -> None:
        """Record an assignment to a name, an attribute, an item with a constant key, or a tuple of these."""
        if isinstance(target, ast.Tuple | ast.List):
            if isinstance(value, list) and len(value) == len(target.elts):
                for one, part in zip(target.elts, value, strict=True):
                    self.assign(one, part, statement)
                return
            for name in names_bound(own_nodes(target)):
                self.rebind(f"{self.prefix}{name}", statement)
            return
        name = _target(target)
        self.bind(f"{self.prefix}{name}", value)
        if isinstance(value, Call) and value.name.rpartition(".")[2] in ("namedtuple", "NamedTuple"):
            self.fields |= dict.fromkeys((name, *map(str, value.arguments[:1])), _field_names(value))
        self.add(f"{self.prefix}{name}", value, statement)
        for change, node in self.functions.changed.get(name, []):
            self.spoil(change, node)
        if name in self.functions.rebound:
            self.rebind(name, self.functions.rebound[name])

    def bind(self, name: str, value: Any) -> None:
        for part in self.parts.pop(name, ()):
            self.names.pop(part, None)
        if "." in name:
            self.parts.setdefault(name.rpartition(".")[0], []).append(name)
        self.before.append((name, self.names.get(name, MISSING)))
        self.names[name] = value

    def rebind(self, name: str, statement: ast.AST, listed: bool = True) -> None:
        """Forget the value of a name that a statement other than a plain assignment binds."""
        within = self.wholes(statement.iter) if isinstance(statement, ast.For | ast.AsyncFor) else ()
        former = self.names.get(name, MISSING)
        if within or former is not MISSING:
            value = self.unknown(
                statement, f"assign another value to {name}", None if former is MISSING else former, within
            )
            self.bind(name, value)
            if listed and former is not MISSING:
                self.add(name, self.names[name], statement)

    def unknown(self, node: ast.AST, effect: str, former: Any, within: tuple[Any, ...] = ()) -> Unread:
        reason = f"line {getattr(node, 'lineno', 0)} may {effect}; {WAY_OUT}"
        return Unread(node, self.text, reason, former.former if isinstance(former, Unread) else former, within)

    def add(self, name: str, value: Any, statement: ast.AST) -> None:
        line = getattr(statement, "lineno", 0)
        end = getattr(statement, "end_lineno", None) or line
        self.found.append(Named(name, value, line, end, self.depth > 0, target=name))

    # --- changes in place ---

    def change(self, statement: ast.stmt) -> None:
        """Forget the values that a statement may change in place."""
        for node in own_nodes(statement):
            for change in changes(node, self.functions):
                self.spoil(change, statement)

    def spoil(self, change: Change, node: ast.AST) -> None:
        """Make the value of an expression, or the parts of it that may change, Unread wherever it is used."""
        expression, extent = change
        inside = Extent.ANY if extent is Extent.ITEM else Extent.INSIDE
        name, listed = self.known(expression), not isinstance(node, ast.Assign | ast.AnnAssign)
        if name and extent is Extent.ITEM:
            self.rebind(name, node, listed)
        for part in self.parts.pop(name, ()):
            self.rebind(part, node, listed)
        self.parts.pop(name, None)  # forget them only once

        def spoiled(former: Any) -> Unread:
            return self.unknown(node, "change this value", former)

        if extent is Extent.ITEM and isinstance(expression, ast.Attribute | ast.Subscript):
            key = _key(expression)
            expression, extent = expression.value, Extent.PLAIN
            if spoil_part(self.resolve(expression), key, spoiled):
                return
        value = self.resolve(expression)
        if value is not MISSING:
            spoil(value, inside if isinstance(value, Unread) else extent, spoiled)
        else:
            for whole in self.wholes(expression):
                spoil(whole, inside, spoiled)

    def known(self, node: ast.AST) -> str:
        """Return the name under which the value of an expression is known; empty if there is none."""
        name = _target(node)
        return next((known for known in (f"{self.prefix}{name}", name) if name and known in self.names), "")

    def resolve(self, node: ast.AST) -> Any:
        """Return the known value of a name, an attribute or an item; MISSING for every other expression."""
        if known := self.known(node):
            return self.names[known]
        if isinstance(node, ast.Attribute | ast.Subscript):
            return part_of(self.resolve(node.value), _key(node))
        return MISSING

    def wholes(self, node: ast.AST) -> tuple[Any, ...]:
        """Return the known values that may contain the value of an expression."""
        stack, found = [node], dict[int, Any]()
        while stack:
            one = stack.pop()
            value = self.resolve(one)
            if value is not MISSING:
                wholes = value.within if isinstance(value, Unread) else (value,)
                found |= {id(whole): whole for whole in wholes}
            elif isinstance(one, ast.Subscript) and isinstance(one.slice, ast.Slice):
                continue  # a copy
            elif isinstance(one, ast.Attribute | ast.Subscript | ast.Starred | ast.NamedExpr):
                stack.append(one.value)
            elif isinstance(one, ast.IfExp | ast.BoolOp | ast.List | ast.Tuple):
                stack += ast.iter_child_nodes(one)
            elif isinstance(one, ast.Call) and _dotted(one.func).rpartition(".")[2] in VIEWS:
                stack += [one.func, *one.args]
        return tuple(found.values())

    def value(self, node: ast.AST, depth: int = 0) -> Any:
        """Return a plain value, a Call, or Unread for everything else."""
        if depth > MAX_DEPTH:
            return Unread(node, self.text, f"values can be nested at most {MAX_DEPTH} levels deep")
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item, depth + 1) for item in node.elts]
        if isinstance(node, ast.Set):
            numbers = set_of([self.value(item, depth + 1) for item in node.elts])
            return Unread(node, self.text) if numbers is FAILED else numbers
        if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (str, int, float, bool)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self.value(node.operand, depth + 1)
            return -number if type(number) in (int, float) else Unread(node, self.text)
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            value = self.resolve(node)
            return Unread(node, self.text, within=self.wholes(node)) if value is MISSING else value
        if isinstance(node, ast.Dict):
            return self.dictionary(node, depth)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.value(node.left, depth + 1), self.value(node.right, depth + 1)
            joined = isinstance(left, list) and isinstance(right, list) and len(left) + len(right) <= MAX_JOINED
            return left + right if joined else Unread(node, self.text)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_replace":
            former = self.value(node.func.value, depth + 1)
            if isinstance(former, Call) and not former.arguments and len(former.fields) <= MAX_JOINED:
                return self.replaced(former, node, depth)
        if isinstance(node, ast.Call) and _dotted(node.func):
            return self.call(node, depth)
        return Unread(node, self.text)

    def replaced(self, former: Call, node: ast.Call, depth: int) -> Call:
        """Return a named tuple with some fields replaced, as `_replace` does; an unpacked `**` argument may replace any field."""
        fields = dict(former.fields)
        for keyword in node.keywords:
            if keyword.arg is None:
                fields |= dict.fromkeys(fields, Unread(keyword, self.text))
            else:
                fields[keyword.arg] = self.value(keyword.value, depth + 1)
        return Call(former.name, (), fields, Unread(node, self.text))

    def dictionary(self, node: ast.Dict, depth: int) -> Any:
        """Return a dictionary. Its keys must be unique names or numbers."""
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
        """Return the value of a call that only creates a list, a dictionary, a number or a string, else the Call."""
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
    """Return a dotted name, such as np.int64; empty for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    home = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{home}.{node.attr}" if home and isinstance(node, ast.Attribute) else ""


def _key(node: ast.Attribute | ast.Subscript) -> str | int | None:
    """Return the attribute, or the constant key or index, that an expression names; None for a computed one."""
    if isinstance(node, ast.Attribute):
        return node.attr
    key = node.slice.value if isinstance(node.slice, ast.Constant) else None
    return key if isinstance(key, str | int) and not isinstance(key, bool) else None


def _target(node: ast.AST) -> str:
    """Return the name of an assignment target: a dotted name, possibly with a constant key; empty for any other expression."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        if isinstance(node.value, ast.Call) and _dotted(node.value.func) == "globals":
            return str(node.slice.value)
        return f"{_dotted(node.value)}.{node.slice.value!s}"
    return _dotted(node)


def _field_names(made: Call) -> list[str]:
    """Return the fields of namedtuple("Genotype", "normal normal_concat ...") or NamedTuple("Genotype", [("normal", list), ...])."""
    given = made.arguments[1] if len(made.arguments) > 1 else made.fields.get("field_names")
    if isinstance(given, str):
        return given.replace(",", " ").split()
    return [one[0] if isinstance(one, list) and one else one for one in given] if isinstance(given, list) else []

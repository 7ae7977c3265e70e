"""Values in Python source. The source is parsed, never executed; calls and names are looked up in tables."""

from __future__ import annotations

import ast
import warnings
from typing import Any

from rapdarts.architecture.dialects.changes import Changes, last_name, statements, targets
from rapdarts.architecture.dialects.makers import FAILED, MAKERS, set_of
from rapdarts.architecture.dialects.values import MAX_DEPTH, MISSING, Call, Named, Unread, part_of

MAX_CHARACTERS = 300_000
"""Maximum length of a text that is parsed as Python; parsing takes a few seconds at worst."""
MAX_JOINED = 200
"""Maximum length of a sum of lists, and maximum number of fields of a named tuple in a call of `_replace`."""
WAY_OUT = "print the genotype and pass the output, or select another"


def python_values(text: str) -> list[Named] | None:
    """Return the values of the statements in a text, in order; None if the text is not in Python syntax.

    A value is None, a bool, a number, a string, a list (also for tuples), a dictionary, a Call, or Unread. A name
    stands for the value last assigned to it. Functions are skipped. If anything other than an assignment to its name
    may change a value, anywhere in the text, the value is Unread.
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
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return None
    return reader.found


class _Reader:
    """Reader of the statements of one text, which remembers the values of names and the fields of named tuples."""

    def __init__(self, text: str, module: ast.Module) -> None:
        self.text = text
        self.found: list[Named] = []
        self.names: dict[str, Any] = {}
        self.fields: dict[str, list[str]] = {}
        self.changes = Changes(module)
        # In classes, names begin with `prefix`.
        for statement, self.prefix, branch in statements(module.body):
            if isinstance(statement, ast.Expr):
                self.add("", self.value(statement.value), statement, branch)
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                value = self.value(statement.value)
                for target in targets(statement):
                    self.assign(target, value, statement, branch)
            elif isinstance(statement, ast.ClassDef) and "NamedTuple" in map(last_name, statement.bases):
                parts = [part.target for part in statement.body if isinstance(part, ast.AnnAssign)]
                self.fields[statement.name] = [part.id for part in parts if isinstance(part, ast.Name)]

    def assign(self, target: ast.expr, value: Any, statement: ast.stmt, branch: bool) -> None:
        """Record an assignment to a name, an attribute, an item with a constant key, or a tuple of these."""
        if isinstance(target, ast.Tuple | ast.List):
            known = isinstance(value, list) and len(value) == len(target.elts)
            for number, one in enumerate(target.elts):
                part = value[number] if known and not isinstance(one, ast.Starred) else Unread(statement, self.text)
                self.assign(one, part, statement, branch)
            return
        name = f"{self.prefix}{_target(target)}"
        if isinstance(value, Call) and value.name.rpartition(".")[2] in ("namedtuple", "NamedTuple"):
            self.fields |= dict.fromkeys((name, *map(str, value.arguments[:1])), _field_names(value))
        if change := self.changes.of(target, self.prefix, statement):
            value = Unread(change, self.text, f"line {change.lineno} may change this value; {WAY_OUT}", value)
        self.add(name, value, statement, branch)
        if isinstance(target, ast.Name):
            # A name that a branch assigns again may stand for either value.
            self.names[name] = Unread(statement, self.text) if branch and name in self.names else value

    def add(self, name: str, value: Any, statement: ast.stmt, branch: bool) -> None:
        end = statement.end_lineno or statement.lineno
        self.found.append(Named(name, value, statement.lineno, end, branch, target=name))

    def resolve(self, node: ast.AST) -> Any:
        """Return the known value of a name, an attribute or an item; MISSING for every other expression."""
        name = _dotted(node)
        for known in (f"{self.prefix}{name}", name):
            if name and known in self.names:
                return self.names[known]
        if isinstance(node, ast.Attribute | ast.Subscript):
            return part_of(self.resolve(node.value), _key(node))
        return MISSING

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
            return Unread(node, self.text) if value is MISSING else value
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
        return f"{_dotted(node.value)}.{node.slice.value!s}"
    return _dotted(node)


def _field_names(made: Call) -> list[str]:
    """Return the fields of namedtuple("Genotype", "normal normal_concat ...") or NamedTuple("Genotype", [("normal", list), ...])."""
    given = made.arguments[1] if len(made.arguments) > 1 else made.fields.get("field_names")
    if isinstance(given, str):
        return given.replace(",", " ").split()
    return [one[0] if isinstance(one, list) and one else one for one in given] if isinstance(given, list) else []

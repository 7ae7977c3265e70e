"""Detection of changes to values in Python source, other than plain assignments to names, from its syntax tree."""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

Function = ast.FunctionDef | ast.AsyncFunctionDef
SETTERS = ("setattr", "delattr", "__setattr__", "__delattr__")
READING_METHODS = frozenset(("copy", "count", "index", "get", "items", "keys", "values", "_asdict", "_replace"))
"""Methods of lists, dictionaries and named tuples that change nothing."""
READING_FUNCTIONS = re.compile(
    "(p?print|plot|draw|show|display|visuali[sz]e|log|info|debug|warning|error|save|dump|write|check|assert|validate)\\w*"
    "|[A-Z]\\w*"  # classes
)
"""Pattern for functions that, like Python's built-in ones, are assumed not to change their arguments."""
VIEWS = frozenset(("enumerate", "zip", "reversed", "iter", "items", "values", "get"))
"""Functions and methods that return parts of their arguments without copying them."""


MAX_CHANGES = 50
"""Maximum number of changes to a name inside functions that are tracked individually."""


class Extent(Enum):
    """Part of a value that changes."""

    ITEM = "the item or attribute that the expression names"
    PLAIN = "a list or a dictionary, but not a named tuple, which has no methods that change it"
    INSIDE = "a list or a dictionary, and the lists and dictionaries inside it"
    ANY = "a value of any kind, and everything inside it"


Change = tuple[ast.expr, Extent]


@dataclass
class Functions:
    """Effects of the functions in a text: on outer names (`rebound`, `changed`) and on arguments (`changing`, by function)."""

    rebound: dict[str, ast.stmt] = field(default_factory=dict)
    changed: defaultdict[str, list[tuple[Change, ast.AST]]] = field(default_factory=lambda: defaultdict(list))
    changing: dict[str, bool] = field(default_factory=dict)


def own_nodes(statement: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, except nested statements and the variables of comprehensions."""
    stack = [statement]
    while stack:
        node = stack.pop()
        yield node
        parts: list[ast.AST] = [*ast.iter_child_nodes(node)]
        if isinstance(node, ast.comprehension):
            parts = [node.iter, *node.ifs]
        stack += [part for part in reversed(parts) if not isinstance(part, ast.stmt)]


def blocks(statement: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield the lists of statements directly inside a statement, including those of handlers and cases."""
    for _, part in ast.iter_fields(statement):
        if isinstance(part, list) and part and isinstance(part[0], ast.stmt):
            yield part
        elif isinstance(part, list):
            for one in part:
                if isinstance(one, ast.ExceptHandler | ast.match_case):
                    yield one.body


def names_bound(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the names that nodes bind or delete: as targets, in patterns, by import, or by a definition."""
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar | Function | ast.ClassDef):
            yield node.name or ""


def changes(node: ast.AST, functions: Functions) -> Iterator[Change]:
    """Yield the expressions whose values a node may change in place, and the extent of each change."""
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        yield node, Extent.ITEM
    elif isinstance(node, ast.AugAssign):
        yield node.target, Extent.PLAIN
    elif isinstance(node, ast.Call):
        name = _last_name(node.func)
        if name in SETTERS:
            yield from ((argument, Extent.ANY) for argument in node.args[:1])
        elif functions.changing.get(name):
            yield from ((argument, Extent.ANY) for argument in _arguments(node))
        if isinstance(node.func, ast.Attribute) and name not in READING_METHODS:
            yield node.func.value, Extent.PLAIN
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        # A function whose result is not used is called for its effect, such as random.shuffle(edges).
        name = _last_name(node.value.func)
        if not (name in functions.changing or hasattr(builtins, name) or READING_FUNCTIONS.fullmatch(name)):
            yield from ((argument, Extent.INSIDE) for argument in _arguments(node.value))


def effects_of_functions(module: ast.Module) -> Functions:
    """Return the effects of a module's functions on outer names and on their arguments, whether or not they are called."""
    effects = Functions()
    found = [node for node in ast.walk(module) if isinstance(node, Function)]
    effects.changing = dict.fromkeys((function.name for function in found), False)
    stack: list[tuple[ast.AST, frozenset[str]]] = [(node, frozenset()) for node in module.body]
    while stack:
        node, outer = stack.pop()
        if not isinstance(node, Function):
            stack += [(part, outer) for part in ast.iter_child_nodes(node)]
            continue
        inside = [*_inside(node)]
        shared = {name for part in inside if isinstance(part, ast.Global) for name in part.names}
        given = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
        local = (outer | given | {*names_bound(iter(inside))}) - shared
        for part in inside:
            if isinstance(part, ast.stmt):
                effects.rebound |= dict.fromkeys(shared.intersection(names_bound(own_nodes(part))), part)
            for expression, extent in changes(part, effects):
                root = _root(expression)
                if root in given:
                    effects.changing[node.name] = True
                elif root and root not in local:
                    some = effects.changed[root]
                    some.append(((expression, extent), part))
                    if len(some) > MAX_CHANGES:  # too many to track individually
                        some[:] = [((ast.Name(root), Extent.ANY), part)]
        stack += [(part, local) for part in inside if isinstance(part, Function)]
    return effects


def _inside(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body; nested functions are yielded without their bodies."""
    stack: list[ast.AST] = [*function.body]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, Function):
            stack += [*ast.iter_child_nodes(node)]


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _last_name(node: ast.AST) -> str:
    """Return the last part of a dotted name or the method of an expression; empty for other expressions."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _root(node: ast.AST) -> str:
    """Return the first name in a chain of attributes and items; empty for other expressions."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""

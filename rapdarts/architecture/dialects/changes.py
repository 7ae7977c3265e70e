"""Names in Python source whose values may change other than by plain assignments, found in its syntax tree."""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor | ast.While
Result = ast.Return | ast.Yield | ast.YieldFrom
CHANGING = re.compile(
    "append|clear|extend|insert|pop(item)?|remove|reverse|setdefault|sort|update|(set|del)attr|__(set|del)(item|attr)__|__i(add|mul|or)__"
)
"""Pattern for methods of lists and dictionaries that change them, and functions that change attributes."""
NAMESPACES = ("globals", "vars", "locals")
HARMLESS = re.compile(
    "(p?print|plot|draw|show|display|visuali[sz]e|log|info|debug|warning|error|save|dump|write|check|assert|validate)\\w*"
    "|copy|deepcopy|count|index|get|items|keys|values|_asdict|_replace|edge|node|render|cuda|to|train|load_state_dict"
    "|[A-Z]\\w*"  # classes
)
"""Pattern for functions and methods that, like Python's built-in functions, are assumed to change nothing."""


class Changes:
    """Names of a module whose values may change, each with a statement that may change it.

    The order of statements is ignored. Two names are linked if their values may share a list: if they occur in one
    assignment, loop or call, or if one is a function and the other its parameter or result. A change to the value of a
    name counts for all names that are linked with it, directly or through others.
    """

    def __init__(self, module: ast.Module) -> None:
        qualify(module)
        nodes = [*ast.walk(module)]
        self.functions = {node.name for node in nodes if isinstance(node, Function)}
        self.imported = {bound_name(node) for node in nodes if isinstance(node, ast.alias)}
        self.changed: dict[str, ast.stmt] = {}
        self.rebound: dict[str, ast.stmt] = {}  # the values of other names stay as they are
        self.stored: dict[str, ast.stmt] = {}  # names of which plain assignments set attributes and items
        self.links: defaultdict[str, set[str]] = defaultdict(set)
        self.calls: dict[ast.AST, str] = {}  # calls whose names are linked, each with one of the names
        assigned = [target for statement, *_ in statements(module.body) for target in targets(statement)]
        plain = {id(part) for target in assigned for part in ast.walk(target)}
        # An inner statement comes after, and thus replaces, those around it.
        around = {id(node): one for one in nodes if isinstance(one, ast.stmt) for node in ast.walk(one)}
        for node in reversed(nodes[1:]):  # inner nodes first
            self.read(node, around[id(node)], id(node) in plain)
        self.changed |= {name: statement for name, statement in self.stored.items() if self.links[name]}
        stack = [*self.changed]
        while stack:
            name = stack.pop()
            others = [other for other in self.links[name] if other not in self.changed]
            self.changed |= dict.fromkeys(others, self.changed[name])
            stack += others

    def of(self, target: ast.expr, prefix: str, statement: ast.stmt) -> ast.stmt | None:
        """Return a statement that may change what a plain assignment in the class `prefix` sets; None if there is none."""
        names = [*self.names_in(target)]
        around = [*names, *prefix.split("."), *NAMESPACES]
        found = [self.rebound.get(name) for name in names] + [self.changed.get(name) for name in around]
        if isinstance(target, ast.Name):
            found += [self.stored.get(name) for name in around]
        if "*" in self.rebound and self.rebound["*"].lineno > statement.lineno:  # from module import *
            found.append(self.rebound["*"])
        return next(filter(None, found), None)

    def read(self, node: ast.AST, statement: ast.stmt, plain: bool) -> None:
        """Record what a node of a statement binds, links and changes; `plain` marks targets of plain assignments."""
        loop = ast.walk(node) if isinstance(node, Loop) else ()
        for name in map(bound_name, (*loop, *([] if plain else [node]))):
            self.rebound.setdefault(name, statement)
        if hasattr(node, "target") or hasattr(node, "targets") or isinstance(node, ast.withitem | ast.Match):
            self.link(node)
        elif isinstance(node, Function):
            self.link(ast.Name(node.name), node.args, *(part for part in ast.walk(node) if isinstance(part, Result)))
        elif isinstance(node, ast.ClassDef):
            self.link(ast.Name(node.name), *(one for one, *_ in statements(node.body) if not isinstance(one, Function)))
        if isinstance(node, ast.AugAssign):
            self.change(node.target, statement)
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            constant = isinstance(node, ast.Attribute) or isinstance(node.slice, ast.Constant)
            if plain and constant and isinstance(node.value, ast.Name):
                self.stored[node.value.id] = statement
            else:
                self.change(node.value, statement)
        elif isinstance(node, ast.Attribute) and CHANGING.fullmatch(node.attr):
            self.change(node.value, statement)
        elif isinstance(node, ast.Call):
            name = last_name(node.func)
            if name in self.functions or not HARMLESS.fullmatch(name):
                self.calls[node] = self.link(node)
            # A function whose result is not used is called for its effect, such as random.shuffle(edges).
            unused = isinstance(statement, ast.Expr) and statement.value is node
            if CHANGING.fullmatch(name) or (unused and name not in self.functions and not is_harmless(name)):
                self.change(node, statement)

    def change(self, node: ast.AST, statement: ast.stmt) -> None:
        for name in self.names_in(node):
            self.changed[name] = statement

    def link(self, *nodes: ast.AST) -> str:
        names = {name for node in nodes for name in self.names_in(node)} - self.imported
        first = min(names, default="")
        for name in names - {first}:
            self.links[first].add(name)
            self.links[name].add(first)
        return first

    def names_in(self, node: ast.AST) -> Iterator[str]:
        """Yield the names in an expression whose values may share lists with it; the names in a linked call count once."""
        stack = [node]
        while stack:
            node = stack.pop()
            parts = [*ast.iter_child_nodes(node)]
            name = node.id if isinstance(node, ast.Name) else bound_name(node)
            if name := self.calls.get(node, name):
                yield name
            if node in self.calls:
                parts = []
            elif isinstance(node, ast.Subscript):
                parts = [node.value]
            elif isinstance(node, ast.Call):
                called = last_name(node.func)
                if called in self.functions:
                    yield called
                elif isinstance(node.func, ast.Name) and is_harmless(called):
                    parts.remove(node.func)
                if called in ("format", "len", "repr", "str"):
                    parts = []
            stack += [part for part in parts if not isinstance(part, ast.stmt)]


def statements(body: Iterable[ast.AST], prefix: str = "", branch: bool = False) -> Iterator[tuple[ast.stmt, str, bool]]:
    """Yield the statements outside functions, each with the classes around it, and whether it is in a branch or a loop."""
    for part in body:
        inner, within = prefix, branch
        if isinstance(part, ast.stmt):
            yield part, prefix, branch
            within = not isinstance(part, ast.ClassDef) or branch
            inner = f"{prefix}{part.name}." if isinstance(part, ast.ClassDef) else prefix
        if isinstance(part, ast.stmt | ast.ExceptHandler | ast.match_case) and not isinstance(part, Function):
            yield from statements(ast.iter_child_nodes(part), inner, within)


def qualify(module: ast.Module) -> None:
    """Put the name of a function before its local names."""
    for function in ast.walk(module):
        if isinstance(function, Function):
            given = [part for part in ast.walk(function.args) if isinstance(part, ast.arg)]
            inside = [*ast.walk(ast.Module(function.body, [])), *given]
            shared = {name for part in inside if isinstance(part, ast.Global | ast.Nonlocal) for name in part.names}
            local = {bound_name(part) for part in inside if isinstance(part, ast.Name | ast.arg)} - shared
            for part in inside:
                if isinstance(part, ast.Name) and part.id in local:
                    part.id = f"{function.name}.{part.id}"
                elif isinstance(part, ast.arg):
                    part.arg = f"{function.name}.{part.arg}"


def targets(statement: ast.stmt) -> list[ast.expr]:
    """Return the targets of a plain assignment; empty for other statements."""
    if isinstance(statement, ast.Assign):
        return statement.targets
    return [statement.target] if isinstance(statement, ast.AnnAssign) else []


def bound_name(node: ast.AST) -> str:
    """Return the name that a node binds or deletes: as a target, a parameter, a pattern, an import, or a definition."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.alias):
        return node.asname or node.name.partition(".")[0]
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar | Function | ast.ClassDef):
        return node.name or ""
    return (node.rest or "") if isinstance(node, ast.MatchMapping) else ""


def is_harmless(name: str) -> bool:
    known = HARMLESS.fullmatch(name) or (hasattr(builtins, name) and name not in NAMESPACES)
    return bool(known) and not CHANGING.fullmatch(name)


def last_name(node: ast.AST) -> str:
    """Return the last part of a dotted name or the method of an expression; empty for other expressions."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""

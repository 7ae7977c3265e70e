"""Values in a text in YAML. Tags of Python objects are read as lists and calls; nothing is constructed or evaluated."""

from __future__ import annotations

import ast
from typing import Any

from rapdarts.architecture.dialects.values import Call, Unread

MAX_CHARACTERS = 200_000
"""Longest text that is read; the parser takes about a second for it."""
MAX_DEPTH = 40
PYTHON = "tag:yaml.org,2002:python/"


def yaml_value(text: str) -> Any:
    """Return the value of a YAML text, or the list of those of several documents; None if it is not YAML, or too long or too deeply nested.

    `!!python/tuple` is a list, `!!python/object/apply:builtins.range` a list of numbers, and an object or a call of any
    other name a Call with its arguments, as PyYAML writes named tuples.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    import yaml  # imported here: most genotypes are not YAML, and importing it takes time

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise yaml.YAMLError("nested too deeply")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            tree = super().construct_mapping(node, deep)
            if len(tree) < len(node.value):
                raise yaml.YAMLError("a key is repeated")
            return tree

    def sequence(loader: Any, node: Any) -> Any:
        return loader.construct_sequence(node, deep=True)

    def made(loader: Any, suffix: str, node: Any) -> Any:
        given: Any = []
        if isinstance(node, yaml.SequenceNode):
            given = loader.construct_sequence(node, deep=True)
        elif isinstance(node, yaml.MappingNode):
            given = loader.construct_mapping(node, deep=True)
        if suffix in ("builtins.range", "__builtin__.range") and isinstance(given, list):
            numbers = all(type(number) is int and abs(number) <= 1000 for number in given)
            return list(range(*given)) if numbers and 1 <= len(given) <= 3 and given[2:] != [0] else None
        source = Unread(ast.Constant(suffix), suffix)
        return Call(
            suffix, tuple(given) if isinstance(given, list) else (), given if isinstance(given, dict) else {}, source
        )

    Loader.add_constructor(f"{PYTHON}tuple", sequence)
    for kind in ("object/apply:", "object/new:", "object:"):
        Loader.add_multi_constructor(f"{PYTHON}{kind}", made)
    try:
        documents = [*yaml.load_all(text, Loader)]
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return None
    return documents[0] if len(documents) == 1 else documents

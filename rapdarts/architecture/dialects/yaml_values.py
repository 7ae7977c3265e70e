"""Values in YAML text. Tags of Python objects become lists and calls; no object is constructed and nothing is evaluated."""

from __future__ import annotations

import ast
from typing import Any

from rapdarts.architecture.dialects.values import Call, Unread

MAX_CHARACTERS = 200_000
"""Maximum length of a text. A text of this length takes the parser about a second."""
MAX_DEPTH = 40
PYTHON = "tag:yaml.org,2002:python/"


def yaml_value(text: str) -> Any:
    """Return the value of a YAML text, or a list of values for several documents; None if it is not YAML, or is too long or too deep.

    `!!python/tuple` becomes a list, and `!!python/object/apply:builtins.range` a list of numbers. Any other Python object
    or call, such as a named tuple written by PyYAML, becomes a Call with its arguments.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    import yaml  # imported here: most genotypes are not YAML, and the import takes time

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

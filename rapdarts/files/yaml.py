"""The subset of YAML that configurations need: numbers, strings, lists and maps, without code execution or ambiguity."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rapdarts.errors import InputError, shorten
from rapdarts.files.text import read_text

MAX_FILE_BYTES = 100_000
MAX_DEPTH = 20
MAX_DIGITS = 100
"""Length of the longest number that is parsed; Python takes minutes to parse a million digits."""

NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
WORDS = {"true", "True", "TRUE", "false", "False", "FALSE", "null", "Null", "NULL", "~", ""}
INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
"""Infinity and NaN; they are accepted here because the range check of every knob rejects them with its own message."""


def read_yaml(path: Path, example: str = "seed: 1") -> Iterator[tuple[str, Any]]:
    """Yield the (dotted key, value) pairs of a YAML file; `example` is a line of such a file, for messages.

    Raises DamagedError if the file does not match its seal, and the errors of `load_yaml`.
    """
    from rapdarts.files.seal import check_yaml  # help does not need it

    text = text_of_yaml(path)
    check_yaml(text, path)
    yield from load_yaml(text, path, example)


def text_of_yaml(path: Path) -> str:
    """Return the text of a YAML file. Raises InputError."""
    larger = f"has more than {MAX_FILE_BYTES:,} bytes, too many for a configuration"
    return read_text(path, str(path), MAX_FILE_BYTES, larger)


def load_yaml(text: str, path: Path, example: str = "seed: 1") -> Iterator[tuple[str, Any]]:
    """Yield the pairs in the text of the YAML file `path`; the arguments are those of `read_yaml`.

    Raises InputError for everything that a configuration does not need: interpolation, tags, aliases, repeated keys, and
    plain words that YAML reads in unexpected ways (010, 1:30, no).
    """
    import yaml

    try:
        tree = _parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: {_why(error)}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise InputError(f"{path} must contain keys with values, such as {example}.")
    yield from _leaves(tree, "")


def parse_value(text: str, key: str) -> Any:
    """Return the number, truth value or list given as text on the command line. Raises InputError."""
    import yaml

    try:
        return _parse_yaml(text)
    except yaml.YAMLError as error:
        problem = _why(error) or "not a number, true, false or a [list]"
        raise InputError(f"{key}={shorten(text)} cannot be read: {problem}.") from None


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Return a tree of values as YAML that `read_yaml` reads back to the same values. Raises InputError for invalid text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_text(self, text: str) -> Any:
            text.encode()  # some YAML writers escape characters that they cannot encode, but no reader accepts them
            # Quote text that would be read as a number, and NEL, which readers take for a line break but writers do not.
            style = "'" if NUMBER.fullmatch(text) else '"' if "\x85" in text else None
            return self.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, Dumper.represent_text)
    try:
        return str(yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True))
    except UnicodeEncodeError as error:  # a file name of bytes that are not UTF-8
        raise InputError(f"{error.object!r} is not valid UTF-8 and cannot be saved; rename that file.") from None


def _why(error: Any) -> str:
    """Return the problem that a YAML error describes, with the error's context if the problem alone is not a sentence."""
    problem = getattr(error, "problem", None) or ""
    return f"{error.context}, {problem}" if problem.startswith("but ") else problem


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parse_yaml(text: str) -> Any:
    """Return the tree of values. Raises yaml.YAMLError."""
    import yaml

    def refuse(problem: str, event: Any) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise refuse("anchors and aliases are not supported; write the value twice", event)
            if event.tag is not None:
                raise refuse(f"the tag {event.tag} is not supported; write the value without it", event)
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise refuse(f"values are nested deeper than {MAX_DEPTH} levels", event)
            node = super().compose_node(parent, index)
            self.depth -= 1
            if isinstance(node, yaml.ScalarNode):
                if problem := _problem(node.value, plain=node.style is None, text=node.tag.endswith(":str")):
                    raise refuse(problem, node)
                if node.style is None and NUMBER.fullmatch(node.value) and not node.tag.endswith(":int"):
                    node.tag = "tag:yaml.org,2002:float"  # YAML 1.1 reads 1e-3 as a string
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if not (isinstance(key, yaml.ScalarNode) and key.tag.endswith(":str")):
                    raise refuse("a key must be a name", key)
                if key.value in seen:
                    raise refuse(f"the key {key.value} appears twice; keep one", key)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506 (a SafeLoader, narrowed)


def _problem(value: str, plain: bool, text: bool) -> str:
    """Return the reason why a scalar is rejected, or an empty string; `plain`: it has no quotes; `text`: YAML reads it as a string."""
    if "${" in value:
        return "'${' is not supported; write the value"
    if not plain:
        return ""
    if NUMBER.fullmatch(value):
        if len(value) > MAX_DIGITS:
            return f"the number has more than {MAX_DIGITS} digits"
        misleading = LEADING_ZERO.match(value) is not None
    else:
        misleading = not text and value not in WORDS and INFINITE.fullmatch(value) is None
    if not misleading:
        return ""
    return f"{shorten(value)} is ambiguous in YAML; write true, false or a plain number, or put it in quotes"

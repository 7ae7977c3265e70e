"""YAML's numbers, words, lists and maps, and nothing else of it: a configuration file cannot run code or mean something it does not say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rapdarts.errors import InputError

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 20


def read_yaml(path: Path) -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a YAML file.

    Raises InputError for what a configuration has no use for: interpolation, tags, aliases, repeated keys, and
    plain words that YAML takes for something else than they look like (010, 1:30, no).
    """
    import yaml

    try:
        raw = path.read_bytes()
        if len(raw) > MAX_FILE_BYTES:
            raise InputError(f"{path} has {len(raw)} bytes; a configuration has at most {MAX_FILE_BYTES}.")
        text = raw.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text.") from None
    try:
        tree = _parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise InputError(f"{path} must hold sections such as data: and search:.")
    yield from _leaves(tree, "", path)


def parse_value(text: str, key: str) -> Any:
    """The number, truth value or list that a command-line text means. Raises InputError."""
    import yaml

    try:
        return _parse_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"{key}={text} cannot be read as a number, a truth value or a [list].") from None


def _leaves(tree: Mapping[Any, Any], prefix: str, path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if not isinstance(key, str):
            raise InputError(f"{path}: the key {key!r} is not a name.")
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.", path)
        else:
            yield f"{prefix}{key}", value


def _parse_yaml(text: str) -> Any:
    """YAML's numbers, words, lists and maps, and nothing else of it. Raises yaml.YAMLError."""
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.MarkedYAMLError(
                    problem="anchors and aliases are not used here", problem_mark=event.start_mark
                )
            if getattr(event, "tag", None) not in (None, "!"):
                raise yaml.MarkedYAMLError(
                    problem=f"the tag {event.tag} is not used here", problem_mark=event.start_mark
                )
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(problem="nested too deep", problem_mark=event.start_mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            if isinstance(node, yaml.ScalarNode):
                if "${" in node.value:
                    raise yaml.MarkedYAMLError(
                        problem="'${' is not used here; write the value", problem_mark=node.start_mark
                    )
                if node.style is None and MISLEADING.fullmatch(node.value):
                    raise yaml.MarkedYAMLError(
                        problem=f"{node.value} does not mean what it looks like; write true, false, a plain number, or quotes",
                        problem_mark=node.start_mark,
                    )
                if node.style is None and NUMBER.fullmatch(node.value) and not node.tag.endswith(":int"):
                    node.tag = "tag:yaml.org,2002:float"  # YAML 1.1 takes 1e-3 for a text
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value} stands here twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)  # noqa: S506 (a SafeLoader, narrowed)


MISLEADING = re.compile(
    r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9]*)?|0[xob].*|[0-9]+_[0-9_]*|(?i:yes|no|on|off|y|n)|\d{4}-\d\d?-\d\d?.*"
)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

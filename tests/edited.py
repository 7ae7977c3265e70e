"""Edits of files that a run wrote, as a user makes them on purpose: without the hash, which no longer fits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON object in a file, and remove its hash."""
    tree = json.loads(path.read_text())
    tree.pop("sha256", None)
    path.write_text(json.dumps({**tree, **changes}))


def plain(path: Path) -> Any:
    """Return the values of a JSON file without hashes: those of an object, or those of each object in a list."""
    tree = json.loads(path.read_text())
    for one in tree if isinstance(tree, list) else [tree]:
        one.pop("sha256", None)
        one.pop("files", None)
    return tree


def without_remarks(printed: str) -> str:
    """Return what a command printed to stderr, without the lines on files that have no hash, such as edited ones."""
    return "".join(line for line in printed.splitlines(keepends=True) if "has no sha256" not in line)


def unsealed(text: str) -> str:
    """Return the text of a JSON file without the line with its hash."""
    return re.sub(r'\n *"sha256": "[0-9a-f]{64}",', "", text, count=1)

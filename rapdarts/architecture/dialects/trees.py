"""Trees of cells with the structure of our JSON format, returned by the parsers of all dialects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INPUTS = 2
"""Number of inputs of a cell in every dialect except NAS-Bench-201."""


@dataclass(frozen=True)
class ParsedCells:
    """An unchecked tree for each kind of cell, and the space if the dialect belongs to one."""

    cells: Mapping[str, Any]
    space: str = ""


def tree_of(nodes: list[list[Any]], concat: list[Any], inputs: int = INPUTS) -> dict[str, Any]:
    """Return the tree of a cell from its nodes (lists of [primitive, input]) and the nodes in its output."""
    return {"inputs": inputs, "nodes": nodes, "concat": concat}

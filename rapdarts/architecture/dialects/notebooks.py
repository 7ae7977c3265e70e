"""Jupyter notebooks, JSON in which a genotype is in the source of a cell."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rapdarts.files.json import Fault, strict_loads


def code_of(text: str) -> str | None:
    """Return the source of the code cells of a notebook, one after the other; None if the text is not a notebook."""
    if '"nbformat"' not in text:
        return None
    with suppress(Fault):
        notebook = strict_loads(text)
        if isinstance(notebook, dict) and isinstance(cells := notebook.get("cells"), list):
            return "\n".join(
                _source(cell) for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"
            )
    return None


def _source(cell: dict[str, Any]) -> str:
    """Return the source of a cell, which is a text or a list of lines."""
    source = cell.get("source")
    return "".join(line for line in source if isinstance(line, str)) if isinstance(source, list) else str(source or "")

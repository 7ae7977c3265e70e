"""Jupyter notebooks: JSON files with genotypes in the source of code cells."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rapdarts.files.json import Fault, strict_loads


def code_of(text: str) -> str | None:
    """Return the joined source of the code cells of a notebook; None if the text is not a notebook."""
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
    """Return the source of a cell, which is a string or a list of lines."""
    source = cell.get("source")
    return "".join(line for line in source if isinstance(line, str)) if isinstance(source, list) else str(source or "")

"""Text tables with aligned columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(
    rows: Sequence[Sequence[str]], left: Collection[int] = (0,), widths: Sequence[int] | None = None
) -> list[str]:
    """Return a line for each row, with the columns in `left` left-aligned and the others right-aligned.

    A column is as wide as its longest cell, and at least as wide as its entry in `widths`, if given.
    """
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        width = max([*map(len, column), 0 if widths is None else widths[number]])
        columns.append([cell.ljust(width) if number in left else cell.rjust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]

"""Tables of text with aligned columns, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rapdarts.errors import printable


def aligned(
    rows: Sequence[Sequence[str]], left: Collection[int] = (0,), widths: Sequence[int] | None = None
) -> list[str]:
    """Return a line for each row, with the columns in `left` left-aligned and the others right-aligned.

    A column is as wide as its longest cell, and at least as wide as its entry in `widths`, if given.
    """
    columns = []
    rows = [[printable(cell) for cell in row] for row in rows]
    for number, column in enumerate(zip(*rows, strict=True)):
        width = max([*map(len, column), 0 if widths is None else widths[number]])
        columns.append([cell.ljust(width) if number in left else cell.rjust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, with a line break at its end; the cells must not contain characters that end a cell."""
    return "".join(f"| {' | '.join(map(printable, row))} |\n" for row in (head, ("---",) * len(head), *rows))


def missing(operations: Mapping[str, Sequence[str]]) -> str:
    """Format operations without a formula, each with its layers: `grid_sampler_2d in warp, mul + sum in pool (2 times)`."""
    texts = []
    for name, layers in operations.items():
        distinct = [layer or "the network" for layer in dict.fromkeys(layers)]
        where = ", ".join(distinct[:3]) + (f" and {len(distinct) - 3} other layers" if len(distinct) > 3 else "")
        texts.append(f"{name} in {where}" + (f" ({len(layers)} times)" if len(layers) > len(distinct) else ""))
    return "; ".join(texts)

"""Text tables: alignment and widths of columns."""

from __future__ import annotations

from rapdarts.reports.text_table import aligned

ROWS = [("", "macs", "from"), ("first", "1,234,567", "runs/a"), ("2.", "-", "b")]


def test_columns_are_as_wide_as_their_longest_cells() -> None:
    assert aligned(ROWS, left=(0, 2)) == [
        "            macs  from",
        "first  1,234,567  runs/a",
        "2.             -  b",
    ]


def test_columns_have_at_least_the_given_widths() -> None:
    assert aligned([("a", "b")], widths=(3, 4)) == ["a       b"]
    assert aligned([("long", "b")], widths=(3, 1)) == ["long  b"]


def test_no_line_ends_in_spaces() -> None:
    assert aligned(ROWS, left=(0, 1, 2))[0] == "       macs       from"
    assert all(line == line.rstrip() for line in aligned(ROWS, left=(0, 1, 2)))

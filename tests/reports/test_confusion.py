"""Confusion matrices as an image and as a table, and their most frequent mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from rapdarts.reports import confusion


@pytest.mark.parametrize("classes", [2, 10, 120])
def test_the_confusion_matrix_is_drawn(classes: int) -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (classes, classes))
    matrix[0] = 0  # a class without images
    names = [f"${name}_{{" for name in range(classes)]
    assert confusion.draw_confusion(matrix, names, "$x: 1 %", ".png").startswith(b"\x89PNG")
    svg = confusion.draw_confusion(matrix, names, "heading", ".svg")
    assert b"<svg" in svg and svg != confusion.draw_confusion(matrix.T.copy(), names, "heading", ".svg")


def test_the_table_and_the_most_frequent_mistakes() -> None:
    matrix, classes = [[2, 1, 0], [0, 0, 1], [0, 1, 2]], ["cat", "dog", "emu"]
    assert confusion.confusion_table(matrix, classes).splitlines() == [
        "true    0  1  2   recall  (columns: predicted class)",
        "0 cat   2  1  .    66.67 %",
        "1 dog   .  0  1     0.00 %",
        "2 emu   .  1  2    66.67 %",
    ]
    assert confusion.most_confused(np.array(matrix), classes) == [
        ("cat", "dog", 1),
        ("dog", "emu", 1),
        ("emu", "dog", 1),
    ]

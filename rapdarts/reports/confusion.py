"""Confusion matrices as an image and as text; rows are true classes and columns predicted classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rapdarts.errors import printable
from rapdarts.reports.plots import drawable, encoded, new_figure

MOST_NUMBERS, MOST_NAMES, LETTERS = 20, 50, 24
"""Maximum number of classes for which counts are shown, maximum number for which all names are shown, and maximum length of a name."""


def draw_confusion(matrix: np.ndarray, names: Sequence[str], heading: str, suffix: str) -> bytes:
    """Return an image of the counts `matrix` (classes, classes) in the format of `suffix`; colours show shares of each row."""
    classes = len(matrix)
    side = min(16.0, 3.4 + 0.42 * classes)
    figure = new_figure(side + 0.8, side)
    figure.suptitle(drawable(heading), fontsize=11, x=0.01, ha="left")
    panel = figure.subplots()
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(0, classes, 1 + (classes - 1) // MOST_NAMES)
    labels = [drawable(names[place][:LETTERS]) for place in ticks]
    panel.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 2 else 0, fontsize=8)
    panel.set_yticks(ticks, labels, fontsize=8)
    panel.set_xlabel("predicted class", fontsize=9)
    panel.set_ylabel("true class", fontsize=9)
    if classes <= MOST_NUMBERS:
        for row, column in np.argwhere(matrix > 0):
            dark = shares[row, column] > 0.5
            words = f"{matrix[row, column]:,}"
            panel.text(column, row, words, ha="center", va="center", fontsize=8, color="white" if dark else "#1b2a3a")
    bar = figure.colorbar(image, ax=panel, shrink=0.8)
    bar.set_label("share of the true class", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return encoded(figure, suffix)


def confusion_table(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Format a confusion matrix as text: a row per true class, a column per predicted class, and a last column with the recall."""
    labels = [
        name if name == str(place) else f"{place} {printable(name[:LETTERS])}" for place, name in enumerate(names)
    ]
    first = max(len("true"), *map(len, labels))
    width = max(2, *(len(str(count)) for row in matrix for count in row))
    head = "".join(f" {place:>{width}}" for place in range(len(names)))
    lines = [f"{'true':{first}} {head}   recall  (columns: predicted class)"]
    for place, row in enumerate(matrix):
        cells = "".join(f" {count if count or column == place else '.':>{width}}" for column, count in enumerate(row))
        share = f"{100 * row[place] / sum(row):7.2f} %" if sum(row) else "      -"
        lines.append(f"{labels[place]:{first}} {cells}  {share}")
    return "\n".join(lines)


def most_confused(matrix: np.ndarray, names: Sequence[str], count: int = 5) -> list[tuple[str, str, int]]:
    """Return the `count` most frequent mistakes as (true class, predicted class, count); ties are in the order of the classes.

    `matrix` is (classes, classes).
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    places = np.argsort(-wrong, axis=None, kind="stable")[:count]
    found = [divmod(int(place), len(matrix)) for place in places]
    return [(names[row], names[column], int(wrong[row, column])) for row, column in found if wrong[row, column]]

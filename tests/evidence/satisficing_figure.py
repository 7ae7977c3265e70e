"""Figure of the section on satisficing: expected CPU time of the methods against that of a final training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rapdarts.reports.plots import COLOURS, new_figure
from tests.evidence.figure import INK, plain_axes
from tests.evidence.satisficing import Proposals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = {
    "a random cell": "a random cell",
    "random cells, halved": "random cells, halved",
    "the best of ten random cells by NASWOT": "the best of ten by NASWOT",
    "one search": "one search",
    "three searches averaged": "three searches averaged",
    "`rapdarts find`: eight cells of three searches, halved": "rapdarts find",
}
"""Methods that are drawn, with their names in the legend."""

TRAININGS = np.geomspace(0.1, 1000, 60)
"""CPU time of a final training in minutes."""


@dataclass(frozen=True)
class Line:
    """A line of panels: a budget in words, the accuracies to reach in percent, and the proposals of the methods."""

    budget: str
    accuracies: Sequence[float]
    methods: Mapping[str, Proposals]


def picture(lines: Sequence[Line]) -> Figure:
    """Return the figure, with a panel for each budget and accuracy."""
    figure = new_figure(9.0, 7.5)
    panels = figure.subplots(len(lines), len(lines[0].accuracies), sharex=True, sharey=True, squeeze=False)
    for row, line in zip(panels, lines, strict=True):
        for panel, accuracy in zip(row, line.accuracies, strict=True):
            draw(panel, line.methods, accuracy)
            panel.set_title(f"{line.budget}, at least {accuracy:g} %", fontsize=9, color=INK)
    for panel in panels[-1]:
        panel.set_xlabel("final training, CPU minutes", color=INK)
    for panel in panels[:, 0]:
        panel.set_ylabel("expected CPU minutes", color=INK)
    labels = {
        text: line for panel in panels.flat for line, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if labels:
        names = [label for label in DRAWN.values() if label in labels]
        handles = [labels[name] for name in names]
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def draw(panel: Axes, methods: Mapping[str, Proposals], accuracy: float) -> None:
    """Draw the expected time of the methods for one accuracy."""
    for place, (name, label) in enumerate(DRAWN.items()):
        if name in methods and methods[name].chance(accuracy):
            times = [methods[name].time(accuracy, 60 * minutes) / 60 for minutes in TRAININGS]
            style = "--" if place < len(DRAWN) / 2 else "-"
            panel.plot(TRAININGS, times, style, color=COLOURS[place % len(COLOURS)], linewidth=1.6, label=label)
    panel.set_xscale("log")
    panel.set_yscale("log")
    plain_axes(panel)

"""Figure of the section on satisficing: expected CPU time of the methods against that of a final training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rapdarts.reports.plots import COLOURS, new_figure
from tests.evidence import satisficing
from tests.evidence.figure import INK, plain_axes
from tests.evidence.satisficing import BUDGETS, QUANTILES, Proposals
from tests.evidence.store import Rows

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


def picture(rows: Rows) -> Figure:
    """Return the figure, with a panel for each budget and accuracy; empty panels if the pace has not been measured."""
    figure = new_figure(9.0, 7.5)
    panels = figure.subplots(len(BUDGETS), len(QUANTILES), sharex=True, sharey=True, squeeze=False)
    for line, budget in zip(panels, BUDGETS, strict=True):
        methods = satisficing.methods(rows, budget) if "pace" in rows else {}
        for panel, accuracy in zip(line, satisficing.accuracies(budget), strict=True):
            draw(panel, methods, accuracy)
            panel.set_title(f"{budget} units, at least {accuracy:g} %", fontsize=9, color=INK)
    for panel in panels[-1]:
        panel.set_xlabel("final training, CPU minutes", color=INK)
    for panel in panels[:, 0]:
        panel.set_ylabel("expected CPU minutes", color=INK)
    names, labels = panels[0, 0].get_legend_handles_labels()
    if names:
        figure.legend(names, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def draw(panel: Axes, methods: dict[str, Proposals], accuracy: float) -> None:
    """Draw the expected time of the methods for one accuracy."""
    for place, (name, label) in enumerate(DRAWN.items()):
        if name in methods and methods[name].chance(accuracy):
            times = [methods[name].time(accuracy, 60 * minutes) / 60 for minutes in TRAININGS]
            style = "--" if place < len(DRAWN) / 2 else "-"
            panel.plot(TRAININGS, times, style, color=COLOURS[place % len(COLOURS)], linewidth=1.6, label=label)
    panel.set_xscale("log")
    panel.set_yscale("log")
    plain_axes(panel)

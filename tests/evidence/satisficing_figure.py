"""Figure of the section on satisficing: expected CPU minutes of every method, for each budget and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rapdarts.reports.plots import COLOURS, new_figure
from tests.evidence import satisficing
from tests.evidence.figure import INK, plain_axes
from tests.evidence.satisficing import ACCURACIES, BUDGETS, Proposals
from tests.evidence.store import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHORT = {
    "random cells, halved": "random cells, halved",
    "the best of ten random cells by NASWOT": "best of ten by NASWOT",
    "one search": "one search",
    "three searches averaged": "three searches",
    "`rapdarts find`: eight cells of three searches, halved": "rapdarts find",
}
"""Short names of the methods that are drawn, from the bottom up."""

LONGEST = 1000.0
"""Right end of the axis in minutes."""


def picture(rows: Rows) -> Figure:
    """Return the figure: one panel for each budget and accuracy, and in it the methods with their 95 % intervals."""
    figure = new_figure(9.0, 6.0)
    panels = figure.subplots(len(BUDGETS), len(ACCURACIES), sharex=True, sharey=True, squeeze=False)
    for line, budget in zip(panels, BUDGETS, strict=True):
        methods = satisficing.methods(rows, budget)
        for panel, accuracy in zip(line, ACCURACIES, strict=True):
            draw(panel, methods, accuracy)
            panel.set_title(f"{budget} units, at least {accuracy:g} %", fontsize=9, color=INK)
    for panel in panels[-1]:
        panel.set_xlabel("CPU minutes", color=INK)
    return figure


def draw(panel: Axes, methods: dict[str, Proposals], accuracy: float) -> None:
    """Draw the expected minutes of the methods for one accuracy. A method that never reached it has only the lower end of its interval."""
    for height, name in enumerate(SHORT):
        if name in methods:
            low, high = methods[name].limits(accuracy)
            panel.plot([low, min(high, LONGEST)], [height, height], color=COLOURS[0], alpha=0.5, linewidth=3)
            if np.isfinite(time := methods[name].minutes(accuracy)):
                panel.plot(time, height, "o", color=COLOURS[0], markersize=5)
    panel.set_xscale("log")
    panel.set_xlim(0.02, LONGEST)
    panel.set_yticks(range(len(SHORT)), list(SHORT.values()), fontsize=8)
    plain_axes(panel)

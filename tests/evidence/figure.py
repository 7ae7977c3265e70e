"""Figure of the page: accuracy against MACs on NAS-Bench-201 for averaged searches, random cells and well-known cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from rapdarts.architecture.space import Skeleton
from rapdarts.config.experiment import SearchConfig
from rapdarts.cost.prices import prices
from rapdarts.reports.plots import COLOURS, new_figure
from tests.evidence import nasbench, searches
from tests.evidence.attempts import judged
from tests.evidence.banks import genotype_of
from tests.evidence.plan import CURRENT, WINDOWS
from tests.evidence.store import Rows
from tests.evidence.tables import ranges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, GRID = "#1c2430", "#7a8494", "#d5d9e0"
SIZE = 3
"""Number of searches that are averaged."""

REFERENCES = {
    "ResNet block": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|",
    "3 x 3 convolutions on all edges": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
}


@dataclass(frozen=True)
class Chosen:
    """Searches to draw: their seeds, a flag for test seeds, and the cells of each group of three, one for each budget."""

    seeds: Sequence[int]
    test: bool
    cells: np.ndarray


def chosen(rows: Rows) -> Chosen | None:
    """Return the searches of the current attempt or, before it has been run, of the first tuning seeds; None if there are none."""
    for among, test in ((CURRENT.seeds, True), (WINDOWS[0], False)):
        seeds = searches.seeds_of(rows, CURRENT.name, among)
        if len(seeds) >= SIZE:
            groups = searches.groups(searches.weights_of(rows, CURRENT.name, seeds), SIZE)
            return Chosen(seeds, test, np.array(judged(groups, CURRENT).cells))
    return None


def caption(found: Chosen) -> str:
    """Return the text below the figure."""
    return f"""Accuracies are from NAS-Bench-201; MACs are those of its network at 32 x 32 pixels. Dots: {len(found.cells)} groups of
    three averaged searches (`{CURRENT.name}`{CURRENT.condition}, {"test" if found.test else "tuning"} seeds
    {ranges(found.seeds)}), each at the eight budgets. Bars: the middle 90 % of the random cells that a search could have
    derived for the same budget, with the mean of all such cells."""


@cache
def macs() -> np.ndarray:
    """Return the MACs of all cells' networks at 32 x 32 pixels, in millions, (15625,)."""
    skeleton = nasbench.TASK.table.skeleton
    table = prices(SearchConfig(), nasbench.TASK.space, Skeleton(skeleton.layers, skeleton.channels, (3, 32, 32), 10))
    row = table.row("macs")
    added = table.prices[row, 0][np.arange(6), nasbench.all_cells()].sum(1)
    return np.asarray((table.fixed[row] + added) / 1e6)


def as_svg(drawn: Figure) -> bytes:
    """Return a figure as SVG with a white background, in reproducible bytes; text is not converted to paths."""
    from matplotlib import rc_context

    written = BytesIO()
    with rc_context({"svg.hashsalt": "evidence", "svg.fonttype": "none"}):
        drawn.savefig(written, format="svg", facecolor="white", metadata={"Creator": None, "Date": None})
    return written.getvalue()


def picture(rows: Rows) -> Figure:
    """Return the figure."""
    figure = new_figure(7.6, 4.4)
    panel = figure.subplots()
    accuracy, budgets = nasbench.truth(), sorted(nasbench.ALL_BUDGETS)

    random = [np.flatnonzero(CURRENT.cells(budget)) for budget in budgets]
    centres = np.array([macs()[cells].mean() for cells in random])
    low, high = np.array([np.percentile(accuracy[cells], (5, 95)) for cells in random]).T
    panel.vlines(
        centres, low, high, color=GREY, alpha=0.3, linewidth=9, label="random cells of the same cost, middle 90 %"
    )
    means = [accuracy[cells].mean() for cells in random]
    panel.plot(centres, means, "_", color=GREY, markersize=9, markeredgewidth=2, label="their mean")

    found = chosen(rows)
    if found is not None:
        cells = found.cells
        dots = {"marker": "o", "color": COLOURS[0], "markersize": 5, "alpha": 0.7, "linestyle": ""}
        panel.plot(macs()[cells].ravel(), accuracy[cells].ravel(), label="three searches averaged", **dots)

    for marker, (name, line) in zip("sD", REFERENCES.items(), strict=True):
        cell = nasbench.number(genotype_of(line))
        panel.plot(macs()[cell], accuracy[cell], marker, color=COLOURS[2], markersize=7, label=name)

    panel.set_xlabel("million MACs", color=INK)
    panel.set_ylabel("test accuracy on CIFAR-10, %", color=INK)
    panel.set_xlim(0, None)
    plain_axes(panel)
    panel.legend(loc="lower right", frameon=False, fontsize=9, labelcolor=INK)
    return figure


def plain_axes(panel: Axes) -> None:
    """Draw a light grid below the data, and no frame."""
    panel.grid(color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(colors=INK)
    panel.spines[["top", "right"]].set_visible(False)

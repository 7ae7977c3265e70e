"""Plots: bar charts of the costs of layers, and functions for all plots (file check, figure, encoding)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from rapdarts.errors import InputError, printable
from rapdarts.files.atomic import file_to_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
MOST_LABELS = 100
COLOURS = ("#1f5fb4", "#16784a", "#b8450b", "#7b3aa6")


@dataclass(frozen=True)
class Panels:
    """The panels of a network: a heading, the labels of its layers, and the values of the layers by panel title."""

    heading: str
    labels: Sequence[str]
    series: dict[str, Sequence[float]]


def picture_to_write(path: str) -> Path:
    """Return the path of an image file to write; call this before a long computation. Raises InputError if the path is unusable."""
    if Path(path).suffix.lower() not in SUFFIXES or not Path(path).stem:
        raise InputError(f"plot={path} is not an image file; use a path that ends in one of {', '.join(SUFFIXES)}.")
    return file_to_write(path, "plot")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure with this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def encoded(figure: Figure, suffix: str) -> bytes:
    """Return a figure as bytes, in the format of `suffix` (one of SUFFIXES)."""
    content = BytesIO()
    figure.savefig(content, format=suffix.lower().removeprefix("."))
    return content.getvalue()


def drawable(words: str) -> str:
    """Escape dollar signs, which would start a formula in matplotlib, and characters that cannot be drawn."""
    return printable(words, lines=True).replace("$", r"\$")


def draw_bars(networks: Sequence[Panels], suffix: str) -> bytes:
    """Return an image with a row of bar charts for each network, one chart per quantity, in the format of `suffix`."""
    from matplotlib.ticker import StrMethodFormatter

    most = min(MOST_LABELS, max(len(network.labels) for network in networks))
    columns = max(len(network.series) for network in networks)
    figure = new_figure(columns * max(4.5, 1.2 + 0.2 * most), 4.4 * len(networks))
    for part, network in zip(figure.subfigures(len(networks), 1, squeeze=False)[:, 0], networks, strict=True):
        part.suptitle(drawable(network.heading), fontsize=11, x=0.01, ha="left")
        panels = part.subplots(1, columns, sharex=True, squeeze=False)[0]
        for panel, colour, (title, values) in zip(panels, COLOURS, network.series.items(), strict=False):
            named = range(0, len(values), 1 + len(values) // MOST_LABELS)
            panel.bar(range(len(values)), values, color=colour, width=0.75)
            panel.set_title(title, fontsize=10)
            panel.set_xticks(named, [drawable(network.labels[place]) for place in named], rotation=90, fontsize=8)
            panel.set_xlim(-0.6, max(1, len(values)) - 0.4)
            panel.tick_params(axis="y", labelsize=8)
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
            panel.grid(axis="y", color="#d5d9e0", linewidth=0.6)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
    return encoded(figure, suffix)

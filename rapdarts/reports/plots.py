"""Pictures: bar charts of the costs of networks' layers, and what all pictures share (file check, figure, encoding)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from rapdarts.errors import InputError
from rapdarts.files.atomic import file_in_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
MOST_LABELS = 100
COLOURS = ("#1f5fb4", "#16784a", "#b8450b", "#7b3aa6")


@dataclass(frozen=True)
class Panels:
    """The panels of one network: a heading, the labels of its layers, and by a panel's title a value for each layer."""

    heading: str
    labels: Sequence[str]
    series: dict[str, Sequence[float]]


def picture_to_write(path: str) -> Path:
    """Return the file of a picture; ask before anything is computed. Raises InputError where none can be written there."""
    if Path(path).suffix.lower() not in SUFFIXES or not Path(path).stem:
        raise InputError(f"plot={path} is no picture; write a path that ends in {', '.join(SUFFIXES)}.")
    return file_in_folder(path, "plot")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def encoded(figure: Figure, suffix: str) -> bytes:
    """Return the bytes of a figure in the format that a suffix names (SUFFIXES)."""
    picture = BytesIO()
    figure.savefig(picture, format=suffix.lower().removeprefix("."))
    return picture.getvalue()


def draw_bars(networks: Sequence[Panels], suffix: str) -> bytes:
    """Draw a row of bar charts for each network, one chart for each quantity, in the format of a suffix (SUFFIXES)."""
    from matplotlib.ticker import StrMethodFormatter

    most = min(MOST_LABELS, max(len(network.labels) for network in networks))
    columns = max(len(network.series) for network in networks)
    figure = new_figure(columns * max(4.5, 1.2 + 0.2 * most), 4.4 * len(networks))
    for part, network in zip(figure.subfigures(len(networks), 1, squeeze=False)[:, 0], networks, strict=True):
        part.suptitle(network.heading, fontsize=11, x=0.01, ha="left")
        panels = part.subplots(1, columns, sharex=True, squeeze=False)[0]
        for panel, colour, (title, values) in zip(panels, COLOURS, network.series.items(), strict=False):
            named = range(0, len(values), 1 + len(values) // MOST_LABELS)
            panel.bar(range(len(values)), values, color=colour, width=0.75)
            panel.set_title(title, fontsize=10)
            panel.set_xticks(named, [network.labels[place] for place in named], rotation=90, fontsize=8)
            panel.set_xlim(-0.6, max(1, len(values)) - 0.4)
            panel.tick_params(axis="y", labelsize=8)
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
            panel.grid(axis="y", color="#d5d9e0", linewidth=0.6)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
    return encoded(figure, suffix)

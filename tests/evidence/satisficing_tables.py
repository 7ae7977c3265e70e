"""Section on satisficing: its tables, one for each budget, and what they say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.evidence import nasbench, satisficing
from tests.evidence.satisficing import ACCURACIES, BUDGETS, Proposals
from tests.evidence.satisficing_figure import LONGEST
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, table

FIGURE = "satisficing.svg"
"""Name of the figure, next to the page."""


def section(rows: Rows) -> list[str]:
    """Return the section as lines."""
    heading = ["## What does it cost to find a cell that satisfices?", ""]
    if not satisficing.compared(rows, "way", BUDGETS[0]):
        return [*heading, NOT_RUN, ""]
    lines = [
        *heading,
        *paragraph(
            """A cell satisfices (Simon 1956) if it meets a budget and reaches an accuracy. The tables show the CPU minutes that each method
            takes on average until it has proposed such a cell: the mean time of a proposal divided by the probability that a proposal
            reaches the accuracy, which is in parentheses, with the 95 % interval that follows from that of the probability (Wilson 1927) in
            brackets. Accuracies are those of NAS-Bench-201 on CIFAR-10. The time does not include the full training that shows whether a
            proposal satisfices: on average, one divided by the probability are needed. All cells use 0.9 to 1 of the budget and meet the
            conditions of the current attempt, as do the random cells. *n* is the number of proposals; where it is *exact*, all cells from
            which a method draws were counted. No setting was chosen on the seeds of the searches in the first table of each budget."""
        ),
    ]
    lines += [f"![Expected CPU minutes of each method, for each budget and accuracy]({FIGURE})", ""]
    lines += paragraph(
        f"""Dots: expected CPU minutes until a proposal satisfices. Bars: their 95 % intervals, cut at {LONGEST:,.0f} minutes. A bar
        without a dot belongs to a method of which no proposal reached the accuracy."""
    )
    for budget in BUDGETS:
        most = nasbench.truth()[nasbench.units() <= budget].max()
        lines += [f"### {budget} units", ""]
        lines += paragraph(f"No cell within this budget is more accurate than {most:.2f} %.")
        lines += table(*rows_of(satisficing.methods(rows, budget)))
        lines += table(*rows_of(satisficing.cheaper(rows, budget)))
    return lines


def rows_of(methods: Mapping[str, Proposals]) -> tuple[list[str], list[list[object]]]:
    """Return the head and the rows of a table of methods."""
    head = ["method", "n", "CPU min per proposal", *(f"at least {accuracy:g} %" for accuracy in ACCURACIES)]
    return head, [
        [
            name,
            f"exact ({len(one.cells)} cells)" if one.exact else len(one.cells),
            f"{one.seconds / 60:.2f}",
            *(cell(one, accuracy) for accuracy in ACCURACIES),
        ]
        for name, one in methods.items()
    ]


def cell(method: Proposals, accuracy: float) -> str:
    """Return the expected CPU minutes of a method for an accuracy, with the interval and the probability, as text."""
    chance = f"({method.chance(accuracy):.0%})"
    if method.exact:
        return f"{in_minutes(method.minutes(accuracy))} {chance}"
    low, high = (in_minutes(limit) for limit in method.limits(accuracy))
    return f"{in_minutes(method.minutes(accuracy))} [{low}–{high}] {chance}"


def in_minutes(time: float) -> str:
    """Return a time as text; infinity if no proposal reached the accuracy."""
    return f"{time:.1f}" if np.isfinite(time) else "∞"

"""Section on satisficing: a figure, and for each budget the tables of the methods and of the cheaper searches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.evidence import satisficing
from tests.evidence.finding import RECIPE
from tests.evidence.satisficing import BUDGETS, FULL_EPOCHS, FULL_IMAGES, Proposals
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, sources, table

FIGURE = "satisficing.svg"
"""Name of the figure, next to the page."""


def section(rows: Rows) -> list[str]:
    """Return the section as lines."""
    heading = ["## What does it cost to find a cell that satisfices?", ""]
    if "pace" not in rows or not all(satisficing.compared(rows, budget) for budget in BUDGETS):
        return [*heading, NOT_RUN, ""]
    hours = satisficing.full_training(rows, BUDGETS[-1]) / 3600
    lines = [
        *heading,
        *paragraph(
            """A cell satisfices (Simon 1956) if it meets a budget and reaches an accuracy. A method proposes a cell, a final training
            shows its accuracy, and if it is too low, the method proposes another one. So the expected time until such a cell is in
            hand is the time of a proposal and of a final training, divided by the probability that a proposal satisfices. Accuracies
            are those of NAS-Bench-201 on CIFAR-10. All cells use 0.9 to 1 of the budget and meet the conditions of the current
            attempt, as do the random cells; the accuracies to reach are the 50, 75 and 90 % quantiles of all these cells, rounded."""
        ),
        *paragraph(
            f"""The tables give the probability in percent, with its 95 % interval (Wilson 1927), then the expected time for two lengths
            of the final training: in CPU minutes for that of this task ({RECIPE["retrain.epochs"]} epochs on all of its training
            images), and in CPU hours for that of NAS-Bench-201 ({FULL_EPOCHS} epochs on {FULL_IMAGES:,} images of 32 x 32 pixels,
            here {hours:.0f} hours at {BUDGETS[-1]} units, extrapolated from the time of an epoch on this task). The interval of a
            time follows from that of the probability. *n* is the number of proposals; *exact* means that all cells from which a
            method draws were counted. The times of all methods were measured in turn, in one session."""
        ),
        f"![Expected CPU time until a cell satisfices, against the time of a final training]({FIGURE})",
        "",
        *paragraph(
            """Expected CPU time of each method against that of a final training, for each budget and accuracy. Methods of which no
            proposal reached the accuracy are left out."""
        ),
    ]
    for budget in BUDGETS:
        lines += [f"### {budget} units", ""]
        lines += table(*rows_of(rows, budget, satisficing.methods(rows, budget)))
        lines += paragraph("Cheaper searches, on tuning seeds, with the same derivation:")
        lines += table(*rows_of(rows, budget, satisficing.cheaper(rows, budget)))
    return [*lines, *sources([rows["pace"], rows["find"]])]


def rows_of(rows: Rows, budget: int, methods: Mapping[str, Proposals]) -> tuple[list[str], list[list[object]]]:
    """Return the head and the rows of a table of methods."""
    accuracies = satisficing.accuracies(budget)
    trainings = satisficing.short_training(rows, budget), satisficing.full_training(rows, budget)
    head = ["method", "n", "CPU s per proposal", *(f"at least {accuracy:g} %" for accuracy in accuracies)]
    return head, [
        [
            name,
            "exact" if one.exact else len(one.cells),
            f"{one.seconds:.0f}",
            *(cell(one, accuracy, *trainings) for accuracy in accuracies),
        ]
        for name, one in methods.items()
    ]


def cell(method: Proposals, accuracy: float, short: float, full: float) -> str:
    """Return the probability of a method for an accuracy, and its expected times with a short and a full final training, as text."""
    low, high = method.limits(accuracy)
    limits = "" if method.exact else f" [{100 * low:.0f}–{100 * high:.0f}]"
    minutes, hours = method.time(accuracy, short) / 60, method.time(accuracy, full) / 3600
    times = f"{minutes:.1f} min, {hours:.0f} h" if np.isfinite(minutes) else "never"
    return f"{100 * method.chance(accuracy):.0f}{limits}: {times}"

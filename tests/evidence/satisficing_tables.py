"""Section on satisficing: figures, and for each budget the tables of the methods and of the cheaper searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.evidence import satisficing, satisficing_answers, satisficing_bank
from tests.evidence.finding import RECIPE
from tests.evidence.satisficing import BUDGETS, FULL_EPOCHS, FULL_IMAGES, Proposals
from tests.evidence.satisficing_figure import Line
from tests.evidence.store import Rows, load
from tests.evidence.tables import NOT_RUN, paragraph, sources, table
from tests.evidence.tasks import TASKS

FIGURE, BANK_FIGURE = "satisficing.svg", "satisficing-bank.svg"
"""Names of the figures, next to the page."""

FEWEST = 2
"""Minimum number of comparisons at each budget for this section."""

UNITS = {"min": 60.0, "h": 3600.0}
"""Seconds in each unit of time."""


@dataclass(frozen=True)
class Training:
    """A final training: its CPU time in seconds, and the unit and decimals in which the table gives expected times."""

    seconds: float
    unit: str = "min"
    places: int = 1


def section(rows: Rows) -> list[str]:
    """Return the section as lines."""
    heading = ["## What does it cost to find a cell that satisfices?", ""]
    if "pace" not in rows or any(len(satisficing.compared(rows, budget)) < FEWEST for budget in BUDGETS):
        return [*heading, NOT_RUN, ""]
    return [
        *heading,
        *paragraph(
            """A cell satisfices (Simon 1956) if it meets a budget and reaches an accuracy. A method proposes a cell, a final training
            shows its accuracy, and if it is too low, the method proposes another one. So the expected time until such a cell is in
            hand is the time of a proposal and of a final training, divided by the probability that a proposal satisfices. All cells use
            0.9 to 1 of the budget; the accuracies to reach are the 50, 75 and 90 % quantiles of random cells, rounded. The tables give the
            probability in percent, with its 95 % interval (Wilson 1927), then the expected time; its interval follows from that of the
            probability. *n* is the number of proposals; *exact* means that all cells from which a method draws were counted. The times
            of all methods on a task were measured in turn, in one session."""
        ),
        *(satisficing_answers.answers(rows) if satisficing_bank.finished() else []),
        *on_nasbench(rows),
        *on_bank(),
    ]


def on_nasbench(rows: Rows) -> list[str]:
    """Return the tables of NAS-Bench-201, its figure and their sources as lines."""
    full = {budget: satisficing.full_training(rows, budget) for budget in BUDGETS}
    lines = [
        "### On NAS-Bench-201",
        "",
        *paragraph(
            f"""Accuracies are the known ones on CIFAR-10. All cells meet the conditions of the current attempt, as do the random cells,
            which give the quantiles. The first expected time, in CPU minutes, is for the final training of this task
            ({RECIPE["retrain.epochs"]} epochs on all of its training images), the second, in CPU hours, for that of NAS-Bench-201
            ({FULL_EPOCHS} epochs on {FULL_IMAGES:,} images of 32 x 32 pixels, here {full[BUDGETS[-1]] / 3600:.0f} hours at
            {BUDGETS[-1]} units, extrapolated from the time of an epoch on this task)."""
        ),
        *drawn(FIGURE),
    ]
    for budget in BUDGETS:
        trainings = [Training(satisficing.short_training(rows, budget)), Training(full[budget], "h", 0)]
        goals = satisficing.accuracies(budget), trainings
        lines += paragraph(f"**{budget} units:**") + table(*rows_of(satisficing.methods(rows, budget), *goals))
        if cheaper := satisficing.cheaper(rows, budget):
            lines += paragraph(f"**{budget} units**, cheaper searches, on tuning seeds, with the same derivation:")
            lines += table(*rows_of(cheaper, *goals))
    return [*lines, *sources([rows["pace"], rows["find"]])]


def on_bank() -> list[str]:
    """Return the tables of the bank, its figure and their sources as lines."""
    heading, name = [f"### On {satisficing_bank.BANK}", ""], satisficing_bank.BANK
    if not satisficing_bank.finished():
        return [*heading, NOT_RUN, ""]
    cells, seeds = satisficing_bank.CELLS, satisficing_bank.SEARCHES
    lines = [
        *heading,
        *paragraph(
            f"""Here an accuracy is that of one training on `{name}` (seed {satisficing_bank.SEED}) or, for `rapdarts find` and for the
            random cells with the same compute, that of its final training, so that the luck of a training counts like that of a cell. The
            {cells} random cells of each budget give the quantiles; *the best of* several of them is computed over all sets that can
            be drawn from them, and its *n* is the number of disjoint sets. The searches (seeds {seeds[0]}-{seeds[-1]}) run
            without a budget and serve all budgets. The expected time is for the final training of this bank."""
        ),
        *drawn(BANK_FIGURE),
    ]
    pace = load(name)["pace"]
    for budget in satisficing_bank.BUDGETS:
        training = Training(satisficing_bank.final_training(pace, budget))
        lines += paragraph(f"**{TASKS[budget].macs / 1e6:g}M MACs**, final training {training.seconds:.0f} CPU s:")
        lines += table(*rows_of(satisficing_bank.methods(budget), satisficing_bank.accuracies(budget), [training]))
    return [*lines, *sources(satisficing_bank.origins())]


def drawn(name: str) -> list[str]:
    """Return a figure with its caption as lines."""
    return [
        f"![Expected CPU time until a cell satisfices, against the time of a final training]({name})",
        "",
        *paragraph(
            """Expected CPU time of each method against that of a final training, for each budget and accuracy. Methods of which no
            proposal reached the accuracy are left out."""
        ),
    ]


def figures(rows: Rows) -> dict[str, list[Line]]:
    """Return the lines of panels of all figures whose results are complete, by the name of the file."""
    found = {FIGURE: [
        Line(f"{budget} units", satisficing.accuracies(budget), satisficing.methods(rows, budget) if "pace" in rows else {})
        for budget in BUDGETS
    ]}  # fmt: skip
    if satisficing_bank.finished():
        found[BANK_FIGURE] = [
            Line(f"{TASKS[name].macs / 1e6:g}M MACs", satisficing_bank.accuracies(name), satisficing_bank.methods(name))
            for name in satisficing_bank.BUDGETS
        ]
    return found


def rows_of(
    methods: Mapping[str, Proposals], accuracies: Sequence[float], trainings: Sequence[Training]
) -> tuple[list[str], list[list[object]]]:
    """Return the head and the rows of a table of methods."""
    head = ["method", "n", "CPU s per proposal", *(f"at least {accuracy:g} %" for accuracy in accuracies)]
    return head, [
        [
            name,
            "exact" if one.exact else one.n,
            f"{one.seconds:.0f}",
            *(cell(one, accuracy, trainings) for accuracy in accuracies),
        ]
        for name, one in methods.items()
    ]


def cell(method: Proposals, accuracy: float, trainings: Sequence[Training]) -> str:
    """Return the probability of a method for an accuracy, and its expected time with each of the final trainings, as text."""
    low, high = method.limits(accuracy)
    limits = "" if method.exact else f" [{100 * low:.0f}–{100 * high:.0f}]"
    times = [f"{method.time(accuracy, one.seconds) / UNITS[one.unit]:.{one.places}f} {one.unit}" for one in trainings]
    return f"{100 * method.chance(accuracy):.0f}{limits}: {', '.join(times) if method.chance(accuracy) else 'never'}"

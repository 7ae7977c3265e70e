"""Tables of banks: the headroom of each bank, and how searches and free rules agree with its accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rapdarts.errors import plural
from tests.evidence import banks, free_rules, searches
from tests.evidence.figures import Mean, mean
from tests.evidence.plan import BANK_GROUP, BANKS
from tests.evidence.store import Rows, load
from tests.evidence.tables import NOT_RUN, listed, paragraph, ranges, sources, table
from tests.evidence.tasks import TASKS, Task

FEWEST = 3
"""Minimum number of trained cells for a correlation."""


def section() -> list[str]:
    """Return the section of all banks as lines."""
    known = {name: rows for name in BANKS if len(banks.trained_cells(rows := load(name))) >= FEWEST}
    heading = ["## Banks", ""]
    if not known:
        return [*heading, NOT_RUN, ""]
    head = [
        "bank",
        "cells",
        "trainings",
        "CPU h",
        "accuracy, %",
        "noise",
        "error of a mean",
        "between cells",
        "headroom",
    ]
    waiting = [f"`{name}`" for name in BANKS if name not in known]
    return [
        *heading,
        *paragraph(
            """A bank is a set of random cells from the space `darts` in one band of MACs, all trained by the same recipe. *Accuracy* is the
            mean over the cells, with their range. *Noise* is the standard deviation of a single training, *error of a mean* the standard
            error of a cell's mean accuracy, and *between cells* the standard deviation of the cells' true means, in points of accuracy.
            There is headroom if the standard deviation between cells is at least a third of the noise."""
        ),
        *table(head, [headroom_row(name, rows) for name, rows in known.items()]),
        *paragraph(unsettled(known), f"{listed(waiting)}: not run yet." if waiting else ""),
        *sources(one for rows in known.values() for one in banks.origins(rows, banks.trained_cells(rows))),
        *(line for name, rows in known.items() for line in bank(name, rows)),
    ]


def headline(bank: str) -> str:
    """Return the results of one search on a bank, in the words of the README."""
    rows, task, variant = load(bank), TASKS[bank], searches.variant_name(BANKS[bank])
    weights = searches.weights_of(rows, variant, seeds_of(rows, variant))
    agreed = mean([banks.correlation(task, rows, one) for one in weights])
    trained = standings(rows, [banks.derived(task, one) for one in weights])
    better = (
        f", and the cell that the search derives is better than {mean(trained)} % of them"
        if len(trained) == agreed.n
        else ""
    )
    return (
        f"on {dataset(task)}, a search's scores for these cells have a rank correlation of {agreed.text(2)} with their"
        f" accuracies{better} (n = {agreed.n})"
    )


def unsettled(known: Mapping[str, Rows]) -> str:
    """Return the sentences on banks whose cells need more trainings; empty if there are none."""
    names = [f"`{name}`" for name, rows in known.items() if (room := banks.headroom(rows)) and not room.settled]
    if not names:
        return ""
    return (
        f"In {listed(names)}, the error of a cell's mean is more than half the standard deviation between cells. These cells need more"
        " trainings; until then, all correlations with their accuracies are underestimated."
    )


def headroom_row(name: str, rows: Rows) -> list[object]:
    """Return the row of a bank in the headroom table."""
    cells, room = banks.trained_cells(rows), banks.headroom(rows)
    trainings = [one for line in cells for one in rows["trained"][line].values()]
    hours = sum(one["cpu_seconds"] for one in trainings) / 3600
    means = banks.accuracies(rows, cells)
    count = str(len(cells)) if len(cells) == len(rows["cells"]) else f"{len(cells)} of {len(rows['cells'])}"
    spreads = ["–"] * 4
    if room:
        spreads = [f"{room.noise:.2f}", f"{room.error:.2f}", f"{room.between:.2f}", "yes" if room.exists else "no"]
    accuracy = f"{means.mean():.1f} ({means.min():.1f}–{means.max():.1f})"
    return [f"`{name}`", count, len(trainings), f"{hours:.1f}", accuracy, *spreads]


def bank(name: str, rows: Rows) -> list[str]:
    """Return the section of a bank, with its searches and the free rules, as lines."""
    task = TASKS[name]
    head = ["", "n", "rank correlation", "percentile of the chosen cell", "CPU s"]
    found = averages(task, rows)
    origins = [one for variant in rows["searches"] for one in searches.origins(rows, variant, seeds_of(rows, variant))]
    origins += banks.origins(rows, [line for one in found for line in one.picks if line not in rows["cells"]])
    origins += [rows["naswot"]] if "naswot" in rows else []
    cells = plural(len(banks.trained_cells(rows)), "trained cell")
    return [
        f"### {name}",
        "",
        *paragraph(
            f"""{description(task)} *Rank correlation* is Spearman's rank correlation between the scores that a search or a rule gives to
            the {cells} and their accuracies. The percentile is the share of the other trained cells that are less accurate than the chosen
            cell; a cell that a search derives is trained by the same recipe."""
        ),
        *table(head, [*(search_row(task, rows, one) for one in found), *rule_rows(task, rows)]),
        *paragraph("" if found else f"Searches: {NOT_RUN.lower()}"),
        *sources(origins),
    ]


def dataset(task: Task) -> str:
    """Return the name of a task's data set with the size of its images."""
    _, height, width = task.image
    return f"{({'cifar10': 'CIFAR-10', 'fashion_mnist': 'Fashion-MNIST'})[task.data]} at {height} x {width} pixels"


def description(task: Task) -> str:
    """Return the sentence that describes the images and networks of a bank."""
    settings = {**task.settings, **task.recipe}
    low, high = (f"{share * task.macs / 1e6:g}M" for share in (banks.SPEND, 1))
    return (
        f"{dataset(task)}, {100 * settings['data.fraction']:g} % of the training images; networks of"
        f" {settings['skeleton.layers']} cells and {settings['skeleton.channels']} channels with {low} to {high} MACs."
    )


def seeds_of(rows: Rows, variant: str) -> list[int]:
    """Return all seeds with which a variant has been run."""
    return sorted(map(int, rows["searches"][variant]["seeds"]))


@dataclass(frozen=True)
class Averages:
    """Searches of a variant, one by one or averaged in groups, with their mixing weights and the genotypes derived from them."""

    name: str
    weights: Sequence[np.ndarray]
    picks: Sequence[str]
    cpu_seconds: float


def averages(task: Task, rows: Rows) -> list[Averages]:
    """Return the searches of a bank for each variant, one by one and averaged."""
    found = []
    for variant in rows["searches"]:
        seeds = seeds_of(rows, variant)
        weights, seconds = searches.weights_of(rows, variant, seeds), searches.cpu_seconds(rows, variant, seeds)
        for size, words in ((1, "one search"), (BANK_GROUP, "three searches averaged")):
            groups = searches.groups(weights, size)
            if groups:
                name = f"{words}, `{variant}`, seeds {ranges(seeds)}"
                picks = [banks.derived(task, one) for one in groups]
                found.append(Averages(name, groups, picks, size * float(np.mean(seconds))))
    return found


def search_row(task: Task, rows: Rows, one: Averages) -> list[object]:
    """Return the row of a variant's searches, one by one or averaged."""
    agreed = mean([banks.correlation(task, rows, weights) for weights in one.weights])
    return [one.name, agreed.n, agreed.text(2), standing(rows, one.picks), f"{one.cpu_seconds:.0f}"]


def standings(rows: Rows, picks: Sequence[str]) -> list[float]:
    """Return the percentiles of the trained genotypes."""
    return [banks.standing(rows, one) for one in picks if one in rows["trained"]]


def standing(rows: Rows, picks: Sequence[str]) -> str:
    """Return the mean percentile of the trained genotypes as text."""
    trained = standings(rows, picks)
    if not trained:
        return "not trained yet"
    few = "" if len(trained) == len(picks) else f" ({len(trained)} of {len(picks)} trained)"
    return f"{mean(trained)}{few}"


def rule_rows(task: Task, rows: Rows) -> list[list[object]]:
    """Return the rows of the rules that need no search, applied to the trained cells of the bank."""
    lines = banks.trained_cells(rows)
    genotypes = [banks.genotype_of(line) for line in lines]
    values = {
        "most MACs": [float(task.table.exact(one)["macs"]) for one in genotypes],
        "most parameters": [float(task.table.exact(one)["params"]) for one in genotypes],
        "fewest pools": [-float(free_rules.pools(one)) for one in genotypes],
    }
    seconds = {}
    if "naswot" in rows and all(line in rows["naswot"]["scores"] for line in lines):
        values["NASWOT"] = [rows["naswot"]["scores"][line] for line in lines]
        seconds["NASWOT"] = f"{rows['naswot']['cpu_seconds']:.0f}"
    return [
        [
            name,
            f"{len(lines)} cells",
            f"{banks.agreement(rows, one):.2f}",
            best(rows, lines, one),
            seconds.get(name, "–"),
        ]
        for name, one in values.items()
    ]


def best(rows: Rows, lines: Sequence[str], values: Sequence[float]) -> str:
    """Return the percentile of the cell with the highest value as text; tied cells are averaged."""
    picks = [line for line, value in zip(lines, values, strict=True) if value == max(values)]
    found = Mean(float(np.mean([banks.standing(rows, one) for one in picks])), None, len(picks))
    return found.text() if len(picks) == 1 else f"{found.text()} (mean of {len(picks)} tied)"

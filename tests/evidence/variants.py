"""Table of variants: all changes to the search settings that were tried on tuning seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rapdarts.errors import plural
from tests.evidence import nasbench, searches
from tests.evidence.figures import Mean, mean, paired_gain, spearman
from tests.evidence.plan import WINDOWS
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table


def section(rows: Rows) -> list[str]:
    """Return the section as lines, with a row for each variant and each window of tuning seeds."""
    found = known(rows)
    heading = ["## All variants tried", ""]
    if not found:
        return [*heading, NOT_RUN, ""]
    head = [
        "variant",
        "n",
        "seeds",
        "one search",
        "three searches averaged",
        "gain",
        "order",
        "order of averages",
        "gain in order",
        "CPU s per search",
    ]
    return [
        *heading,
        *paragraph(
            "The table shows the CIFAR-10 scores of variants. A variant is a set of settings that override the protocol's"
            f" (`{searches.PLAIN}` overrides none). Seeds 0-11 give a first impression, 12-31 decide on a new default, and 32-51 confirm"
            " it. Averages are taken over disjoint groups of three searches, in the order of their seeds. *Gain* is the mean paired"
            f" difference between single searches of the variant and of `{searches.PLAIN}`, over the seeds that both have. *Order* is a"
            " finer measure: Spearman's rank correlation of a search's scores with the true accuracies, over all cells of a band that"
            " the search could have derived, averaged over the four budgets. All these cells have exactly one skip-only path and use at"
            " least 0.9 of the budget. These conditions are the defaults of `rapdarts`, applied here also to variants that were tried"
            " before the condition on paths became a default."
        ),
        *table(head, [row(rows, name, seeds) for seeds, name in found]),
        *paragraph(averaging(rows, found)),
        *sources(one for seeds, name in found for one in searches.origins(rows, name, seeds)),
    ]


def known(rows: Rows) -> list[tuple[list[int], str]]:
    """Return the seeds and the name of every variant, one window of tuning seeds after another."""
    names = sorted(rows["searches"], key=lambda name: (name != searches.PLAIN, name))
    return [(seeds, name) for window in WINDOWS for name in names if (seeds := searches.seeds_of(rows, name, window))]


def averaging(rows: Rows, found: Sequence[tuple[Sequence[int], str]]) -> str:
    """Return the sentence that counts the rows in which averages of three searches are better than one search."""
    weights = [searches.weights_of(rows, name, seeds) for seeds, name in found if len(seeds) >= 3]
    if not weights:
        return ""
    above = [
        sum(np.mean(measure(searches.groups(one, 3))) > np.mean(measure(one)) for one in weights)
        for measure in (scores, orders)
    ]
    return (
        f"The mean over groups of three is higher than the mean over single searches in {above[0]} of {plural(len(weights), 'row')} by"
        f" score, and in {above[1]} by order."
    )


def row(rows: Rows, name: str, seeds: Sequence[int]) -> list[object]:
    """Return the row of a variant for some seeds."""
    three = scores(searches.groups(searches.weights_of(rows, name, seeds), 3))
    seconds = np.mean(searches.cpu_seconds(rows, name, seeds))
    averaged = f"{mean(three)} (n = {len(three)})" if three else "–"
    weights = searches.weights_of(rows, name, seeds)
    threes = orders(searches.groups(weights, 3))
    return [
        f"`{name}`",
        len(seeds),
        ranges(seeds),
        mean(scores(weights)),
        averaged,
        in_words(gain(rows, name, seeds, scores), 1),
        mean(orders(weights)).text(places=2),
        mean(threes).text(places=2) if threes else "–",
        in_words(gain(rows, name, seeds, orders), 2),
        f"{seconds:.1f}",
    ]


def in_words(gained: Mean | None, places: int) -> str:
    """Return a gain with its sign as text, or a dash if there is none."""
    return "–" if gained is None else gained.text(places, sign=True)


def gain(
    rows: Rows, name: str, seeds: Sequence[int], measure: Callable[[Sequence[np.ndarray]], list[float]]
) -> Mean | None:
    """Return the mean paired difference in a measure from the variant that changes nothing; None if there are no pairs."""
    common = [seed for seed in searches.seeds_of(rows, searches.PLAIN, seeds) if seed in seeds]
    if name == searches.PLAIN or not common:
        return None
    changed, plain = (measure(searches.weights_of(rows, one, common)) for one in (name, searches.PLAIN))
    return paired_gain(changed, plain)


def orders(weights: Sequence[np.ndarray]) -> list[float]:
    """Return the `order` of several searches, averaged over the budgets of the score, given their mixing weights, (1, 6, 5) each."""
    cells = [nasbench.derivable(budget) for budget in nasbench.BUDGETS]
    return [float(np.mean([order(one, mask) for mask in cells])) for one in weights]


def order(weights: np.ndarray, cells: np.ndarray) -> float:
    """Return the rank correlation of a search's scores and the true accuracies over the cells in a boolean mask (15625,)."""
    places = np.flatnonzero(cells)
    scored = np.log(weights[0])[np.arange(6), nasbench.all_cells()[places]].sum(1)
    return spearman(scored, nasbench.truth()[places])


def scores(weights: Sequence[np.ndarray]) -> list[float]:
    """Return the CIFAR-10 scores of several searches, by enumeration of all cells, given their mixing weights, (1, 6, 5) each."""
    return [
        nasbench.score([nasbench.strongest(one, nasbench.derivable(budget)) for budget in nasbench.BUDGETS])
        for one in weights
    ]

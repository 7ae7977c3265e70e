"""Table of derivations: cells derived from the same mixing weights under different conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.evidence import nasbench, searches
from tests.evidence.figures import Mean, mean, paired_gain
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table

DEFAULT = 8
"""Index of rapdarts' default conditions in `CONDITIONS`."""

SEEDS = range(32)
"""Tuning seeds of the searches."""


@dataclass(frozen=True)
class Conditions:
    """Conditions on a derived cell, in addition to its budget.

    `spend` is the minimum share of the budget that it uses, and `max_skips` the cap on skips (None: no cap). `none` allows
    empty edges. `skip_paths` is the number of skip-only paths from input to output: "any", "one" or "no".
    """

    name: str
    spend: float
    max_skips: int | None
    none: bool = False
    skip_paths: str = "any"

    def cells(self, budget: int) -> np.ndarray:
        """Return the boolean mask (15625,) of the cells that meet the conditions and the budget."""
        cells = nasbench.allowed(self.max_skips, self.none, self.skip_paths) & nasbench.within(budget, self.spend)
        return cells & (nasbench.paths_of_skips() == 0) if self.skip_paths == "no" else cells


CONDITIONS = (
    Conditions("any share of the budget, `none` allowed, at most 2 skips", 0.0, 2, none=True),
    Conditions("at least 0.9, `none` allowed, at most 2 skips", 0.9, 2, none=True),
    Conditions("at least 0.9, no `none`, any number of skips", 0.9, None),
    Conditions("at least 0.9, no `none`, at most 2 skips", 0.9, 2),
    Conditions("at least 0.9, no `none`, at most 3 skips", 0.9, 3),
    Conditions("at least 0.9, no `none`, no skip-only path", 0.9, None, skip_paths="no"),
    Conditions("at least 0.9, no `none`, exactly one skip-only path", 0.9, None, skip_paths="one"),
    Conditions("at least 0.9, no `none`, exactly one skip-only path, at most 2 skips", 0.9, 2, skip_paths="one"),
    Conditions(
        "at least 0.9, no `none`, exactly one skip-only path, at most 3 skips (the default)", 0.9, 3, skip_paths="one"
    ),
)


def section(rows: Rows) -> list[str]:
    """Return the section as lines."""
    seeds = searches.seeds_of(rows, CURRENT.name, SEEDS)
    heading = ["## Which cells may be derived", ""]
    if not seeds:
        return [*heading, NOT_RUN, ""]
    weights = searches.weights_of(rows, CURRENT.name, seeds)
    lines, means, chances, cells = [], [], [], [derived(conditions, weights) for conditions in CONDITIONS]
    default = scores_of(cells[DEFAULT])[:, :4].mean(1)
    for conditions, chosen in zip(CONDITIONS, cells, strict=True):
        chance = [chance_of(conditions, budget) for budget in nasbench.ALL_BUDGETS]
        scores = scores_of(chosen)
        pairs = [f"{low:.0f} / {high:.0f}" for low, high in zip(chance, scores.mean(0), strict=True)]
        alone = scores[:, :4].mean(1)
        means.append(mean(alone.tolist()))
        chances.append(float(np.mean(chance[:4])))
        gain = (
            "–" if conditions == CONDITIONS[DEFAULT] else paired_gain(alone.tolist(), default.tolist()).text(sign=True)
        )
        used = f"{used_of(chosen)} %"
        lines.append([conditions.name, *pairs[:4], f"{chances[-1]:.1f} / {means[-1]}", gain, used, *pairs[4:]])
    head = [
        "share of the budget, and other conditions",
        *map(str, nasbench.BUDGETS),
        "mean of these",
        "gain",
        "share used",
        *map(str, nasbench.OTHER_BUDGETS),
    ]
    return [
        *heading,
        *paragraph(
            f"""Each pair holds two CIFAR-10 scores for a budget in units: the score of a random cell that meets the conditions, and the
            mean score of the cells that are derived under these conditions from the searches `{CURRENT.name}` with tuning seeds
            {ranges(seeds)} (n = {len(seeds)}). Both are computed by enumeration of all cells. *Gain* is the mean paired difference between
            the second scores and those under the default conditions. *Share used* is the percentage of a budget's units that the derived
            cells use, averaged over the four budgets of the score. Of the budgets in MACs, which include the fixed parts of the network,
            the cells of the first row use {used_of(cells[0], nasbench.FIXED)} %."""
        ),
        *table(head, lines),
        *paragraph(summary(means, chances)),
        *sources(searches.origins(rows, CURRENT.name, seeds)),
    ]


def chance_of(conditions: Conditions, budget: int) -> float:
    """Return the mean score of a random cell that meets the conditions and a budget."""
    return float(nasbench.scores(budget)[conditions.cells(budget)].mean())


def derived(conditions: Conditions, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return the cells derived from the mixing weights of searches, (1, 6, 5) each: indices into `all_cells`, (searches, budgets)."""
    return np.array([
        [nasbench.strongest(one, conditions.cells(budget)) for budget in nasbench.ALL_BUDGETS] for one in weights
    ])  # fmt: skip


def scores_of(cells: np.ndarray) -> np.ndarray:
    """Return the score of each derived cell; `cells` and scores are (searches, budgets)."""
    return np.stack([nasbench.scores(b)[of] for b, of in zip(nasbench.ALL_BUDGETS, cells.T, strict=True)], 1)


def used_of(cells: np.ndarray, fixed: float = 0.0) -> Mean:
    """Return the mean percentage of the score's budgets that derived cells (searches, budgets) use.

    Costs and budgets are in units, or in MACs if `fixed` is the number of MACs of the network's fixed parts.
    """
    budgets = fixed / nasbench.UNIT + np.array(nasbench.BUDGETS)
    shares = (fixed / nasbench.UNIT + nasbench.units()[cells[:, :4]]) / budgets
    return mean((100 * shares.mean(1)).tolist())


def summary(means: Sequence[Mean], chances: Sequence[float]) -> str:
    """Return the sentences on the scores of searches, and of a random cell, under each condition."""
    pairs = [f"{one.value:.0f} (a random cell: {chance:.0f})" for one, chance in zip(means, chances, strict=True)]
    anything, spent, uncapped, two, three, pathless, _, _, default = pairs
    return (
        f"Derived cells that may use any share of a budget score {anything}. If they must use at least 0.9 of it, they score {spent}, and"
        f" if they must also avoid `none`, they score {two}; all three have a cap of two skips. Without a cap, the score is {uncapped};"
        f" with a cap of three, it is {three}. If no path from input to output may consist of skips only, the score is {pathless}; if"
        f" exactly one must, it is {default}."
    )

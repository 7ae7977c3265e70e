"""Plan of the page: the attempts of the protocol with their settings and seeds, and the searches of the banks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.evidence import banks, budgeted, nasbench, naswot, searches
from tests.evidence.store import load, say
from tests.evidence.tasks import TASKS


@dataclass(frozen=True)
class Attempt:
    """Settings that override the protocol's, with the test seeds on which they are evaluated once.

    `skip_paths` is the condition on skip-only paths in derived cells, and `spend` the minimum share of a budget that they use.
    """

    seeds: range
    keys: Mapping[str, Any] = field(default_factory=dict)
    skip_paths: str = "any"
    spend: float = nasbench.SPEND

    @property
    def name(self) -> str:
        """The name of the attempt's variant."""
        return searches.variant_name(self.keys)

    def cells(self, budget: int) -> np.ndarray:
        """Return the boolean mask (15625,) of the NAS-Bench-201 cells that the attempt could derive for a budget."""
        return nasbench.derivable(budget, self.skip_paths, self.spend)

    @property
    def condition(self) -> str:
        """The conditions on derived cells as text, each preceded by a comma."""
        spending = f", `spend={self.spend}`" if self.spend != nasbench.SPEND else ""
        return f"{', exactly one skip-only path' if self.skip_paths == 'one' else ''}{spending}"


ATTEMPTS = (
    Attempt(range(100, 112), {"search.batch": 16}),
    Attempt(range(112, 124), {"search.batch": 16}, skip_paths="one"),
    Attempt(range(124, 136), {"search.batch": 16}, skip_paths="one", spend=0.97),
)
"""All attempts, in order. A further attempt takes the next twelve seeds."""

CURRENT = ATTEMPTS[1]
"""The attempt that derives under rapdarts' default conditions. `make evidence` runs it, and the figure shows it."""

GROUPS = (1, 3, 6)
"""Sizes of the groups of searches that are averaged."""

WINDOWS = (range(12), range(12, 32), range(32, 52), range(52, 100))
"""Tuning seeds: for a first impression, to decide on a new default, to confirm it, and the rest."""

BANKS: Mapping[str, Mapping[str, Any]] = {"cifar16": {}, "fashion14": {}}
"""The banks on the page, each with settings that override those of its search."""

BANK_SEEDS, BANK_GROUP, RECIPE_SEEDS = range(3), 3, range(3)
"""Seeds of a bank's searches, the number of searches per average, and the seeds with which derived genotypes are trained."""


def run(jobs: int, again: bool = False) -> None:
    """Run the missing parts of the current attempt and the missing searches of the banks.

    `again` repeats finished searches and NASWOT runs, but no training. Separate commands run the tuning searches, the
    trainings of a bank's own cells, and the comparison of multipliers, which takes hours (`python -m tests.evidence multiplier`).
    """
    searches.run_series("nasbench201", CURRENT.keys, CURRENT.seeds, jobs, again)
    draw_tens(CURRENT, jobs, again)
    conditions = {"search.spend": CURRENT.spend, "search.skip_paths": CURRENT.skip_paths}
    budgeted.run({**CURRENT.keys, **conditions}, jobs, again)
    for bank, keys in BANKS.items():
        if not banks.trained_cells(load(bank)):
            say(f"{bank}: no cell has been trained; run `python -m tests.evidence bank {bank}` first")
            continue
        searches.run_series(bank, keys, BANK_SEEDS, jobs, again)
        if (
            not again
        ):  # on another machine, the searches may derive cells that have not been trained, which takes many minutes
            train_derived(bank, keys, BANK_SEEDS, RECIPE_SEEDS, jobs)
        naswot.run_bank(bank, again)


def draw_tens(attempt: Attempt, jobs: int, again: bool = False) -> None:
    """Choose by NASWOT the best of ten cells that an attempt could derive, for each missing seed and every budget."""
    naswot.run_tens(attempt.seeds, {"skip_paths": attempt.skip_paths, "spend": attempt.spend}, jobs, again)


def train_derived(
    bank: str, keys: Mapping[str, Any], seeds: range | list[int], recipe_seeds: range | list[int], jobs: int
) -> None:
    """Train the genotypes derived from single and from averaged searches of a bank, with the seeds that are missing."""
    weights = searches.weights_of(load(bank), searches.variant_name(keys), seeds)
    lines = [banks.derived(TASKS[bank], one) for one in [*weights, *searches.groups(weights, BANK_GROUP)]]
    banks.train(bank, list(dict.fromkeys(lines)), recipe_seeds, jobs)

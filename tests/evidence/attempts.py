"""Sections of the attempts: searches on test seeds, compared with rules that need no search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rapdarts.data.nasbench201 import DATA_SETS
from tests.evidence import free_rules, nasbench, naswot, searches
from tests.evidence.figures import Mean, mean
from tests.evidence.plan import ATTEMPTS, GROUPS, Attempt
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, listed, paragraph, ranges, sources, table

AVERAGED = {1: "one search", 3: "three searches averaged", 6: "six searches averaged"}

AVERAGE = {1: "One search", 3: "An average of three searches", 6: "An average of six searches"}
"""Subjects of sentences for the same numbers of searches."""

GOALS = {1: 70.0, 3: 80.0, 6: 95.0}
"""Scores that single and averaged searches should reach."""

Rule = Callable[[int, int], float]
"""Function from a budget and a data set to the mean score of the cells that a rule without a search chooses."""

RANDOM = "a random cell that a search could derive"
POOLS = "a random cell among those with the fewest average pools"
EXPENSIVE = "the most expensive cell within the budget"
FEWEST = 4
"""Minimum number of searches, or of groups, for a verdict on which rules they beat."""
NASWOT = "the best of ten random cells by NASWOT"
FREELY = " (any number of skip-only paths)"
"""Suffix for the name of a rule that ignores the attempt's condition on skip-only paths."""


def rules(attempt: Attempt) -> dict[str, Rule]:
    """Return the rules that need no search, by name.

    Except for the first rule, they choose among the cells that the attempt could derive. If the attempt has a condition on
    skip-only paths, the rule of the fewest average pools is repeated without that condition.
    """
    found: dict[str, Rule] = {
        "any cell in the band": free_rules.any_cell,
        RANDOM: partial(free_rules.random_cell, cells=attempt.cells),
        POOLS: partial(free_rules.fewest_pools, cells=attempt.cells),
        EXPENSIVE: partial(free_rules.most_expensive, cells=attempt.cells),
        "the most accurate of five random cells (known only to an oracle)": partial(
            free_rules.best_of_five, cells=attempt.cells
        ),
    }
    if attempt.skip_paths == "one":
        freely = partial(nasbench.derivable, skip_paths="any")
        found[f"{POOLS}{FREELY}"] = partial(free_rules.fewest_pools, cells=freely)
    return found


@dataclass(frozen=True)
class Judged:
    """Cells chosen by searches, or by draws of a rule. Each chooses one cell per budget, in the order of nasbench.ALL_BUDGETS."""

    cells: Sequence[Sequence[int]]

    def score(self, data_set: int = 0) -> Mean:
        """Return the mean score over the searches or draws."""
        return mean([nasbench.score(cells[:4], nasbench.BUDGETS, data_set) for cells in self.cells])

    @property
    def other_score(self) -> Mean:
        """The mean score at the budgets that were not used to choose any setting."""
        return mean([nasbench.score(cells[4:], nasbench.OTHER_BUDGETS) for cells in self.cells])

    def row(self, name: str, cpu_seconds: float | None) -> list[object]:
        """Return the row of a table: mean scores, numbers of cells outside the band or with an unreachable node, and CPU time."""
        outside = [
            not nasbench.band(b)[cell]
            for cells in self.cells
            for cell, b in zip(cells, nasbench.ALL_BUDGETS, strict=True)
        ]
        lost = nasbench.unreachable()[np.array(self.cells)]
        means = [self.score(data_set) for data_set in range(len(DATA_SETS))]
        faults = [f"{np.sum(faults)} of {np.size(faults)}" for faults in (outside, lost)]
        seconds = "–" if cpu_seconds is None else f"{cpu_seconds:.0f}"
        return [name, len(self.cells), *means, self.other_score, *faults, seconds]


def judged(weights: Sequence[np.ndarray], attempt: Attempt) -> Judged:
    """Return the cells that an attempt derives from the mixing weights of searches, (1, 6, 5) each, by enumeration of all cells."""
    cells = [attempt.cells(budget) for budget in nasbench.ALL_BUDGETS]
    return Judged([[nasbench.strongest(one, mask) for mask in cells] for one in weights])


def section(rows: Rows, attempt: Attempt, number: int) -> list[str]:
    """Return the section of an attempt as lines."""
    heading = [f"### Attempt {number}: `{attempt.name}`{attempt.condition}, seeds {ranges(attempt.seeds)}", ""]
    seeds = searches.seeds_of(rows, attempt.name, attempt.seeds)
    if not seeds:
        return [*heading, NOT_RUN, ""]
    weights, seconds = searches.weights_of(rows, attempt.name, seeds), searches.cpu_seconds(rows, attempt.name, seeds)
    averaged = {size: groups for size in GROUPS if (groups := searches.groups(weights, size))}
    found = {size: judged(groups, attempt) for size, groups in averaged.items()}
    tens = [
        (other, drawn)
        for other in ((attempt, ATTEMPTS[0]) if attempt.skip_paths == "one" else (attempt,))
        if (drawn := Judged(naswot.tens(rows, other.seeds, nasbench.ALL_BUDGETS))).cells
    ]

    lines = [one.row(AVERAGED[size], size * float(np.mean(seconds))) for size, one in found.items()]
    for other, drawn in tens:
        freely = "" if other is attempt else f"{FREELY}, seeds {ranges(other.seeds)}"
        lines.append(drawn.row(f"{NASWOT}{freely}", naswot.cpu_seconds(rows, other.seeds)))
    lines += [rule_row(name, rule) for name, rule in rules(attempt).items()]
    head = ["", "n", *DATA_SETS.values(), "CIFAR-10, other budgets", "outside the band", "unreachable node", "CPU s"]
    origins = searches.origins(rows, attempt.name, seeds) + naswot.origins(rows, attempt.seeds)
    return [
        *heading,
        *paragraph(conditions(attempt), unfinished(attempt, len(seeds), drawn=any(one is attempt for one, _ in tens))),
        *table(head, lines),
        *differences(found, {"" if other is attempt else FREELY: drawn for other, drawn in tens}, attempt),
        *sources(origins),
    ]


def headline(rows: Rows, attempt: Attempt) -> str:
    """Return the results of an attempt, in the words of the README."""
    seeds = searches.seeds_of(rows, attempt.name, attempt.seeds)
    weights = searches.weights_of(rows, attempt.name, seeds)
    one, three = (judged(searches.groups(weights, size), attempt).score() for size in (1, 3))
    free = {name: free_rules.over(nasbench.BUDGETS, rule) for name, rule in rules(attempt).items()}
    ten = Judged(naswot.tens(rows, attempt.seeds, nasbench.ALL_BUDGETS)).score()
    return (
        f"one search finds a cell that is better than {one} % of all cells of its cost ({one.n} test seeds), and the mean of three"
        f" searches yields one that is better than {three} % ({three.n} groups). Much of this needs no search. Among the cells that may"
        f" be derived, a random cell is better than {free[RANDOM]:.1f} %, a cell with the fewest average pools is better than"
        f" {free[POOLS]:.1f} %, one of the most expensive cells is better than {free[EXPENSIVE]:.1f} %, and the best of ten cells by"
        f" NASWOT is better than {ten} %."
    )


def conditions(attempt: Attempt) -> str:
    """Return the sentences on the score that the conditions on derived cells give without a search."""
    counts = [int(attempt.cells(budget).sum()) for budget in nasbench.BUDGETS]
    score = free_rules.over(nasbench.BUDGETS, rules(attempt)[RANDOM])
    numbers = listed([f"{count}" for count in counts])
    return (
        f"For the four budgets, {numbers} cells, respectively, meet the conditions of this attempt. A random cell among them scores"
        f" {score:.1f}. The conditions alone give this score, so the gain of a search is measured relative to it."
    )


def unfinished(attempt: Attempt, searched: int, drawn: bool) -> str:
    """Return the sentences on the parts of an attempt that have not been run yet."""
    few = f"So far {searched} of {len(attempt.seeds)} searches have been run." if searched < len(attempt.seeds) else ""
    undrawn = "" if drawn else "NASWOT has not been run on these cells yet."
    return f"{few} {undrawn}"


def rule_row(name: str, rule: Rule) -> list[object]:
    """Return the row of a rule with an exact mean score."""
    means = [free_rules.over(nasbench.BUDGETS, rule, data_set) for data_set in range(len(DATA_SETS))]
    others = free_rules.over(nasbench.OTHER_BUDGETS, rule)
    return [name, "exact", *(f"{value:.1f}" for value in (*means, others)), "–", "–", "–"]


def differences(found: dict[int, Judged], tens: Mapping[str, Judged], attempt: Attempt) -> list[str]:
    """Return the differences between the scores of searches and of rules, and a verdict on which rules are beaten, as lines.

    `tens` maps a suffix of NASWOT's name to its choices.
    """
    names = {
        "a random cell": RANDOM,
        "a cell with the fewest average pools": POOLS,
        "the most expensive cell": EXPENSIVE,
    }
    if attempt.skip_paths == "one":
        names[f"a cell with the fewest average pools{FREELY}"] = f"{POOLS}{FREELY}"
    known = rules(attempt)
    rivals = {name: Mean(free_rules.over(nasbench.BUDGETS, known[rule]), None, 0) for name, rule in names.items()}
    rivals |= {f"NASWOT{among}": drawn.score() for among, drawn in tens.items()}
    gains = {size: {name: found[size].score().minus(rival) for name, rival in rivals.items()} for size in found}
    lines = [
        [AVERAGED[size], *(gain.text(sign=True) for gain in by_rival.values())] for size, by_rival in gains.items()
    ]
    sure = [verdict(size, gains[size]) for size, of in found.items() if len(of.cells) >= FEWEST]
    many = f"This table alone makes {len(gains) * len(rivals)} comparisons, and the intervals do not allow for that."
    return [*table(["CIFAR-10 score minus the score of", *rivals], lines), *paragraph(goals(found), *sure, many)]


def verdict(size: int, gains: Mapping[str, Mean]) -> str:
    """Return the sentence that names the rules that an average of `size` searches beats with 95 % confidence, and the others."""
    beaten = [name for name, gain in gains.items() if gain.positive]
    others = [name for name, gain in gains.items() if not gain.positive]
    who = AVERAGE[size]
    if not beaten:
        return f"{who} does not beat any of these with 95 % confidence."
    but = f", but not {listed(others, 'or')}" if others else ""
    return f"{who} beats {listed(beaten)} with 95 % confidence{but}."


def goals(found: Mapping[int, Judged]) -> str:
    """Return the sentence on the scores that were to be reached, with those that were."""
    scores = {size: found[size].score().value for size in GOALS if size in found}
    reached = [
        f"{AVERAGED[size]} {GOALS[size]:.0f} ({'reached' if score >= GOALS[size] else 'missed'}: {score:.1f})"
        for size, score in scores.items()
    ]
    return f"The goals were scores of at least: {listed(reached)}." if reached else ""

"""The page's attempts: searches from test seeds, beside the rules that need no search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from rapdarts.data.nasbench201 import DATA_SETS
from tests.evidence import free_rules, nasbench, naswot, searches
from tests.evidence.figures import Mean, mean
from tests.evidence.plan import ATTEMPTS, GROUPS, Attempt
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, listed, paragraph, ranges, sources, table

AVERAGED = {1: "one search", 3: "three averaged", 6: "six averaged"}

Rule = Callable[[int, int], float]
"""The mean score of what a rule without a search chooses for a budget, by its accuracy on a data set."""

RANDOM = "a random cell that a search could derive"
POOLS = "a random one of those with the fewest average pools"
EXPENSIVE = "the most expensive cell within the budget"
FEWEST = 4
"""Searches, or groups of them, below which nothing is said of what they beat."""
NASWOT = "the best of ten random cells by NASWOT"
FREELY = " (any skip-only paths)"
"""Added to a rule that chooses among all cells of the band, where an attempt has a condition on skip-only paths."""


def rules(attempt: Attempt) -> dict[str, Rule]:
    """Return the rules that need no search, among the cells that an attempt could derive, and among those without its conditions."""
    found: dict[str, Rule] = {
        "any cell of the band": free_rules.any_cell,
        RANDOM: partial(free_rules.random_cell, cells=attempt.cells),
        POOLS: partial(free_rules.fewest_pools, cells=attempt.cells),
        EXPENSIVE: partial(free_rules.most_expensive, cells=attempt.cells),
        "the truly best of five random cells, which only an oracle knows": partial(
            free_rules.best_of_five, cells=attempt.cells
        ),
    }
    if attempt.skip_paths == "one":
        freely = partial(nasbench.derivable, skip_paths="any")
        found[f"{POOLS}{FREELY}"] = partial(free_rules.fewest_pools, cells=freely)
    return found


@dataclass(frozen=True)
class Judged:
    """Choices of searches, or of draws of a rule: for each of them a cell a budget, in the order of nasbench.ALL_BUDGETS."""

    cells: Sequence[Sequence[int]]

    def score(self, data_set: int = 0) -> Mean:
        """Return the mean score over them."""
        return mean([nasbench.score(cells[:4], nasbench.BUDGETS, data_set) for cells in self.cells])

    @property
    def other_score(self) -> Mean:
        """The mean score at the budgets that nothing was chosen on."""
        return mean([nasbench.score(cells[4:], nasbench.OTHER_BUDGETS) for cells in self.cells])

    def row(self, name: str, cpu_seconds: float | None) -> list[object]:
        """Return the row of a table: the mean scores, how many cells are not as they should be, and the CPU time."""
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


@cache
def derived(weights: bytes, skip_paths: str, spend: float) -> tuple[int, ...]:
    """Return the cell that the product derives for each budget from mixing weights (1, 6, 5), given as the bytes of float64."""
    array = np.frombuffer(weights).reshape(nasbench.TASK.space.mask.shape)
    return tuple(nasbench.derived(array, budget, spend=spend, skip_paths=skip_paths) for budget in nasbench.ALL_BUDGETS)


def judged(weights: Sequence[np.ndarray], attempt: Attempt) -> Judged:
    """Return what an attempt derives from the mixing weights of searches, (1, 6, 5) each."""
    return Judged([derived(one.tobytes(), attempt.skip_paths, attempt.spend) for one in weights])


def section(rows: Rows, attempt: Attempt, number: int) -> list[str]:
    """Return an attempt as lines."""
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
    """Return what an attempt found, in the sentences that the README has."""
    seeds = searches.seeds_of(rows, attempt.name, attempt.seeds)
    weights = searches.weights_of(rows, attempt.name, seeds)
    one, three = (judged(searches.groups(weights, size), attempt).score() for size in (1, 3))
    free = {name: free_rules.over(nasbench.BUDGETS, rule) for name, rule in rules(attempt).items()}
    ten = Judged(naswot.tens(rows, attempt.seeds, nasbench.ALL_BUDGETS)).score()
    return (
        f"one search finds a cell that is better than {one} % of all cells of its cost ({one.n} test seeds), and the mean of three"
        f" searches one that is better than {three} % ({three.n} groups). Much of this needs no search: of the cells that may be"
        f" derived, a random one is better than {free[RANDOM]:.1f} %, one with the fewest average pools than {free[POOLS]:.1f} %, one of"
        f" the most expensive than {free[EXPENSIVE]:.1f} %, and the best of ten by NASWOT than {ten} %."
    )


def conditions(attempt: Attempt) -> str:
    """Return the sentence that says what the conditions on derived cells are worth without any search."""
    counts = [int(attempt.cells(budget).sum()) for budget in nasbench.BUDGETS]
    score = free_rules.over(nasbench.BUDGETS, rules(attempt)[RANDOM])
    numbers = listed([f"{count}" for count in counts])
    return (
        f"At the four budgets {numbers} cells meet the conditions of this attempt. A random one of them scores {score:.1f}: that is"
        " what the conditions are worth by themselves, and what a search adds is counted from there."
    )


def unfinished(attempt: Attempt, searched: int, drawn: bool) -> str:
    """Return the sentences that say what of an attempt has not been run yet."""
    few = f"So far {searched} of {len(attempt.seeds)} searches have been run." if searched < len(attempt.seeds) else ""
    undrawn = "" if drawn else "NASWOT has not been run among these cells yet."
    return f"{few} {undrawn}"


def rule_row(name: str, rule: Rule) -> list[object]:
    """Return the row of a rule whose mean score is known exactly."""
    means = [free_rules.over(nasbench.BUDGETS, rule, data_set) for data_set in range(len(DATA_SETS))]
    others = free_rules.over(nasbench.OTHER_BUDGETS, rule)
    return [name, "exact", *(f"{value:.1f}" for value in (*means, others)), "–", "–", "–"]


def differences(found: dict[int, Judged], tens: Mapping[str, Judged], attempt: Attempt) -> list[str]:
    """Return by how much searches stand above what needs no search, and which they beat.

    `tens` are the choices of NASWOT, by what is added to its name.
    """
    names = {"a random cell": RANDOM, "the fewest average pools": POOLS, "the most expensive cell": EXPENSIVE}
    if attempt.skip_paths == "one":
        names[f"the fewest average pools{FREELY}"] = f"{POOLS}{FREELY}"
    known = rules(attempt)
    rivals = {name: Mean(free_rules.over(nasbench.BUDGETS, known[rule]), None, 0) for name, rule in names.items()}
    rivals |= {f"NASWOT{among}": drawn.score() for among, drawn in tens.items()}
    gains = {
        AVERAGED[size]: {name: found[size].score().minus(rival) for name, rival in rivals.items()} for size in found
    }
    lines = [[who, *(gain.text(sign=True) for gain in by_rival.values())] for who, by_rival in gains.items()]
    sure = [verdict(AVERAGED[size], gains[AVERAGED[size]]) for size, of in found.items() if len(of.cells) >= FEWEST]
    return [*table(["CIFAR-10 score above", *rivals], lines), *paragraph(*sure)]


def verdict(who: str, gains: Mapping[str, Mean]) -> str:
    """Return the sentence that says what is beaten by two standard errors, and what is not."""
    beaten = [name for name, gain in gains.items() if gain.positive]
    others = [name for name, gain in gains.items() if not gain.positive]
    beats = f"{who.capitalize()} {'beats' if who == AVERAGED[1] else 'beat'}"
    if not beaten:
        return f"{beats} none of these by two standard errors."
    but = f", but not {listed(others, 'or')}" if others else ""
    return f"{beats} {listed(beaten)} by two standard errors{but}."

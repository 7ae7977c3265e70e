"""Answers to two questions in ten sentences: what does a cell that satisfices cost, and which heuristics make it cheaper?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rapdarts.errors import plural
from tests.evidence import satisficing, satisficing_bank
from tests.evidence.satisficing import BUDGETS, CHEAPER, Proposals
from tests.evidence.store import Rows, load
from tests.evidence.tables import listed, paragraph

RANDOM, HALVED, AVERAGED = "a random cell", "random cells, halved", "three searches averaged"
TEN = "the best of ten random cells by NASWOT"
FIND = "`rapdarts find`: eight cells of three searches, halved"
EARLY = f"two searches, and a third if their rank correlation is below {satisficing.AGREED}"


@dataclass(frozen=True)
class Pairs:
    """Proposals of the methods for all pairs of a budget and an accuracy, with the time of a final training in seconds."""

    pairs: Sequence[tuple[Mapping[str, Proposals], float, float]]
    """For each pair, the proposals by method, the accuracy in percent, and the time of a final training."""

    def times(self, method: str) -> np.ndarray:
        """Return the expected time of a method for each pair in seconds, infinite where it never satisfices or was not run."""
        return np.array([one[method].time(*goal) if method in one else np.inf for one, *goal in self.pairs])

    def cheapest(self) -> tuple[np.ndarray, list[str]]:
        """Return the shortest expected time for each pair in seconds, and its method."""
        names = list(dict.fromkeys(name for one, *_ in self.pairs for name in one))
        times = np.array([self.times(name) for name in names])
        return times.min(0), [names[place] for place in times.argmin(0)]

    def ratio(self, method: str, other: str) -> str:
        """Return how many times as long a method takes as another, as text: the geometric mean over the pairs in which both satisfice."""
        own, others = self.times(method), self.times(other)
        both = np.isfinite(own) & np.isfinite(others)
        if not both.any():
            return "an unknown number of times (no pair)"
        value = f"{np.exp(np.log(own[both] / others[both]).mean()):.2f} times"
        return value if both.all() else f"{value} ({plural(int(both.sum()), 'pair')})"

    def apart(self, method: str, other: str) -> int:
        """Return the number of pairs in which the intervals of two methods' probabilities do not overlap."""
        limits = [
            (one[method].limits(goal), one[other].limits(goal))
            for one, goal, _ in self.pairs
            if {method, other} <= one.keys()
        ]
        return sum(own[0] > others[1] or others[0] > own[1] for own, others in limits)


def on_nasbench(
    rows: Rows, training: Callable[[Rows, int], float], methods: Callable[[Rows, int], dict[str, Proposals]]
) -> Pairs:
    """Return all pairs of NAS-Bench-201 for a final training."""
    each = [(methods(rows, budget), budget) for budget in BUDGETS]
    return Pairs([(one, goal, training(rows, b)) for one, b in each for goal in satisficing.accuracies(b)])


def on_bank() -> Pairs:
    """Return all pairs of the bank."""
    pace = load(satisficing_bank.BANK)["pace"]
    each = [(satisficing_bank.methods(name), name) for name in satisficing_bank.BUDGETS]
    return Pairs([
        (one, goal, satisficing_bank.final_training(pace, name))
        for one, name in each
        for goal in satisficing_bank.accuracies(name)
    ])  # fmt: skip


def answers(rows: Rows) -> list[str]:
    """Return the two questions with their answers as lines."""
    short = on_nasbench(rows, satisficing.short_training, satisficing.methods)
    full = on_nasbench(rows, satisficing.full_training, satisficing.methods)
    bank = on_bank()
    return [
        *paragraph("**What does it cost to find a cell that satisfices?**", *costs(short, full, bank)),
        *paragraph("**Which heuristics make it cheaper?**", *heuristics(rows, short, full, bank)),
    ]


def costs(short: Pairs, full: Pairs, bank: Pairs) -> list[str]:
    """Return the five sentences on costs, from the pairs of NAS-Bench-201 with both final trainings and those of the bank."""
    shortest, longest, trained = (one.cheapest()[0] for one in (short, full, bank))
    return [
        f"""On NAS-Bench-201, by the cheapest method for each of the {len(short.pairs)} pairs of a budget and an accuracy, it is
        {shortest.min() / 60:.1f} to {shortest.max() / 60:.1f} CPU minutes where the final training is that of this task (the short
        one), and {longest.min() / 3600:.0f} to {longest.max() / 3600:.0f} CPU hours where it is that of NAS-Bench-201 (the long one).""",
        f"With the short training, the cheapest method is {winners(short)}.",
        f"With the long one, it is {winners(full)}.",
        f"""In the geometric mean over the pairs in which both satisfice, {FIND[:15]} takes {short.ratio(FIND, HALVED)} as long as random
        cells that are halved with the same compute with the short training, and {full.ratio(FIND, HALVED)} with the long one.""",
        f"""On `{satisficing_bank.BANK}`, a network that satisfices costs {trained.min() / 60:.1f} to {trained.max() / 60:.1f} CPU minutes,
        and the cheapest method is {winners(bank)}, while {FIND[:15]} takes {bank.ratio(FIND, RANDOM)} as long as random cells that are
        simply trained.""",
    ]


def heuristics(rows: Rows, short: Pairs, full: Pairs, bank: Pairs) -> list[str]:
    """Return the five sentences on heuristics."""
    with_short, with_long = (
        on_nasbench(rows, training, satisficing.cheaper)
        for training in (satisficing.short_training, satisficing.full_training)
    )
    early = [one.ratio(EARLY, AVERAGED) for one in (short, full, bank)]
    ten = [one.ratio(TEN, RANDOM) for one in (short, full, bank)]
    usual = f"{AVERAGED}, as above"
    compared = [
        listed([f"{pairs.ratio(f'{AVERAGED}, {words}', usual)} with {words}" for words in CHEAPER])
        for pairs in (with_short, with_long)
    ]
    return [
        f"""Averaging two searches, and a third only if the first two disagree, takes {early[0]} as long as always averaging three
        with the short training, {early[1]} with the long one, and {early[2]} on the bank.""",
        f"""Averages of three cheaper searches take, compared with three usual ones and with the short training, {compared[0]}.""",
        f"With the long training, it is {compared[1]}.",
        f"""Ranking ten random cells by NASWOT before one is trained takes {ten[0]} as long as training random cells with the short
        training, {ten[1]} with the long one, and {ten[2]} on the bank.""",
        f"""These are few proposals: the intervals of {FIND[:15]} and of random cells halved do not overlap in
        {short.apart(FIND, HALVED)} of {len(short.pairs)} pairs on NAS-Bench-201 and in {bank.apart(FIND, HALVED)} of {len(bank.pairs)}
        on the bank, and those of one search and of three averaged in {short.apart("one search", AVERAGED)} and
        {bank.apart("one search", AVERAGED)}.""",
    ]


def winners(pairs: Pairs) -> str:
    """Return the cheapest methods with the number of pairs in which they are the cheapest, most frequent first, as text."""
    _, names = pairs.cheapest()
    return listed([f"{name.split(':')[0]} ({times} of {len(names)})" for name, times in Counter(names).most_common()])

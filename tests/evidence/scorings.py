"""The page's table of scorings: the same mixing weights, turned into the score of a choice in different ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.evidence import nasbench, searches, variants
from tests.evidence.figures import mean, paired_gain
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table

SEEDS = range(32)
"""Tuning seeds of the searches that are scored."""

Scoring = Callable[[np.ndarray], np.ndarray]
"""From log mixing weights (6, 5), less the mean of their edge, to the scores of the choices, (6, 5)."""


def default(logs: np.ndarray) -> np.ndarray:
    """Return the log mixing weights as they are."""
    return logs


def shrunk(share: float) -> Scoring:
    """Return the scoring that keeps a share of what an edge says beside the mean of all edges."""
    return lambda logs: logs.mean(0) + share * (logs - logs.mean(0))


def standardised(logs: np.ndarray) -> np.ndarray:
    """Return scores of the same spread on every edge."""
    return np.asarray(logs / logs.std(1, keepdims=True))


def ranked(logs: np.ndarray) -> np.ndarray:
    """Return the ranks of the choices on their edges, 0 to 4."""
    return logs.argsort(1).argsort(1).astype(np.float64)


def corrected(logs: np.ndarray) -> np.ndarray:
    """Return what is left of scores after a linear regression, over all choices, on what a choice costs in units."""
    cost = np.array([nasbench.PRICES[name] for name in nasbench.TASK.space.primitives], dtype=np.float64)
    cost -= cost.mean()
    return np.asarray(logs - (logs @ cost).mean() / (cost @ cost) * cost)


SCORINGS: dict[str, Scoring] = {
    "log mixing weight (the default)": default,
    "the same spread on every edge": standardised,
    "rank on its edge": ranked,
    "half of what the edge says, beside the mean of all edges": shrunk(0.5),
    "a quarter of it": shrunk(0.25),
    "the mean of all edges alone": shrunk(1e-6),
    "corrected for its cost": corrected,
}


def section(rows: Rows) -> list[str]:
    """Return the table as lines."""
    heading = ["## What a choice is scored by", ""]
    seeds = searches.seeds_of(rows, CURRENT.name, SEEDS)
    if len(seeds) < 3:
        return [*heading, NOT_RUN, ""]
    weights = searches.weights_of(rows, CURRENT.name, seeds)
    found = {name: measured(scoring, weights) for name, scoring in SCORINGS.items()}
    scores, orders = next(iter(found.values()))
    lines = []
    for name, scoring in SCORINGS.items():
        three, _ = measured(scoring, searches.groups(weights, 3))
        one, order = found[name]
        changed = scoring is not default
        gained = paired_gain(one, scores).text(sign=True) if changed else "–"
        ordered = paired_gain(order, orders).text(places=2, sign=True) if changed else "–"
        lines.append([name, mean(one), gained, mean(three), mean(order).text(places=2), ordered])
    return [
        *heading,
        *paragraph(
            f"""The program that derives takes any score for each (edge, primitive). Here are the CIFAR-10 scores of the searches
            `{CURRENT.name}` from the tuning seeds {ranges(seeds)} (n = {len(seeds)}), one by one and three averaged, with the log mixing
            weights turned into scores in different ways; *gain* is the mean paired difference from the default. *Order* is
            Spearman's correlation of one search's scores with the true accuracies of the cells of a band, as in the next section."""
        ),
        *table(["a choice is scored by", "one search", "gain", "three averaged", "order", "gain in order"], lines),
        *sources(searches.origins(rows, CURRENT.name, seeds)),
    ]


def measured(scoring: Scoring, weights: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Return the score and the order of each of several mixing weights (1, 6, 5) by a scoring."""
    scored = [np.exp(scoring(centred(one)))[None] for one in weights]
    return variants.scores(scored), variants.orders(scored)


def centred(weights: np.ndarray) -> np.ndarray:
    """Return log mixing weights less the mean of their edge, (6, 5)."""
    logs = np.log(weights[0])
    return np.asarray(logs - logs.mean(1, keepdims=True))

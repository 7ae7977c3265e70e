"""Table of scorings: scores computed from the same mixing weights in different ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.evidence import contributions, nasbench, searches, variants
from tests.evidence.figures import mean, paired_gain
from tests.evidence.plan import CURRENT
from tests.evidence.store import Rows, origin_of
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table

SEEDS = range(32)
"""Tuning seeds of the searches."""

Scoring = Callable[[np.ndarray], np.ndarray]
"""Function from log mixing weights (6, 5), centred on each edge, to the score of every (edge, primitive), (6, 5)."""


def default(logs: np.ndarray) -> np.ndarray:
    """Return the log mixing weights unchanged."""
    return logs


def shrunk(share: float) -> Scoring:
    """Return a scoring that keeps a share of each edge's deviation from the mean of all edges."""
    return lambda logs: logs.mean(0) + share * (logs - logs.mean(0))


def standardised(logs: np.ndarray) -> np.ndarray:
    """Return scores with a standard deviation of 1 on every edge."""
    return np.asarray(logs / logs.std(1, keepdims=True))


def ranked(logs: np.ndarray) -> np.ndarray:
    """Return the rank of every primitive on its edge, 0 to 4."""
    return logs.argsort(1).argsort(1).astype(np.float64)


def corrected(logs: np.ndarray) -> np.ndarray:
    """Return the residuals of a linear regression of all log mixing weights on the costs of the primitives in units."""
    cost = np.array([nasbench.PRICES[name] for name in nasbench.TASK.space.primitives], dtype=np.float64)
    cost -= cost.mean()
    return np.asarray(logs - (logs @ cost).mean() / (cost @ cost) * cost)


SCORINGS: dict[str, Scoring] = {
    "log mixing weight (the default)": default,
    "scaled to the same standard deviation on every edge": standardised,
    "rank on the edge": ranked,
    "deviation from the mean of all edges shrunk to a half": shrunk(0.5),
    "deviation from the mean of all edges shrunk to a quarter": shrunk(0.25),
    "the mean of all edges only": shrunk(1e-6),
    "corrected for the cost of the primitive": corrected,
}


def section(rows: Rows) -> list[str]:
    """Return the section as lines."""
    heading = ["## Ways to score a choice", ""]
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
            f"""The integer program that derives a cell accepts any score for each (edge, primitive). Here, the log mixing weights of the
            searches `{CURRENT.name}` with tuning seeds {ranges(seeds)} (n = {len(seeds)}) are turned into such scores in different ways.
            The table shows the CIFAR-10 scores of the derived cells, for single searches and for averages of three. *Gain* is the mean
            paired difference from the default. *Order* is Spearman's rank correlation between the scores that one search gives to the
            cells of a band and their true accuracies, as in the next section."""
        ),
        *table(["score of a choice", "one search", "gain", "three searches averaged", "order", "gain in order"], lines),
        *sources(searches.origins(rows, CURRENT.name, seeds)),
        *contributed(rows),
    ]


def contributed(rows: Rows) -> list[str]:
    """Return the table of the scores that are measured in a supernet as lines; empty if there are none."""
    known = rows.get("contributions", {"seeds": {}})
    if not known["seeds"]:
        return []
    seeds = sorted(map(int, known["seeds"]))
    results = [known["seeds"][str(seed)] for seed in seeds]
    usual = searches.weights_of(rows, CURRENT.name, seeds)
    plain = scored_by(usual)
    kinds = {
        f"log mixing weight of `{CURRENT.name}` (the default)": usual,
        "log mixing weight after sampling one candidate per edge": searches.weights_of(
            rows, searches.variant_name(contributions.KEYS), seeds
        ),
        "mean effect of the choice": [np.exp(contributions.mean_effects(one))[None] for one in results],
        "additive model of all choices": [np.exp(contributions.additive(one))[None] for one in results],
    }
    lines = []
    for name, weights in kinds.items():
        one, order = scored_by(weights)
        gains = ["–", "–"]
        if weights is not usual:
            gains = [
                paired_gain(own, other).text(places, sign=True)
                for own, other, places in zip((one, order), plain, (1, 2), strict=True)
            ]
        lines.append([name, len(seeds), mean(one), gains[0], mean(order).text(places=2), gains[1]])
    return [
        *paragraph(
            f"""The last two rows of the next table score a choice by its contribution to a supernet that was searched by sampling one
            candidate per edge (`{searches.variant_name(contributions.KEYS)}`, tuning seeds {ranges(seeds)}): after the search, the losses
            of up to {contributions.CELLS} random one-hot cells of each budget are measured on images of the search half. The *mean effect*
            of a choice is how much lower the losses of the cells with it are; the *additive model* is a ridge regression of the negative
            losses on all choices. Losses are centred for each budget. All rows have the same seeds."""
        ),
        *table(["score of a choice", "n", "one search", "gain", "order", "gain in order"], lines),
        *sources(origin_of(one, known) for one in results),
    ]


def scored_by(weights: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Return the CIFAR-10 scores and the orders of several searches, given their mixing weights or scores' exponentials, (1, 6, 5) each."""
    return variants.scores(weights), variants.orders(weights)


def measured(scoring: Scoring, weights: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Return the CIFAR-10 scores and the orders of several searches under a scoring, given their mixing weights, (1, 6, 5) each."""
    scored = [np.exp(scoring(centred(one)))[None] for one in weights]
    return scored_by(scored)


def centred(weights: np.ndarray) -> np.ndarray:
    """Return log mixing weights (6, 5), centred on each edge, from mixing weights (1, 6, 5)."""
    logs = np.log(weights[0])
    return np.asarray(logs - logs.mean(1, keepdims=True))

"""Made-up results for the tests of the page and of its tables."""

from __future__ import annotations

import itertools
import json

import numpy as np

from tests.evidence import finding, nasbench, relaxations, satisficing, searches, store
from tests.evidence.plan import CURRENT

MULTIPLIED = {
    "digits": {
        "90000": {
            "subtract": {
                "0": {"multiplier": 0.5, "0.0": (0.5, 0.91), "0.9": (0.9, 0.93)},
                "1": {"multiplier": 0.7, "0.0": (0.7, 0.93), "0.9": (1.0, 0.95)},
            },
            "two-sided": {"1": {"multiplier": -0.25, "0.0": (0.8, 0.96), "0.9": (0.92, 0.96)}},
        }
    }
}
"""Results by task, budget, rule and seed. Each pair holds the share of the budget that is used, and the accuracy."""


def multiplied() -> dict[str, object]:
    """Return MULTIPLIED in the format of multiplier.json."""
    runs = json.loads(json.dumps(MULTIPLIED))
    for seeds in runs["digits"]["90000"].values():
        for run in seeds.values():
            for spend in ("0.0", "0.9"):
                run[spend] = dict(zip(("used", "test_accuracy"), run[spend], strict=True))
    return {"command": "python -m tests.evidence multiplier", "date": "2026-11-30", "machine": "AMD EPYC", "runs": runs}


def bank_of(*cells: list[float]) -> store.Rows:
    """Return the rows of a bank with made-up accuracies in percent."""
    trained = {
        str(n): {str(seed): {"test_accuracy": one / 100, "cpu_seconds": 1.0} for seed, one in enumerate(cell)}
        for n, cell in enumerate(cells)
    }
    return {"cells": list(trained), "trained": trained}


FACTS = {"command": "python -m tests.evidence find", "date": "2026-12-01", "machine": "AMD EPYC"}


def weights(seed: int) -> np.ndarray:
    """Return random mixing weights (1, 6, 5)."""
    return np.random.default_rng(seed).dirichlet(np.ones(5), (1, 6))


def series(keys: dict[str, object], seeds: range) -> store.Rows:
    logs = {str(seed): {"cpu_seconds": 20.0, "log_weights": np.log(weights(seed)).tolist()} for seed in seeds}
    return {searches.variant_name(keys): {**FACTS, "keys": keys, "seeds": logs}}


def rounds_of(cells: list[int]) -> list[store.Rows]:
    """Return a halving of cells that kept the better half of the first round, in the order of the list."""
    accuracies = {str(cell): 0.5 - place / 100 for place, cell in enumerate(cells)}
    half = dict(itertools.islice(accuracies.items(), len(cells) // 2))
    return [{"epochs": 1, "accuracies": accuracies}, {"epochs": 2, "accuracies": half}]


def compared() -> store.Rows:
    """Return made-up results of two groups of searches, at the four budgets of the score."""
    groups: store.Rows = {}
    for group, seed in enumerate(finding.TEST_SEEDS[:6:3]):
        groups[str(seed)] = {}
        for budget in nasbench.BUDGETS:
            best = np.flatnonzero(CURRENT.cells(budget))[np.argsort(-nasbench.truth()[CURRENT.cells(budget)])]
            own, others = best[group : group + 4].tolist(), best[10 : 14 if group else 12].tolist()
            groups[str(seed)][str(budget)] = {"first": own[1], "way": rounds_of(own), "random": rounds_of(others)}
    names = {name: 20.0 for table in (relaxations.RELAXED, satisficing.CHEAPER) for name in table}
    pace = {
        "search": 20.0,
        "searches": {**names, "half the epochs": 10.0},
        "epoch": {"11": 1, "20": 2, "28": 3, "37": 4},
    }
    return {
        "searches": series(dict(CURRENT.keys), range(12)) | series({**CURRENT.keys, "search.epochs": 4}, range(12)),
        "trained": {},
        "cells": [],
        "pace": {**FACTS, **pace, "naswot": 2.5},
        "find": {**FACTS, "ways": {finding.WHOLE: groups}},
    }

"""Made-up results for the tests of the page and of its tables."""

from __future__ import annotations

import json

from tests.evidence import store

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

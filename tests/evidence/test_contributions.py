"""Tests of the contributions of choices to the losses of one-hot cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evidence import contributions, nasbench, scorings, searches, store
from tests.evidence.plan import CURRENT


def planted(effects: np.ndarray) -> store.Rows:
    """Return losses that are minus the sum of the effects (6, 5) of a cell's choices, plus a constant for each budget."""
    found = {}
    for budget in nasbench.BUDGETS:
        cells = np.random.default_rng(budget).choice(np.flatnonzero(CURRENT.cells(budget)), 17, replace=False)
        losses = budget - effects[np.arange(6), nasbench.all_cells()[cells]].sum(1)
        found[str(budget)] = {str(cell): float(loss) for cell, loss in zip(cells, losses, strict=True)}
    return {"cpu_seconds": 30.0, "losses": found}


def test_both_scores_find_planted_effects() -> None:
    effects = np.random.default_rng(0).normal(size=(6, 5))
    row = planted(effects)
    cells, losses = contributions.centred(row)
    assert len(cells) == 4 * 17
    for place in range(4):
        assert losses[17 * place : 17 * (place + 1)].sum() == pytest.approx(0, abs=1e-9)
    logs = contributions.additive(row)
    fitted = logs[np.arange(6), nasbench.all_cells()[cells]].sum(1)
    assert np.corrcoef(fitted, -losses)[0, 1] > 0.95
    by_hand = [
        [
            -losses[(nasbench.all_cells()[cells, edge] == primitive)].mean()
            if (nasbench.all_cells()[cells, edge] == primitive).any()
            else 0.0
            for primitive in range(5)
        ]
        for edge in range(6)
    ]
    assert contributions.mean_effects(row) == pytest.approx(np.array(by_hand))


def test_losses_are_measured_in_the_searched_supernet_and_kept(
    few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"data.fraction": 0.5, "search.batch": 10, "search.epochs": 1, "search.layers": [3], "search.channels": 2}
    monkeypatch.setattr(nasbench, "TASK", replace(nasbench.TASK, settings={**nasbench.TASK.settings, **small}))
    monkeypatch.setattr(contributions, "KEYS", {"search.relaxation": "gumbel"})
    monkeypatch.setattr(contributions, "SEEDS", range(2))
    monkeypatch.setattr(contributions, "CELLS", 3)
    contributions.run(1)
    rows = store.load("nasbench201")
    (first, second) = rows["contributions"]["seeds"].values()
    for budget in nasbench.BUDGETS:
        losses = first["losses"][str(budget)]
        assert len(losses) == 3 and CURRENT.cells(budget)[[*map(int, losses)]].all()
        assert len(set(losses.values())) == 3 and all(1 < loss < 5 for loss in losses.values())  # chance: log 10 = 2.3
    assert first["losses"] != second["losses"] and first["cpu_seconds"] > 0
    contributions.run(1)
    assert store.load("nasbench201") == rows


def test_the_table_compares_them_with_the_default_on_the_same_seeds() -> None:
    def series(keys: dict[str, object]) -> store.Rows:
        rng = np.random.default_rng(len(keys))
        logs = {
            str(seed): {"cpu_seconds": 9.0, "log_weights": rng.normal(size=(1, 6, 5)).tolist()} for seed in range(3)
        }
        return {searches.variant_name(keys): {"seeds": logs}}

    facts = {"command": "python -m tests.evidence contributions", "date": "2026-12-01", "machine": "AMD EPYC"}
    truth = nasbench.truth()
    best = {
        str(b): {str(cell): float(-truth[cell]) for cell in np.flatnonzero(CURRENT.cells(b))} for b in nasbench.BUDGETS
    }
    rows = {
        "searches": series(dict(CURRENT.keys)) | series(dict(contributions.KEYS)),
        "contributions": {**facts, "seeds": {str(seed): {"cpu_seconds": 30.0, "losses": best} for seed in range(3)}},
    }
    lines = scorings.contributed(rows)
    (fitted,) = (line for line in lines if line.startswith("| additive model"))
    _, _, n, score, gain, order, _, _ = map(str.strip, fitted.split("|"))
    assert n == "3" and float(score.split()[0]) > 90 and float(gain.split()[0]) > 0 and float(order.split()[0]) > 0.5
    assert any(CURRENT.name in line and "| 3 |" in line and "(the default)" in line for line in lines)

"""Tests of the rules for the multiplier: their steps, a search under one of them, and the table for made-up results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rapdarts.architecture.space import Skeleton
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.cost.penalty import Penalty
from rapdarts.loops import search as searching
from tests.evidence import (  # fmt: skip
    multiplier,
    nasbench,
    store,
    tasks,
)
from tests.evidence.made_up import multiplied


@pytest.fixture(scope="module")
def tiny_table() -> PriceTable:
    return price_table(nasbench.TASK.space, Skeleton(3, 4, (3, 8, 8), 10))


@pytest.mark.parametrize(
    ("rule", "after"),
    [  # after costs of 150, 100 and 50 % of the budget, starting at 0 with a rate of 0.5
        (multiplier.Subtracting, [0.25, 0.25, 0.0]),
        (Penalty, [0.25, 0.25, 0.25 / 16]),
        (multiplier.TwoSided, [0.25, 0.25, 0.0]),
    ],
)
def test_multipliers_after_costs_above_at_and_below_the_budget(
    rule: type[Penalty], after: list[float], tiny_table: PriceTable
) -> None:
    penalty, found = rule(tiny_table, {}, {"macs": 1000.0}), []
    for cost in (1500.0, 1000.0, 500.0):
        penalty.adjust({"macs": cost})
        found.append(penalty.multipliers["macs"])
    assert found == after

    place = penalty.resources.index("macs")
    assert penalty.weights[place] * penalty.reference[place] == pytest.approx(after[-1])


@pytest.mark.parametrize(
    ("rule", "after"), [(Penalty, 0.0), (multiplier.Subtracting, 0.0), (multiplier.TwoSided, -0.125)]
)
def test_only_a_two_sided_multiplier_falls_below_zero(
    rule: type[Penalty], after: float, tiny_table: PriceTable
) -> None:
    penalty = rule(tiny_table, {}, {"macs": 1000.0})
    penalty.adjust({"macs": 750.0})
    assert penalty.multipliers == {"macs": after}
    place = penalty.resources.index("macs")
    assert penalty.weights[place] * penalty.reference[place] == pytest.approx(after)


def test_a_rule_applies_only_within_its_block() -> None:
    with pytest.raises(KeyboardInterrupt), multiplier.adjusted_by("two-sided"):
        assert searching.Penalty is multiplier.TwoSided
        raise KeyboardInterrupt
    assert searching.Penalty is Penalty


def test_a_search_with_another_rule_is_run_once(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, budget = tasks.TASKS["cifar16"], 3_000_000  # more than any cell costs
    settings = {**task.settings, "search.epochs": 2, "search.channels": 2, "data.fraction": 0.5}
    recipe = {**task.recipe, "retrain.epochs": 1}
    monkeypatch.setitem(tasks.TASKS, "cifar16", replace(task, settings=settings, recipe=recipe))
    monkeypatch.setattr(multiplier, "BUDGETS", {"cifar16": ("macs", (budget,))})
    monkeypatch.setattr(multiplier, "RULES", {"two-sided": multiplier.TwoSided})
    multiplier.run(1, ["cifar16"], [0])
    known = store.load("multiplier")
    found = known["runs"]["cifar16"][str(budget)]["two-sided"]["0"]
    assert found["multiplier"] < 0 and found["cpu_seconds"] > 0
    assert [0 < found[spend]["used"] <= 1 for spend in ("0.0", "0.9")] == [True, True]
    assert not list(few_images.glob("multiplier-*"))

    multiplier.run(1, ["cifar16"], [0])  # already run
    assert store.load("multiplier") == known


def test_table_of_multipliers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    assert multiplier.section() == []
    store.save("multiplier", multiplied())
    rows = [line for line in multiplier.section() if line.startswith("| digits")]
    assert rows == [
        "| digits | 90,000 params | subtract | 0.0 | 2 | 60.0 ± 127.1 % | 92.0 ± 12.7 | -2.00 ± 0.00 | 0.60 ± 1.27 |",
        "| digits | 90,000 params | subtract | 0.9 | 2 | 95.0 ± 63.5 % | 94.0 ± 12.7 | – | 0.60 ± 1.27 |",
        "| digits | 90,000 params | two-sided | 0.0 | 1 | 80.0 % | 96.0 | +1.00 | -0.25 |",
        "| digits | 90,000 params | two-sided | 0.9 | 1 | 92.0 % | 96.0 | +1.00 | -0.25 |",
    ]
    text = " ".join(multiplier.section())
    assert "does not run these" in text and "`python -m tests.evidence multiplier`" in text

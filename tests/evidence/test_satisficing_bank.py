"""Tests of the section on satisficing for a bank, on made-up results."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evidence import (  # fmt: skip
    banks,
    nasbench,
    pace,
    satisficing,
    satisficing_answers,
    satisficing_bank,
    satisficing_tables,
    searches,
    store,
    tasks,
)
from tests.evidence.plan import CURRENT
from tests.evidence.satisficing import Proposals
from tests.evidence.satisficing_answers import Pairs
from tests.evidence.satisficing_bank import BANK, BUDGETS, CELLS

FACTS = {"command": "python -m tests.evidence satisfice", "date": "2026-12-01", "machine": "AMD EPYC"}
TRAININGS = (satisficing.short_training, satisficing.full_training)
FIND = "`rapdarts find`: eight cells of three searches, halved"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write made-up results of six searches, three random cells per budget and two runs of `rapdarts find`."""
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    monkeypatch.setattr(satisficing_bank, "SEARCHES", range(6))
    monkeypatch.setattr(satisficing_bank, "GROUPS", [range(3), range(3, 6)])
    satisficing_bank.accuracies.cache_clear()
    shape, rng = tasks.TASKS[BANK].space.mask.shape, np.random.default_rng(0)
    one, other, *rest = (np.log(rng.dirichlet(np.ones(shape[-1]), shape[:2])).tolist() for _ in range(6))
    logs = [one, one, other, *rest[:3]]  # the first two searches agree
    found = {str(seed): {"cpu_seconds": 45.0, "log_weights": weights} for seed, weights in enumerate(logs)}
    store.save(BANK, {
        "searches": {searches.PLAIN: {**FACTS, "keys": {}, "seeds": found}},
        "cells": [],
        "trained": {},
        "pace": {**FACTS, "search": 40.0, "epoch": dict.fromkeys(BUDGETS, 1.0), "naswot": 5.0},
    })  # fmt: skip
    for name in BUDGETS:
        cells = [genotype.line for genotype in banks.drawn(tasks.TASKS[name], 3)]
        singles, averages, pairs = satisficing_bank.derived(name)
        trained: dict[str, Any] = {
            line: {"0": {"test_accuracy": 0.9, "cpu_seconds": 9.0}} for line in [*singles, *averages, *pairs]
        }
        trained |= {line: {"0": {"test_accuracy": 0.80 + n / 100, "cpu_seconds": 9.0}} for n, line in enumerate(cells)}
        plan = {
            "replicas": 3,
            "search_epochs": 4,
            "rounds": [{"networks": 4, "epochs": 1}, {"networks": 2, "epochs": 2}],
        }
        runs = {
            str(seed): {"found": {"test_accuracy": 0.81}, "random": {"test_accuracy": accuracy}, "plan": plan}
            for seed, accuracy in ((100, 0.82), (101, None))
        }
        store.save(name, store.load(name) | {
            "cells": cells,
            "trained": trained,
            "bank": FACTS,
            "short": {**FACTS, "accuracies": {line: -n for n, line in enumerate(cells)}},
            "naswot": {**FACTS, "scores": {line: n for n, line in enumerate(cells)}},
            "find": {**FACTS, "seeds": runs},
        })  # fmt: skip
    return tmp_path


def test_the_best_of_several_is_counted_over_all_sets() -> None:
    rng = np.random.default_rng(3)
    accuracies, scores = rng.normal(80, 1, 9).tolist(), rng.normal(size=9).tolist()
    for number in (2, 4, 9):
        best = [max(one, key=lambda cell: scores[cell]) for one in itertools.combinations(range(9), number)]
        method = Proposals(accuracies, 1.0, best_of=number, scores=scores)
        assert method.chance(80.0) == pytest.approx(np.mean([accuracies[cell] >= 80.0 for cell in best]))
        assert method.n == 9 // number


def test_a_proposal_costs_what_it_ran(folder: Path) -> None:
    methods = satisficing_bank.methods(BANK)  # without those that need more than three random cells
    assert {name: one.seconds for name, one in methods.items()} == {
        "a random cell": 0.0,
        "random cells, halved": 3 * 20 + 8.0,  # half the epochs of the bank's searches
        "one search": 40.0,
        "three searches averaged": 120.0,
        "two searches, and a third if their rank correlation is below 0.3": (80 + 120) / 2,
        FIND: 3 * 20 + 8.0,
    }
    assert (methods["one search"].n, methods["three searches averaged"].n) == (6, 2)
    assert methods[FIND].accuracies == [81.0, 81.0]
    assert methods["random cells, halved"].accuracies == [82.0, 0.0]  # the second training diverged
    assert satisficing_bank.accuracies(BANK) == (81.0, 81.5, 81.8)
    assert satisficing_bank.final_training(store.load(BANK)["pace"], BANK) == 2 * 8 * 1.0


def test_the_tables_and_the_figure(folder: Path) -> None:
    text = "\n".join(satisficing_tables.on_bank())
    for macs in ("0.7M", "1M", "1.4M"):
        assert f"**{macs} MACs**, final training 16 CPU s:" in text
    assert text.count("| one search | 6 | 40 | 100 [61–100]: 0.9 min |") == len(BUDGETS) and FACTS["command"] in text
    assert text.count(f"| {FIND} | 2 | 68 | 100 [34–100]: 1.4 min | 0 [0–66]: never | 0 [0–66]: never |") == len(
        BUDGETS
    )
    (budgets,) = [
        lines for name, lines in satisficing_tables.figures(store.load("nasbench201")).items() if "bank" in name
    ]
    assert [line.budget for line in budgets] == ["0.7M MACs", "1M MACs", "1.4M MACs"]


def test_times_are_compared_over_all_pairs() -> None:
    never, half, sure = (Proposals([90.0] * n + [70.0] * (8 - n), 60.0) for n in (0, 4, 8))
    pairs = Pairs([
        ({"a": sure, "b": half}, 80.0, 0.0),
        ({"a": half, "b": half, "c": sure}, 80.0, 60.0),
        ({"a": never, "b": sure}, 80.0, 60.0),
    ])  # fmt: skip
    assert pairs.times("a").tolist() == [60.0, 240.0, np.inf] and pairs.times("c").tolist() == [np.inf, 120.0, np.inf]
    times, names = pairs.cheapest()
    assert times.tolist() == [60.0, 120.0, 120.0] and names == ["a", "c", "b"]
    assert pairs.ratio("a", "b") == "0.71 times (2 pairs)"  # the geometric mean of 1/2 and 1
    assert pairs.ratio("b", "b") == "1.00 times" and "unknown" in Pairs(pairs.pairs[2:]).ratio("a", "b")
    assert pairs.apart("a", "b") == 1  # 0 of 8 against 8 of 8; the intervals of 8 and 4 of 8 overlap
    assert satisficing_answers.winners(pairs) == "a (1 of 3), c (1 of 3) and b (1 of 3)"


def test_both_questions_are_answered_in_ten_sentences(folder: Path, rows: store.Rows) -> None:
    cell = nasbench.genotype(int(np.flatnonzero(CURRENT.cells(11))[0])).to_nasbench201()
    ten = {str(seed): {"cpu_seconds": 9.0, "cells": {str(b): cell for b in nasbench.BUDGETS}} for seed in CURRENT.seeds}
    known = rows["searches"][CURRENT.name]["seeds"]
    known |= {str(seed): known["0"] for seed in CURRENT.seeds}
    rows |= {"naswot": {**FACTS, "seeds": ten}}
    text = " ".join(satisficing_answers.answers(rows))
    both = [satisficing_answers.on_nasbench(rows, one, satisficing.methods) for one in TRAININGS]
    pairs = *both, satisficing_answers.on_bank()
    sentences = [*satisficing_answers.costs(*pairs), *satisficing_answers.heuristics(rows, *pairs)]
    assert len(sentences) == 10
    for sentence in sentences:
        assert " ".join(sentence.split()) in " ".join(text.split())
        assert "nan" not in sentence and " inf" not in sentence and sentence.endswith(".")


def test_a_page_without_these_results_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    assert "Not run yet." in satisficing_tables.on_bank()
    assert len(satisficing_tables.figures(store.load("nasbench201"))) == 1


@pytest.mark.proof
def test_everything_that_is_missing_is_run_once(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are real, with one random cell per budget, a search of one epoch, and no `rapdarts find`."""
    rng = np.random.default_rng(0)
    images = {
        f"x_{half}": rng.integers(0, 256, (n, 1, 14, 14), dtype=np.uint8) for half, n in (("train", 200), ("test", 20))
    }
    np.savez(few_images / "fashion_mnist_half.npz", **images, y_train=np.arange(200) % 10, y_test=np.arange(20) % 10)
    small = {
        **tasks.TASKS[BANK].settings, "search.epochs": 1, "search.subset": 1.0, "data.fraction": 0.2, "data.crop": 0,
        "search.batch": 10,
    }  # fmt: skip
    recipe = {**tasks.RECIPE, "retrain.epochs": 1, "retrain.batch": 10}
    for name in BUDGETS:
        changed = replace(tasks.TASKS[name], settings=small, recipe=recipe)
        monkeypatch.setitem(tasks.TASKS, name, changed)
    calls: list[object] = []
    monkeypatch.setattr(satisficing_bank.found, "run", lambda jobs, names: calls.append(names))
    monkeypatch.setattr(satisficing_bank, "CELLS", 2)
    monkeypatch.setattr(satisficing_bank, "SEARCHES", range(3))
    monkeypatch.setattr(satisficing_bank, "GROUPS", [range(3)])
    for name in BUDGETS:
        store.keep(name, [genotype.line for genotype in banks.drawn(tasks.TASKS[name], 2)], "cells")
    monkeypatch.setattr(pace, "CELLS", 1)
    satisficing_bank.run(1)
    first = {name: store.load(name) for name in BUDGETS}
    satisficing_bank.run(1)
    assert {name: store.load(name) for name in BUDGETS} == first and calls == [BUDGETS, BUDGETS]
    for rows in first.values():
        assert {*rows["short"]["accuracies"]} == {*rows["cells"]} == {*rows["naswot"]["scores"]}
        assert {*rows["cells"]} <= {*rows["trained"]}
    assert CELLS == 40
    assert {*pace.measured_on_bank()["epoch"]} == {*BUDGETS}

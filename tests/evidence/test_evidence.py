"""The program that writes docs/evidence.md: scores, free rules, banks, and a page that is never out of date."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree
from bisect import bisect_left, bisect_right
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rapdarts.data.nasbench201 import PRIMITIVES, accuracy_table
from tests.evidence import (  # fmt: skip
    attempts,
    banks,
    budgeted,
    figure,
    free_rules,
    nasbench,
    naswot,
    page,
    plan,
    searches,
    store,
    tables,
    tasks,
    variants,
)
from tests.evidence.attempts import ALL_BUDGETS
from tests.evidence.figures import Mean, mean, percentile
from tests.evidence.workers import each

UNITS = {"none": 0, "skip_connect": 0, "nor_conv_1x1": 1, "nor_conv_3x3": 9, "avg_pool_3x3": 0}


# --- scores and free rules -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known_cells() -> list[tuple[tuple[str, ...], int, float]]:
    """Every cell with its units and its accuracy on CIFAR-10."""
    cells = itertools.product(range(5), repeat=6)
    named = [(tuple(PRIMITIVES[place] for place in cell), float(accuracy_table()[cell][0])) for cell in cells]
    return [(names, sum(UNITS[name] for name in names), accuracy) for names, accuracy in named]


@pytest.mark.parametrize("budget", ALL_BUDGETS)
def test_free_rules_are_what_enumeration_gives(
    known_cells: list[tuple[tuple[str, ...], int, float]], budget: int
) -> None:
    inside = [one for one in known_cells if 0.9 * budget <= one[1] <= budget]
    accuracies = sorted(accuracy for *_, accuracy in inside)

    def score(cells: list[tuple[tuple[str, ...], int, float]]) -> float:
        ranks = [bisect_left(accuracies, one[2]) + bisect_right(accuracies, one[2]) for one in cells]
        return 50 * sum(ranks) / len(ranks) / len(accuracies)

    usual = [one for one in known_cells if "none" not in one[0] and one[0].count("skip_connect") <= 3]
    derivable = [one for one in usual if one in inside]
    fewest = min(names.count("avg_pool_3x3") for names, *_ in derivable)
    highest = max(units for _, units, _ in usual if units <= budget)
    assert free_rules.any_cell(budget) == pytest.approx(50)
    assert free_rules.random_cell(budget) == pytest.approx(score(derivable))
    few = [one for one in derivable if one[0].count("avg_pool_3x3") == fewest]
    assert free_rules.fewest_pools(budget) == pytest.approx(score(few))
    assert free_rules.most_expensive(budget) == pytest.approx(score([one for one in usual if one[1] == highest]))


def test_the_best_of_five_is_that_of_many_draws() -> None:
    values = nasbench.scores(20)[free_rules.derivable(20)]
    drawn = np.random.default_rng(0).choice(values, (20_000, 5)).max(1)
    assert free_rules.best_of_five(20) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 20_000**0.5)


def test_a_band_is_the_same_in_units_and_in_macs() -> None:
    row = nasbench.TASK.table.row("macs")
    added = nasbench.TASK.table.prices[row, 0][np.arange(6), nasbench.all_cells()].sum(1)
    macs = nasbench.TASK.table.fixed[row] + added
    assert (macs == nasbench.FIXED + nasbench.UNIT * nasbench.units()).all()
    for budget in ALL_BUDGETS:
        limit = nasbench.FIXED + nasbench.UNIT * budget
        assert ((macs <= limit) & (macs >= 0.9 * limit) == nasbench.band(budget)).all()


def test_cells_are_read_and_written() -> None:
    for cell in (0, 4711, 15_624):
        genotype = nasbench.genotype(cell)
        assert nasbench.number(genotype) == cell == nasbench.number(banks.genotype_of(genotype.to_nasbench201()))


def test_paths_of_a_cell() -> None:
    skips, lost = nasbench.path_of_skips(), nasbench.unreachable()
    for line, by_skips, unreached in [
        ("|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|skip_connect~1|none~2|", True, False),
        ("|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|", False, True),
    ]:
        cell = nasbench.number(banks.genotype_of(line))
        assert (skips[cell], lost[cell]) == (by_skips, unreached)


def test_equal_values_count_half() -> None:
    assert percentile(2, np.array([1, 2, 2, 3])) == 50
    assert percentile(3, np.array([1, 2])) == 100
    assert nasbench.scores(28)[nasbench.band(28)].mean() == pytest.approx(50)


def test_means_have_their_standard_errors() -> None:
    assert mean([1.0, 3.0]) == Mean(2.0, 1.0, 2)
    assert mean([1.0]).error is None and not mean([1.0]).positive
    assert Mean(5.0, 2.0, 9).positive and not Mean(4.0, 2.0, 9).positive
    assert Mean(5.0, 3.0, 9).minus(Mean(1.0, 4.0, 9)) == Mean(4.0, 5.0, 9)
    assert Mean(5.0, 3.0, 9).minus(Mean(1.0, None, 0)).text(sign=True) == "+4.0 ± 3.0"


def test_a_verdict_names_what_is_beaten() -> None:
    gains = {"chance": Mean(9, 1, 12), "NASWOT": Mean(1, 1, 12)}
    assert attempts.verdict("one search", gains) == "One search beats chance by two standard errors, but not NASWOT."
    assert (
        attempts.verdict("three averaged", {"chance": Mean(9, 1, 4)})
        == "Three averaged beat chance by two standard errors."
    )


# --- searches ------------------------------------------------------------------------------------------------------


def test_groups_are_disjoint_means_in_order() -> None:
    weights = [np.full((1, 6, 5), value) for value in (1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 3.0)]
    assert [group[0, 0, 0] for group in searches.groups(weights, 3)] == pytest.approx([2.0, 8.0])
    assert len(searches.groups(weights, 1)) == 7 and not searches.groups(weights[:2], 3)


def test_enumeration_derives_what_the_product_derives() -> None:
    rng = np.random.default_rng(0)
    for budget in ALL_BUDGETS:
        weights = rng.dirichlet(np.ones(5), (1, 6))
        assert nasbench.strongest(weights, variants.derivable(budget)) == nasbench.derived(weights, budget)


def test_every_attempt_has_test_seeds_of_its_own() -> None:
    seeds = [seed for attempt in plan.ATTEMPTS for seed in attempt.seeds]
    assert seeds == list(range(100, 100 + 12 * len(plan.ATTEMPTS)))


def test_results_are_kept_beside_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    for seed in ("10", "9", "0"):
        store.keep("made_up", {"cpu_seconds": 1.5}, "searches", "plain", "seeds", seed)
    store.keep("made_up", {"test_accuracy": 0.5}, "trained", "a cell", "0")
    rows = store.load("made_up")
    assert list(rows["searches"]["plain"]["seeds"]) == ["0", "9", "10"]
    assert rows["trained"] == {"a cell": {"0": {"test_accuracy": 0.5}}}
    assert store.own_origin(store.origin()) == {}
    assert store.own_origin({**store.origin(), "date": "2000-01-01"}).keys() == {"date"}


@pytest.fixture
def few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which everything happens, with 200 random images in place of CIFAR-10."""
    rng = np.random.default_rng(0)
    halves = {"train": 200, "test": 20}
    arrays = {f"x_{half}": rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8) for half, n in halves.items()}
    labels = {f"y_{half}": np.arange(n) % 10 for half, n in halves.items()}
    np.savez(tmp_path / "cifar10_half.npz", **arrays, **labels)
    monkeypatch.setattr(store, "FOLDER", tmp_path / "results")
    store.FOLDER.mkdir()
    for module in (banks, budgeted, searches, tasks):
        monkeypatch.setattr(module, "WORK", tmp_path)
    return tmp_path


def test_a_series_of_searches_from_nothing(few_images: Path) -> None:
    keys = {"search.epochs": 1, "data.fraction": 0.4, "search.channels": 2}
    searches.run_series("nasbench201", keys, [3, 1], jobs=1)
    rows = store.load("nasbench201")
    name = "data.fraction=0.4 search.channels=2 search.epochs=1"
    assert list(rows["searches"]) == [name] and rows["searches"][name]["keys"] == keys
    assert searches.seeds_of(rows, name, range(5)) == [1, 3]
    (weights, _) = searches.weights_of(rows, name, [1, 3])
    assert weights.shape == (1, 6, 5) and weights.sum(-1) == pytest.approx(np.ones((1, 6)), abs=1e-4)
    assert nasbench.band(28)[nasbench.derived(weights, 28)]

    searches.run_series("nasbench201", keys, [1, 3], jobs=1)  # all are there
    assert store.load("nasbench201") == rows
    found = budgeted.one_search(keys, 20)
    assert 0.9 <= found["macs"] / (nasbench.FIXED + 20 * nasbench.UNIT) <= 1
    assert not list(few_images.glob("nasbench201-*"))


def test_what_a_bank_derives_is_trained_once(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks.TASKS["cifar16"]
    recipe = {**task.recipe, "retrain.epochs": 1, "data.fraction": 0.5}
    monkeypatch.setitem(tasks.TASKS, "cifar16", replace(task, recipe=recipe))
    keys = {"search.epochs": 1, "data.fraction": 1.0, "search.subset": 0.5}
    searches.run_series("cifar16", keys, [0], jobs=1)
    plan.train_derived("cifar16", keys, [0], [0], jobs=1)
    trained = store.load("cifar16")["trained"]
    assert [list(seeds) for seeds in trained.values()] == [["0"]]
    plan.train_derived("cifar16", keys, [0], [0], jobs=1)  # it is there
    assert store.load("cifar16")["trained"] == trained
    assert not list(few_images.glob("cifar16-*"))


def test_processes_give_what_one_gives() -> None:
    calls = [([1, 2, 4],), ([7],)]
    found = [sorted(each(tables.ranges, calls, jobs)) for jobs in (1, 2)]
    assert found[0] == found[1] == [(([1, 2, 4],), "1-2, 4"), (([7],), "7")]


# --- images, NASWOT ------------------------------------------------------------------------------------------------


def test_images_are_halved_by_hand() -> None:
    pixels = np.array(
        [[0, 1, 1, 2, 9], [0, 1, 1, 2, 9], [250, 255, 0, 0, 9], [255, 255, 0, 3, 9], [9, 9, 9, 9, 9]], np.uint8
    )
    halved = tasks.halved(pixels[None, None])
    assert halved.dtype == np.uint8
    assert halved.tolist() == [[[[0, 2], [254, 1]]]]  # 0.5 and 1.5 go to the even neighbour; 253.75, 0.75


def test_naswot_tells_networks_apart() -> None:
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    space, skeleton = nasbench.TASK.space, nasbench.TASK.table.skeleton
    genotypes = [nasbench.genotype(cell) for cell in free_rules.derivable(11)[:2]]
    first, again, other = (naswot.naswot(space, skeleton, genotypes[one], images, seed=1) for one in (0, 0, 1))
    assert first == again != other and np.isfinite([first, other]).all()


# --- banks ---------------------------------------------------------------------------------------------------------


def bank_of(*cells: list[float]) -> store.Rows:
    """Return the rows of a bank with made-up accuracies in percent."""
    trained = {
        str(n): {str(seed): {"test_accuracy": one / 100, "cpu_seconds": 1.0} for seed, one in enumerate(cell)}
        for n, cell in enumerate(cells)
    }
    return {"cells": list(trained), "trained": trained}


def test_headroom_of_made_up_banks() -> None:
    room = banks.headroom(bank_of([10, 12], [20, 22]))
    assert room and (room.noise, room.between, room.error) == pytest.approx((2**0.5, 7, 1))
    assert room.exists
    none = banks.headroom(bank_of([10, 12], [12, 10]))
    assert none and none.between == 0 and not none.exists
    assert banks.headroom(bank_of([10], [20])) is None


def test_headroom_is_recovered_from_noise() -> None:
    rng = np.random.default_rng(0)
    room = banks.headroom(bank_of(*(rng.normal(60, 2) + rng.normal(0, 1, 3) for _ in range(2000))))
    assert room and room.noise == pytest.approx(1, rel=0.05) and room.between == pytest.approx(2, rel=0.05)


def test_a_genotype_is_not_compared_with_itself() -> None:
    rows = bank_of([10, 12], [20, 22], [30, 32])
    assert [banks.standing(rows, line) for line in rows["cells"]] == [0, 50, 100]
    assert banks.agreement(rows, [1, 2, 3]) == pytest.approx(1)


@pytest.mark.parametrize("name", plan.BANKS)
def test_cells_of_a_bank_keep_its_band_and_its_cap(name: str) -> None:
    lines, task = store.load(name)["cells"], tasks.TASKS[name]
    if not lines:
        pytest.skip("its cells are not drawn yet")
    assert len(set(lines)) == len(lines) == banks.CELLS
    for genotype in map(banks.genotype_of, lines):
        assert 0.9 * task.macs <= task.table.exact(genotype)["macs"] <= task.macs
        assert sum(primitive == "skip_connect" for node in genotype.cells["normal"].nodes for primitive, _ in node) <= 2
    assert [genotype.line for genotype in banks.drawn(task, 5)] == lines[:5]


# --- the page ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    assert page.render() == page.PAGE.read_text(encoding="utf-8"), "run `python -m tests.evidence render`"


def test_a_page_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    text = page.render()
    assert text.startswith("# Evidence") and text.count("Not run yet.") == 5 and "evidence.svg" not in text
    assert figure.draw(store.load("nasbench201")).startswith(b"<?xml")


def test_a_page_with_all_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    rng, facts = np.random.default_rng(0), store.origin()

    def series(task: str, keys: dict[str, object], seeds: range) -> store.Rows:
        shape = tasks.TASKS[task].space.mask.shape
        logs = {str(seed): np.log(rng.dirichlet(np.ones(shape[-1]), shape[:2])).tolist() for seed in seeds}
        found = {seed: {"cpu_seconds": 20.0, "log_weights": one} for seed, one in logs.items()}
        return {searches.variant_name(keys): {**facts, "keys": keys, "seeds": found}}

    ten = {str(budget): nasbench.genotype(free_rules.derivable(budget)[0]).to_nasbench201() for budget in ALL_BUDGETS}
    one = {"cpu_seconds": 20.0, "cell": ten["11"], "macs": nasbench.FIXED + 10 * nasbench.UNIT}
    rows = store.load("nasbench201") | {
        "searches": series("nasbench201", {}, range(3))
        | series("nasbench201", dict(plan.CURRENT.keys), range(100, 106)),
        "naswot": {**facts, "seeds": {"100": {"cpu_seconds": 9.0, "cells": ten}}},
        "budgeted": {**facts, "keys": {}, "seed": 0, "budgets": {"11": one}},
    }
    store.save("nasbench201", rows)
    cells = [genotype.line for genotype in banks.drawn(tasks.TASKS["cifar16"], 4)]
    trained = bank_of([60, 61], [63, 62], [66, 67], [64, 64])["trained"].values()
    store.save("cifar16", {
        "searches": series("cifar16", {}, range(3)),
        "cells": cells,
        "trained": dict(zip(cells, trained, strict=True)),
        "bank": facts,
        "naswot": {**facts, "seed": 0, "cpu_seconds": 9.0, "scores": dict(zip(cells, (1.0, 2.0, 3.0, 4.0), strict=True))},
    })  # fmt: skip
    store.save("multiplier", {**facts, "text": "How it rises.", "head": ["rate", "share"], "rows": [["0.5", "93 %"]]})

    text = page.render()
    for words in (
        "So far 6 of 12 searches have been run.",
        "| one search | 6 |",
        "| three averaged | 2 |",
        "One search beat",
        "| 11 units | 1 | 12,759,680 | 11,776,640 | 92.3% |",
        "| `as in the task` | 3 | 0-2 |",
        "| `cifar16` | 4 | 8 |",
        "three averaged, `as in the task`, seeds 0-2",
        "| NASWOT | 4 cells | 0.80 | 66.7 | 9 |",
        "`fashion14`: not run yet.",
        "| 0.5 | 93 % |",
    ):
        assert words in text, words


def test_the_figure_is_a_picture_of_the_results() -> None:
    drawn = ElementTree.fromstring((page.PAGE.with_suffix(".svg")).read_bytes())  # noqa: S314 - our own file
    words = " ".join("".join(one.itertext()) for one in drawn.iter("{http://www.w3.org/2000/svg}text"))
    for name in (*figure.REFERENCES, "three searches averaged", "million MACs"):
        assert name in words


def test_numbers_in_words() -> None:
    assert tables.ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert [tables.listed(list(words)) for words in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert tables.table(["", "n"], [["one", 1]]) == ["|  | n |", "| --- | ---: |", "| one | 1 |", ""]


def test_raw_results_are_rows_of_a_line() -> None:
    file = store.FOLDER / "nasbench201.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert rows["searches"] and all(series["command"] and series["date"] for series in rows["searches"].values())

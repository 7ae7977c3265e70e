"""Tests of the program that writes docs/evidence.md: scores, free rules, searches and banks."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rapdarts.data.nasbench201 import PRIMITIVES, accuracy_table
from rapdarts.strategy import agreement as reported
from tests.evidence import (  # fmt: skip
    agreement,
    attempts,
    banks,
    budgeted,
    derivations,
    free_rules,
    nasbench,
    naswot,
    plan,
    scorings,
    searches,
    store,
    tables,
    tasks,
    variants,
)
from tests.evidence.figures import Mean, mean, percentile
from tests.evidence.made_up import bank_of
from tests.evidence.nasbench import ALL_BUDGETS
from tests.evidence.plan import CURRENT
from tests.evidence.workers import each

UNITS = {"none": 0, "skip_connect": 0, "nor_conv_1x1": 1, "nor_conv_3x3": 9, "avg_pool_3x3": 0}


SKIP_PATHS = ([3], [0, 4], [1, 5], [0, 2, 5])
"""Edges of every path from input to output."""


def skip_paths_of(names: tuple[str, ...]) -> int:
    """Return the number of skip-only paths in a cell, given the primitive on each edge."""
    return sum(all(names[edge] == "skip_connect" for edge in path) for path in SKIP_PATHS)


# --- scores and free rules -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known_cells() -> list[tuple[tuple[str, ...], int, float]]:
    """Return every cell with its cost in units and its accuracy on CIFAR-10."""
    cells = itertools.product(range(5), repeat=6)
    named = [(tuple(PRIMITIVES[place] for place in cell), float(accuracy_table()[cell][0])) for cell in cells]
    return [(names, sum(UNITS[name] for name in names), accuracy) for names, accuracy in named]


@pytest.mark.parametrize("budget", ALL_BUDGETS)
def test_free_rules_agree_with_enumeration(known_cells: list[tuple[tuple[str, ...], int, float]], budget: int) -> None:
    inside = [one for one in known_cells if 0.9 * budget <= one[1] <= budget]
    accuracies = sorted(accuracy for *_, accuracy in inside)

    def score(cells: list[tuple[tuple[str, ...], int, float]]) -> float:
        ranks = [bisect_left(accuracies, one[2]) + bisect_right(accuracies, one[2]) for one in cells]
        return 50 * sum(ranks) / len(ranks) / len(accuracies)

    usual = [
        one
        for one in known_cells
        if "none" not in one[0] and one[0].count("skip_connect") <= 3 and skip_paths_of(one[0]) == 1
    ]
    derivable = [one for one in usual if one in inside]
    fewest = min(names.count("avg_pool_3x3") for names, *_ in derivable)
    highest = max(units for _, units, _ in usual if units <= budget)
    assert free_rules.any_cell(budget) == pytest.approx(50)
    assert free_rules.random_cell(budget) == pytest.approx(score(derivable))
    few = [one for one in derivable if one[0].count("avg_pool_3x3") == fewest]
    assert free_rules.fewest_pools(budget) == pytest.approx(score(few))
    assert free_rules.most_expensive(budget) == pytest.approx(score([one for one in usual if one[1] == highest]))


def test_best_of_five_agrees_with_many_draws() -> None:
    values = nasbench.scores(20)[np.flatnonzero(nasbench.derivable(20))]
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


def test_cells_survive_a_round_trip_through_text() -> None:
    for cell in (0, 4711, 15_624):
        genotype = nasbench.genotype(cell)
        assert nasbench.number(genotype) == cell == nasbench.number(banks.genotype_of(genotype.to_nasbench201()))


def test_skip_only_paths_and_unreachable_nodes_of_cells() -> None:
    skips, lost = nasbench.paths_of_skips(), nasbench.unreachable()
    for line, by_skips, unreached in [
        ("|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|skip_connect~1|none~2|", 1, False),
        ("|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|", 3, False),
        ("|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|", 0, True),
    ]:
        cell = nasbench.number(banks.genotype_of(line))
        assert (skips[cell], lost[cell]) == (by_skips, unreached)


def test_equal_values_count_half_in_percentiles() -> None:
    assert percentile(2, np.array([1, 2, 2, 3])) == 50
    assert percentile(3, np.array([1, 2])) == 100
    assert nasbench.scores(28)[nasbench.band(28)].mean() == pytest.approx(50)


def test_means_have_students_intervals() -> None:
    """t(1) = 12.706, t(2) = 4.303 and t(8) = 2.306 standard errors on each side."""
    assert mean([1.0, 3.0]) == Mean(2.0, 1.0, 2) and str(mean([1.0, 3.0])) == "2.0 ± 12.7"
    assert mean([1.0]).half is None and str(mean([1.0])) == "1.0" and not mean([1.0]).positive
    assert mean([1.0, 2.0, 3.0]).half == pytest.approx(4.302652729911275 / 3**0.5)
    assert Mean(4.7, 2.0, 9).positive and not Mean(4.6, 2.0, 9).positive
    assert Mean(5.0, 3.0, 9).minus(Mean(1.0, None, 0)).text(sign=True) == "+4.0 ± 6.9"


def test_differences_of_means_have_the_degrees_of_freedom_of_welch() -> None:
    from scipy.stats import ttest_ind

    first, second = [3.0, 5.0, 4.0, 9.0], [1.0, 1.5, 2.0]
    found = mean(first).minus(mean(second))
    expected = ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (found.value - found.half, found.value + found.half) == pytest.approx((expected.low, expected.high))


def test_a_verdict_names_the_rules_that_are_beaten() -> None:
    gains = {"chance": Mean(9, 1, 12), "NASWOT": Mean(1, 1, 12)}
    assert attempts.verdict(1, gains) == "One search beats chance with 95 % confidence, but not NASWOT."
    assert (
        attempts.verdict(3, {"chance": Mean(9, 1, 4)})
        == "An average of three searches beats chance with 95 % confidence."
    )
    none = {"chance": Mean(1, 1, 12), "NASWOT": Mean(-9, 1, 12)}
    assert attempts.verdict(1, none) == "One search does not beat any of these with 95 % confidence."


# --- searches ------------------------------------------------------------------------------------------------------


def test_groups_are_means_of_disjoint_consecutive_searches() -> None:
    weights = [np.full((1, 6, 5), value) for value in (1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 3.0)]
    assert [group[0, 0, 0] for group in searches.groups(weights, 3)] == pytest.approx([2.0, 8.0])
    assert len(searches.groups(weights, 1)) == 7 and not searches.groups(weights[:2], 3)


@pytest.mark.parametrize(("skip_paths", "spend"), [("any", 0.9), ("one", 0.9), ("one", 0.97)])
def test_enumeration_and_rapdarts_derive_the_same_cell(skip_paths: str, spend: float) -> None:
    rng = np.random.default_rng(0)
    for budget in ALL_BUDGETS:
        weights, cells = rng.dirichlet(np.ones(5), (1, 6)), nasbench.derivable(budget, skip_paths, spend)
        assert nasbench.strongest(weights, cells) == nasbench.derived(
            weights, budget, spend=spend, skip_paths=skip_paths
        )


@pytest.mark.proof
@pytest.mark.parametrize("attempt", plan.ATTEMPTS, ids=lambda one: f"seeds {one.seeds[0]}-{one.seeds[-1]}")
def test_enumeration_and_rapdarts_derive_the_same_cells_from_every_search_of_an_attempt(attempt: plan.Attempt) -> None:
    rows = store.load("nasbench201")
    seeds = searches.seeds_of(rows, attempt.name, attempt.seeds)
    assert seeds == list(attempt.seeds)
    weights = searches.weights_of(rows, attempt.name, seeds)
    expected = [
        [nasbench.derived(one, budget, spend=attempt.spend, skip_paths=attempt.skip_paths) for budget in ALL_BUDGETS]
        for one in weights
    ]
    assert attempts.judged(weights, attempt).cells == expected


def test_an_attempt_tells_which_goals_it_reached() -> None:
    best = [int(np.flatnonzero(CURRENT.cells(b))[nasbench.truth()[CURRENT.cells(b)].argmax()]) for b in ALL_BUDGETS]
    worst = [int(np.flatnonzero(CURRENT.cells(b))[nasbench.truth()[CURRENT.cells(b)].argmin()]) for b in ALL_BUDGETS]
    found = {1: attempts.Judged([worst, worst]), 3: attempts.Judged([best])}
    low, high = (found[size].score().value for size in (1, 3))
    assert attempts.goals(found) == (
        f"The goals were scores of at least: one search 70 (missed: {low:.1f}) and three searches averaged 80 (reached: {high:.1f})."
    )
    assert attempts.goals({}) == ""


def test_scorings_transform_log_mixing_weights() -> None:
    logs = np.arange(30.0).reshape(6, 5) % 7
    logs -= logs.mean(1, keepdims=True)
    assert (scorings.shrunk(1.0)(logs) == logs).all()
    assert np.ptp(scorings.shrunk(0.0)(logs), axis=0).max() == 0
    assert scorings.standardised(logs).std(1) == pytest.approx(np.ones(6))
    assert (scorings.ranked(logs).sum(1) == 10).all() and (scorings.ranked(logs).argmax(1) == logs.argmax(1)).all()
    cost = np.array([UNITS[name] for name in PRIMITIVES], dtype=float)
    assert scorings.corrected(logs + 0.3 * (cost - cost.mean())) == pytest.approx(scorings.corrected(logs))
    weights = np.random.default_rng(0).dirichlet(np.ones(5), (2, 1, 6))
    assert next(iter(scorings.SCORINGS.values())) is scorings.default
    assert scorings.measured(scorings.default, list(weights)) == (
        variants.scores(list(weights)),
        variants.orders(list(weights)),
    )


@pytest.mark.parametrize(
    "conditions", [one for one in derivations.CONDITIONS if one.skip_paths != "no"], ids=lambda one: one.name
)
def test_rapdarts_derives_the_same_cells_under_the_conditions_of_the_table(conditions: derivations.Conditions) -> None:
    weights = list(np.random.default_rng(1).dirichlet(np.ones(5), (2, 1, 6)))
    expected = [
        [
            nasbench.derived(
                one, budget, conditions.max_skips, conditions.spend, conditions.none, conditions.skip_paths
            )
            for budget in ALL_BUDGETS
        ]
        for one in weights
    ]
    assert derivations.derived(conditions, weights).tolist() == expected


def test_used_shares_of_budgets_in_units_and_macs() -> None:
    cheap, full = 0, int(np.flatnonzero(nasbench.units() == 11)[0])  # 0: none on every edge
    cells = np.array([[cheap] * 8, [full, cheap, cheap, cheap, *[full] * 4]])
    assert derivations.used_of(cells) == Mean(12.5, 12.5, 2)
    fixed = [nasbench.FIXED / (nasbench.FIXED + nasbench.UNIT * budget) for budget in nasbench.BUDGETS]
    of_macs = derivations.used_of(cells, nasbench.FIXED)
    assert of_macs.value == pytest.approx(100 * (sum(fixed) + 1 + sum(fixed[1:])) / 8)


def test_agreement_matches_the_agreement_that_rapdarts_reports() -> None:
    weights = list(np.random.default_rng(2).dirichlet(np.ones(5), (4, 1, 6)))
    genotypes = [[nasbench.genotype(nasbench.derived(one, budget)) for one in weights] for budget in nasbench.BUDGETS]
    space = nasbench.TASK.space
    found = [reported.agreement(space, weights, of_budget) for of_budget in genotypes]
    ours = agreement.correlation(weights)
    assert ours.value == pytest.approx(found[0].correlation) and ours.n == 4
    assert agreement.equal_choices(weights) == pytest.approx(np.mean([one.same for one in found]))
    assert agreement.of_means(0.5, 4) == reported.Agreement(4, 6, 1, 1, 0.5).reliability
    assert agreement.of_means(-0.1, 3) == 0


def test_jackknife_error_of_three_searches() -> None:
    orders = [[1, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]]
    weights = [np.broadcast_to(np.array([0, *order]) + np.arange(6)[:, None] * 9.0, (1, 6, 5)) for order in orders]
    one, two = (agreement.correlation([weights[0], weights[place]]) for place in (1, 2))
    assert one.value == pytest.approx(1) and one.error is None
    found = agreement.correlation(weights)
    assert found.value == pytest.approx((1 + 2 * two.value) / 3)
    assert found.error == pytest.approx(2 / 3 * (1 - two.value))  # leaving one out gives two.value, two.value and 1


def test_chance_of_equal_choices_is_the_mean_over_all_pairs() -> None:
    cells = nasbench.all_cells()[nasbench.derivable(11)]
    pairs = (cells[:, None] == cells[None]).sum(-1)
    assert agreement.chance(11) == pytest.approx(pairs.mean())


def test_every_attempt_has_its_own_test_seeds() -> None:
    seeds = [seed for attempt in plan.ATTEMPTS for seed in attempt.seeds]
    assert seeds == list(range(100, 100 + 12 * len(plan.ATTEMPTS)))


def test_new_results_are_added_to_existing_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    for seed in ("10", "9", "0"):
        store.keep("made_up", {"cpu_seconds": 1.5}, "searches", "plain", "seeds", seed)
    store.keep("made_up", {"test_accuracy": 0.5}, "trained", "a cell", "0")
    rows = store.load("made_up")
    assert list(rows["searches"]["plain"]["seeds"]) == ["0", "9", "10"]
    assert rows["trained"] == {"a cell": {"0": {"test_accuracy": 0.5}}}
    assert store.own_origin(store.origin()) == {}
    assert store.own_origin({**store.origin(), "date": "2000-01-01"}).keys() == {"date"}


def test_concurrent_results_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: store.keep("made_up", seed, "seeds", str(seed)), range(40)))
    assert store.load("made_up")["seeds"] == {str(seed): seed for seed in range(40)}


def test_a_series_of_searches_is_run_once(few_images: Path) -> None:
    keys = {"search.epochs": 1, "data.fraction": 0.4, "search.channels": 2}
    searches.run_series("nasbench201", keys, [3, 1], jobs=1)
    rows = store.load("nasbench201")
    name = "data.fraction=0.4 search.channels=2 search.epochs=1"
    assert list(rows["searches"]) == [name] and rows["searches"][name]["keys"] == keys
    assert searches.seeds_of(rows, name, range(5)) == [1, 3]
    (weights, _) = searches.weights_of(rows, name, [1, 3])
    assert weights.shape == (1, 6, 5) and weights.sum(-1) == pytest.approx(np.ones((1, 6)), abs=1e-4)
    assert nasbench.band(28)[nasbench.derived(weights, 28)]

    searches.run_series("nasbench201", keys, [1, 3], jobs=1)  # all exist
    assert store.load("nasbench201") == rows
    found = budgeted.one_search(keys, 20)
    assert 0.9 <= found["macs"] / (nasbench.FIXED + 20 * nasbench.UNIT) <= 1
    assert not list(few_images.glob("nasbench201-*"))


def test_derived_genotypes_of_a_bank_are_trained_once(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks.TASKS["cifar16"]
    recipe = {**task.recipe, "retrain.epochs": 1, "data.fraction": 0.5}
    monkeypatch.setitem(tasks.TASKS, "cifar16", replace(task, recipe=recipe))
    keys = {"search.epochs": 1, "data.fraction": 1.0, "search.subset": 0.5}
    searches.run_series("cifar16", keys, [0], jobs=1)
    plan.train_derived("cifar16", keys, [0], [0], jobs=1)
    trained = store.load("cifar16")["trained"]
    assert [list(seeds) for seeds in trained.values()] == [["0"]]
    plan.train_derived("cifar16", keys, [0], [0], jobs=1)  # already trained
    assert store.load("cifar16")["trained"] == trained
    assert not list(few_images.glob("cifar16-*"))


# --- processes -----------------------------------------------------------------------------------------------------


def test_several_processes_give_the_same_results_as_one() -> None:
    calls = [([1, 2, 4],), ([7],)]
    found = [sorted(each(tables.ranges, calls, jobs)) for jobs in (1, 2)]
    assert found[0] == found[1] == [(([1, 2, 4],), "1-2, 4"), (([7],), "7")]


# --- images, NASWOT ------------------------------------------------------------------------------------------------


def test_halved_images_are_rounded_means_of_2_x_2_pixels() -> None:
    pixels = np.array(
        [[0, 1, 1, 2, 9], [0, 1, 1, 2, 9], [250, 255, 0, 0, 9], [255, 255, 0, 3, 9], [9, 9, 9, 9, 9]], np.uint8
    )
    halved = tasks.halved(pixels[None, None])
    assert halved.dtype == np.uint8
    assert halved.tolist() == [[[[0, 2], [254, 1]]]]  # from 0.5, 1.5 (halves to even), 253.75 and 0.75


def test_naswot_differs_between_networks_and_is_reproducible() -> None:
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    space, skeleton = nasbench.TASK.space, nasbench.TASK.table.skeleton
    genotypes = [nasbench.genotype(cell) for cell in np.flatnonzero(nasbench.derivable(11))[:2]]
    first, again, other = (naswot.naswot(space, skeleton, genotypes[one], images, seed=1) for one in (0, 0, 1))
    assert first == again != other and np.isfinite([first, other]).all()


# --- banks ---------------------------------------------------------------------------------------------------------


def test_headroom_of_made_up_banks() -> None:
    room = banks.headroom(bank_of([10, 12], [20, 22]))
    assert room and (room.noise, room.between, room.error) == pytest.approx((2**0.5, 7, 1))
    assert room.exists
    none = banks.headroom(bank_of([10, 12], [12, 10]))
    assert none and none.between == 0 and not none.exists
    assert banks.headroom(bank_of([10], [20])) is None


def test_headroom_is_estimated_from_noisy_accuracies() -> None:
    rng = np.random.default_rng(0)
    room = banks.headroom(bank_of(*(rng.normal(60, 2) + rng.normal(0, 1, 3) for _ in range(2000))))
    assert room and room.noise == pytest.approx(1, rel=0.05) and room.between == pytest.approx(2, rel=0.05)


def test_a_genotype_is_not_compared_with_itself() -> None:
    rows = bank_of([10, 12], [20, 22], [30, 32])
    assert [banks.standing(rows, line) for line in rows["cells"]] == [0, 50, 100]
    assert banks.agreement(rows, [1, 2, 3]) == pytest.approx(1)


@pytest.mark.parametrize("name", plan.BANKS)
def test_cells_of_a_bank_are_in_its_band_and_meet_its_cap_on_skips(name: str) -> None:
    lines, task = store.load(name)["cells"], tasks.TASKS[name]
    assert len(set(lines)) == len(lines) == banks.CELLS
    for genotype in map(banks.genotype_of, lines):
        assert 0.9 * task.macs <= task.table.exact(genotype)["macs"] <= task.macs
        assert sum(primitive == "skip_connect" for node in genotype.cells["normal"].nodes for primitive, _ in node) <= 2
    assert [genotype.line for genotype in banks.drawn(task, 5)] == lines[:5]

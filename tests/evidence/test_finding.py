"""Tests of the comparisons of `rapdarts find` with random cells, and of the tables on satisficing and on relaxations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rapdarts.loops import launch
from rapdarts.training.intervals import wilson
from tests.evidence import (  # fmt: skip
    finding,
    finding_tables,
    found,
    nasbench,
    naswot,
    pace,
    plan,
    relaxations,
    satisficing,
    satisficing_figure,
    satisficing_tables,
    searches,
    store,
)
from tests.evidence.figure import as_svg
from tests.evidence.finding import Way
from tests.evidence.made_up import FACTS, series, weights
from tests.evidence.plan import CURRENT
from tests.evidence.satisficing_tables import Training

# --- cells and rounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", nasbench.BUDGETS)
def test_the_cells_of_a_way_are_the_best_that_are_far_enough_apart(budget: int) -> None:
    searched = [weights(seed) for seed in range(3)]
    logs = np.mean([np.log(one[0]) for one in searched], 0)
    scores = logs[np.arange(6), nasbench.all_cells()].sum(1)
    allowed = np.flatnonzero(CURRENT.cells(budget))
    assert Way().cells(searched, budget) == sorted(allowed, key=lambda cell: -scores[cell])[:8]

    cells = Way(apart=3).cells(searched, budget)
    chosen = nasbench.all_cells()[cells]
    greedy: list[int] = []
    for cell in sorted(allowed, key=lambda cell: -scores[cell]):
        if all((nasbench.all_cells()[cell] != nasbench.all_cells()[one]).sum() >= 3 for one in greedy):
            greedy.append(cell)
    assert cells == greedy[:8] and len(cells) == (8 if budget < 37 else len(greedy))
    assert min((a != b).sum() for a, b in itertools.combinations(chosen, 2)) >= 3


def test_the_names_of_ways_differ_and_the_first_is_that_of_rapdarts_find() -> None:
    assert len({way.name for way in finding.WAYS}) == len(finding.WAYS) >= 5
    assert [(one.networks, one.epochs) for one in finding.WAYS[0].rounds(8)] == [(8, 1), (4, 2), (2, 4)]
    assert Way(replicas=1, apart=2).words == (
        "8 cells of one search that differ on at least 2 edges; cells x epochs: 8 x 1, 4 x 2, 2 x 4"
    )
    assert len(finding.TEST_SEEDS) == 8 * 3 and not {*finding.TEST_SEEDS} & {
        seed for attempt in plan.ATTEMPTS for seed in attempt.seeds
    }


@pytest.mark.parametrize(
    ("searched", "epoch", "cells"), [(90.0, 2.0, 8), (90.0, 4.0, 8), (30.0, 3.5, 8), (60.0, 3.0, 3)]
)
def test_random_cells_get_the_compute_of_the_searches_and_the_rounds(searched: float, epoch: float, cells: int) -> None:
    rounds = Way().rounds(cells)
    own = searched + epoch * sum(one.networks * one.epochs for one in rounds)
    others = finding.random_rounds(rounds, searched, epoch, 20)
    assert epoch * sum(one.networks * one.epochs for one in others) == pytest.approx(own, rel=0.05)
    assert others[0].epochs == 1 and all(a.networks > b.networks for a, b in itertools.pairwise(others))


@pytest.fixture
def small(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return the settings of searches that take a second, and make the networks of the task small."""
    keys = {"search.batch": 10, "search.epochs": 1, "search.layers": [3], "search.channels": 2, "data.fraction": 0.5}
    settings = {**nasbench.TASK.settings, "data.fraction": 0.5, "skeleton.layers": 5}
    monkeypatch.setattr(nasbench, "TASK", replace(nasbench.TASK, settings=settings))
    attempt = plan.Attempt(range(1), keys, skip_paths="one")
    for module in (finding, pace):
        monkeypatch.setattr(module, "CURRENT", attempt)
    return keys


def test_a_comparison_trains_its_cells_on_the_same_images_and_is_not_repeated(
    small: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, loaded = [], launch.data_of
    monkeypatch.setattr(launch, "data_of", lambda *given: drawn.append(given) or loaded(*given))
    store.keep("nasbench201", {"search": 2.0, "epoch": {"11": 1.0}}, "pace")
    way = Way(replicas=1, halvings=2)
    finding.run([3], [way], 1, [11])
    assert len(drawn) == 2  # by the search, and by the comparison for all of its rounds
    rows = store.load("nasbench201")
    result = rows["find"]["ways"][way.name]["3"]["11"]
    cells = way.cells(searches.weights_of(rows, searches.variant_name(small), [3]), 11)
    first, second = result["way"]
    assert (
        {*map(int, first["accuracies"])} == {*cells} and [*second["accuracies"]] != [] and result["first"] == cells[0]
    )
    assert {*second["accuracies"]} == {*[*first["accuracies"]][:2]} and (first["epochs"], second["epochs"]) == (1, 2)
    for one in (first, second, *result["random"]):
        accuracies = [*one["accuracies"].values()]
        assert accuracies == sorted(accuracies, reverse=True) and all(0 <= accuracy <= 1 for accuracy in accuracies)
    others = [int(cell) for cell in result["random"][0]["accuracies"]]
    assert CURRENT.cells(11)[others].all() and len(set(others)) == len(others) >= 2
    assert finding.epochs_of(result["random"]) == pytest.approx(finding.epochs_of(result["way"]) + 2, rel=0.05)
    assert finding.winner(result["way"]) == int(next(iter(second["accuracies"])))

    finding.run([3], [way], 1, [11])
    assert store.load("nasbench201") == rows
    monkeypatch.setattr(finding, "RECIPE", {**finding.RECIPE, "retrain.lr": 0.1})
    with pytest.raises(ValueError, match="with other settings"):
        finding.run([3], [way], 1, [11])


def test_a_round_orders_its_cells_by_accuracy_or_also_by_the_searches(
    few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = {10: 0.3, 11: 0.1, 12: 0.4, 13: 0.2}
    trained: list[tuple[list[int], int, int]] = []

    def ranked(cells: list[int], epochs: int, seed: int, images: object) -> dict[int, float]:
        trained.append((cells, epochs, seed))
        return {cell: accuracies[cell] for cell in cells}

    monkeypatch.setattr(finding, "ranked", ranked)
    monkeypatch.setattr(finding, "images", lambda seed: None)
    short, rounds = finding.ShortTrainings(7), Way(halvings=2).rounds(4)

    def orders(prior: bool) -> list[list[int]]:
        return [[*map(int, one["accuracies"])] for one in finding.halved([11, 10, 12, 13], rounds, short, prior)]

    assert orders(prior=False) == [[12, 10, 13, 11], [12, 10]]
    # The ranks by accuracy and by the searches are 1 + 1 for cell 10, 0 + 2 for 12, 3 + 0 for 11 and 2 + 3 for 13.
    assert orders(prior=True) == [[12, 10, 11, 13], [12, 10]]
    assert trained == [([11, 10, 12, 13], 1, 7), ([12, 10], 2, 8)]  # those of the second way are known


def test_trainings_of_earlier_ways_are_not_repeated(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"epochs": 2, "accuracies": {"5": 0.5, "3": 0.25}}
    store.keep("nasbench201", {"way": [known], "random": []}, "find", "ways", "another", "7", "11")
    trained: list[int] = []
    monkeypatch.setattr(finding, "ranked", lambda cells, *_: trained.extend(cells) or dict.fromkeys(cells, 1.0))
    monkeypatch.setattr(finding, "images", lambda seed: None)
    assert finding.ShortTrainings(7).accuracies([3, 4, 5], 0, 2) == {3: 0.25, 4: 1.0, 5: 0.5}
    assert trained == [4]
    for other in ((7, 0, 1), (7, 1, 2), (10, 0, 2)):  # the seed of the group, the round and the epochs
        assert finding.ShortTrainings(other[0]).accuracies([3], *other[1:]) == {3: 1.0}


def test_the_time_of_an_epoch_leaves_out_what_a_run_does_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []
    monkeypatch.setattr(pace.time, "process_time", lambda: clock[0])

    def work(name: str, once: float, epoch: float) -> Callable[[int], object]:
        def run(epochs: int) -> None:
            order.append((name, epochs))
            clock[0] += once + epochs * epoch

        return run

    found = pace.seconds_per_epoch({"slow": work("slow", 30.0, 2.0), "fast": work("fast", 1.0, 0.5)})
    assert found == {"slow": 2.0, "fast": 0.5}
    assert order == [(name, epochs) for epochs in (pace.SHORT, pace.LONG) for name in ("slow", "fast")]


@pytest.mark.proof
def test_the_pace_is_measured_once_and_recipes_are_tried_once(
    small: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "RELAXED", {"softmax": {}, "drawn": {"search.relaxation": "gumbel"}})
    monkeypatch.setattr(pace, "CHEAPER", {"half": {"search.epochs": 4}})
    monkeypatch.setattr(nasbench, "BUDGETS", (11,))
    monkeypatch.setattr(finding, "RECIPES", ((10, 0.05),))
    monkeypatch.setattr(finding, "RECIPE_CELLS", 3)
    monkeypatch.setattr(naswot, "DRAWN", 2)
    store.keep("fashion14", {"search": 40.0}, "pace")
    pace.run()
    finding.try_recipes(1)
    rows = store.load("nasbench201")
    found = rows["pace"]
    assert {*found["searches"]} == {"softmax", "drawn", "half"} and {*found["epoch"]} == {"11"}
    assert found["search"] == found["searches"]["softmax"]
    assert found["naswot"] > 0
    (tried,) = rows["recipes"]["tried"].values()
    assert -1 <= tried["correlation"] <= 1 and 0 <= tried["accuracy"] <= 1
    pace.run()
    finding.try_recipes(1)
    assert store.load("nasbench201") == rows


# --- tables ------------------------------------------------------------------------------------------------------------


def test_the_table_compares_the_winners_by_their_known_accuracy(
    rows: store.Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finding_tables.Groups.of(rows, Way(), finding.TEST_SEEDS)
    ranked = [np.sort(nasbench.scores(b)[CURRENT.cells(b)])[::-1] for b in nasbench.BUDGETS]
    own = [np.mean([one[group] for one in ranked]) for group in (0, 1)]
    others = [np.mean([one[10] for one in ranked]) for _ in (0, 1)]
    assert found.scores("way") == pytest.approx(own)
    assert found.ahead("random").value == pytest.approx(np.mean(np.subtract(own, others)))
    assert found.ahead("first").value > 0
    assert found.seconds("first") == 3 * 20 and found.seconds("way") == 3 * 20 + np.mean([1, 2, 3, 4]) * (4 + 2 * 2)
    assert found.seconds("random") == np.mean([1, 2, 3, 4]) * np.mean([2 + 2, 4 + 4])
    text = " ".join("\n".join(finding_tables.section(rows)).split())
    assert "So far, 2 of 8 groups are finished." in text and "is reached" not in text
    monkeypatch.setattr(finding_tables, "TEST_SEEDS", finding.TEST_SEEDS[:6])
    text = " ".join("\n".join(finding_tables.section(rows)).split())
    assert "| random cells, halved | 2 |" in text and "a score of at least 88, is reached" in text
    assert "the other, to be two standard errors ahead of the random cells, is reached" in text
    assert "a random cell that is not trained at all scores 70.8" in text
    unfinished = {**rows["find"]["ways"][finding.WHOLE], "142": {"11": {}}}
    rows["find"]["ways"][finding.WHOLE] = unfinished
    assert len(finding_tables.Groups.of(rows, Way(), finding.TEST_SEEDS).results) == 2


def test_the_expected_time_is_that_of_a_proposal_and_its_training_by_the_chance() -> None:
    cells = np.flatnonzero(CURRENT.cells(20)).tolist()
    good = [cell for cell in cells if nasbench.truth()[cell] >= 93.5]
    bad = [cell for cell in cells if nasbench.truth()[cell] < 93.5]
    method = satisficing.proposed([*good[:2], *bad[:6]], 120.0)
    low, high = wilson(0.25, 8)
    assert method.chance(93.5) == 0.25 and method.limits(93.5) == (low, high)
    assert method.time(93.5, 60.0) == pytest.approx((120 + 60) / 0.25)
    words = f"25 [{100 * low:.0f}–{100 * high:.0f}]: 12.0 min, 4 h"
    assert satisficing_tables.cell(method, 93.5, [Training(60.0), Training(3600 - 120, "h", 0)]) == words
    never = satisficing.proposed(bad[:6], 120.0)
    assert never.time(93.5, 1.0) == np.inf and satisficing_tables.cell(never, 93.5, [Training(1)]).endswith("]: never")
    exact = satisficing.proposed(cells, 0.0, exact=True)
    share = len(good) / len(cells)
    assert (
        satisficing_tables.cell(exact, 93.5, [Training(60), Training(3600, "h", 0)])
        == f"{100 * share:.0f}: {1 / share:.1f} min, {1 / share:.0f} h"
    )


def test_accuracies_are_quantiles_and_full_trainings_are_extrapolated(rows: store.Rows) -> None:
    for budget in satisficing.BUDGETS:
        chances = [np.mean(nasbench.truth()[CURRENT.cells(budget)] >= one) for one in satisficing.accuracies(budget)]
        assert chances == pytest.approx([0.5, 0.25, 0.1], abs=0.06)
    assert satisficing.short_training(rows, 20) == 8 * 2 * 2  # epochs x halves of the images x seconds
    assert satisficing.full_training(rows, 20) == 200 * (50_000 / 1250) * 4 * 2


def test_the_methods_propose_what_was_measured(rows: store.Rows) -> None:
    methods, find = satisficing.methods(rows, 20), "`rapdarts find`: eight cells of three searches, halved"
    assert {*methods} >= {"a random cell", "random cells, halved", find}
    assert methods[find].n == 2 and methods[find].seconds == 3 * 20 + 2 * (4 + 2 * 2)
    four = methods["the best of 4 random cells after one epoch"]  # one group drew two cells, the other four
    assert four.seconds == 2 * np.mean([2, 4])
    winners = [finding.winner(one["20"]["random"]) for one in rows["find"]["ways"][finding.WHOLE].values()]
    assert four.accuracies == nasbench.truth()[winners].tolist()
    cheaper = satisficing.cheaper(rows, 20)
    assert cheaper["one search, half the epochs"].n == 12 and cheaper["one search, as above"].seconds == 20
    assert cheaper["three searches averaged, half the epochs"].n == 4
    assert cheaper["three searches averaged, half the epochs"].seconds == 30
    assert "one search, half the channels" not in cheaper


def test_a_third_search_runs_only_if_the_first_two_disagree(rows: store.Rows) -> None:
    seeds = rows["searches"][CURRENT.name]["seeds"]
    seeds["1"] = seeds["0"]  # the first group agrees, the second one is random
    found = satisficing.stopped_early(rows, [range(3), range(3, 6)], 11)
    first, second = (searches.weights_of(rows, CURRENT.name, group) for group in ([0, 1], [3, 4, 5]))
    assert satisficing.agreement(*first) == pytest.approx(1)
    assert satisficing.agreement(*second[:2]) < satisficing.AGREED
    assert found.seconds == pytest.approx((40 + 60) / 2) and found.n == 2


def test_the_sections_and_the_figure(rows: store.Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(satisficing_tables.section(rows))
    assert text.count("| `rapdarts find`: eight cells of three searches, halved | 2 |") == len(satisficing.BUDGETS)
    assert text.count("| one search, half the epochs | 12 |") == len(satisficing.BUDGETS) and FACTS["command"] in text
    (lines,) = satisficing_tables.figures(rows).values()
    assert as_svg(satisficing_figure.picture(lines)).startswith(b"<?xml")

    monkeypatch.setattr(store, "FOLDER", tmp_path)
    gumbel = {**CURRENT.keys, "search.relaxation": "gumbel"}
    store.save("nasbench201", rows | {"searches": rows["searches"] | series(gumbel, range(7))})
    lines = relaxations.section()
    (line,) = (one for one in lines if one.startswith("| one candidate drawn per edge"))
    assert (
        "| `search.relaxation=gumbel` | 7 |" in line
        and "+0.0 ± 0.0 |" in line
        and line.endswith("+0.00 ± 0.00 | 1.00 |")
    )
    assert any("Not run yet" in one for one in lines)

    run = {"test_accuracy": 0.8, "macs": 1e6}
    seeds = {
        str(seed): {
            "found": {**run, "test_accuracy": 0.81 + seed / 10000}, "random": run, "plan": {}, "genotype": "",
            "reference": {"name": "resnet20@3", **(run if seed > 100 else {"test_accuracy": None, "macs": None})},
            "seconds": {}, "choosing_seconds": {"found": 90.0, "random": 92.0}, "cpu_seconds": 200.0,
        }
        for seed in found.SEEDS
    }  # fmt: skip
    store.save("cifar16", {"searches": {}, "cells": [], "trained": {}, "find": {**FACTS, "seeds": seeds}})
    (line,) = (one for one in found.section() if one.startswith("| `cifar16`"))
    assert (
        "| 100-104 | 5 | 82.0 ± 0.0 | 80.0 ± 0.0 | +2.02 ± 0.02 | 80.0 ± 0.0 | +2.03 ± 0.02 | 1.00M | 90 and 92 |"
        in line
    )

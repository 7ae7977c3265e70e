"""Tests of the comparisons of `rapdarts find` with random cells, and of the tables on satisficing and on relaxations."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rapdarts.training.intervals import wilson
from tests.evidence import (  # fmt: skip
    finding,
    finding_tables,
    found,
    nasbench,
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
from tests.evidence.plan import CURRENT

FACTS = {"command": "python -m tests.evidence find", "date": "2026-12-01", "machine": "AMD EPYC"}


def weights(seed: int) -> np.ndarray:
    """Return random mixing weights (1, 6, 5)."""
    return np.random.default_rng(seed).dirichlet(np.ones(5), (1, 6))


def series(keys: dict[str, object], seeds: range) -> store.Rows:
    logs = {str(seed): {"cpu_seconds": 20.0, "log_weights": np.log(weights(seed)).tolist()} for seed in seeds}
    return {searches.variant_name(keys): {**FACTS, "keys": keys, "seeds": logs}}


def rounds_of(cells: list[int], epoch_seconds: float) -> store.Rows:
    """Return a halving of cells that kept the best half of the first round, in the order of the list."""
    accuracies = {str(cell): 0.5 - place / 100 for place, cell in enumerate(cells)}
    half = dict(itertools.islice(accuracies.items(), len(cells) // 2))
    rounds = [{"epochs": 1, "accuracies": accuracies}, {"epochs": 2, "accuracies": half}]
    return {"winner": cells[0], "epoch_seconds": epoch_seconds, "rounds": rounds}


@pytest.fixture
def rows() -> store.Rows:
    """Return made-up results of two groups of searches, at the four budgets of the score."""
    groups: store.Rows = {}
    for group, seed in enumerate(finding.TEST_SEEDS[:6:3]):
        groups[str(seed)] = {}
        for budget in nasbench.BUDGETS:
            best = np.flatnonzero(CURRENT.cells(budget))[np.argsort(-nasbench.truth()[CURRENT.cells(budget)])]
            own, others = best[group : group + 4].tolist(), best[10 : 14 if group else 12].tolist()
            groups[str(seed)][str(budget)] = {
                "searches": 60.0,
                "way": {"first": own[1], **rounds_of(own, 2.0)},
                "random": rounds_of(others, 3.0),
            }
    return {
        "searches": series(dict(CURRENT.keys), range(12)) | series({**CURRENT.keys, "search.epochs": 4}, range(12)),
        "trained": {},
        "cells": [],
        "find": {**FACTS, "recipe": {}, "ways": {Way().name: groups}},
    }


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
    assert 2 <= len(cells) <= 8 and set(cells) <= set(allowed.tolist())
    assert min((a != b).sum() for a, b in itertools.combinations(chosen, 2)) >= 3
    for cell in allowed:  # a better one was left out only if it is too close to a better one still
        better = [one for one in cells if scores[one] > scores[cell]]
        if cell not in cells and len(better) < len(cells):
            near = [(nasbench.all_cells()[one] != nasbench.all_cells()[cell]).sum() < 3 for one in better]
            assert any(near) or scores[cell] < scores[cells[-1]]


def test_the_names_of_ways_differ_and_the_first_is_that_of_rapdarts_find() -> None:
    assert len({way.name for way in finding.WAYS}) == len(finding.WAYS) >= 5
    assert [(one.networks, one.epochs) for one in finding.WAYS[0].rounds] == [(8, 1), (4, 2), (2, 4)]
    assert Way(replicas=1, apart=2).words == (
        "8 cells of one search, which differ on at least 2 edges; cells x epochs: 8 x 1, 4 x 2, 2 x 4"
    )
    assert len(finding.TEST_SEEDS) == 8 * 3 and not {*finding.TEST_SEEDS} & {
        seed for attempt in plan.ATTEMPTS for seed in attempt.seeds
    }


@pytest.mark.parametrize(("searched", "seconds"), [(90.0, 2.0), (90.0, 4.0), (30.0, 3.5)])
def test_random_cells_get_the_compute_of_the_searches_and_the_rounds(searched: float, seconds: float) -> None:
    rounds = finding.random_rounds(Way(), searched, seconds, 20)
    spent = seconds * sum(one.networks * one.epochs for one in rounds)
    assert spent == pytest.approx(searched + 24 * seconds, rel=0.05)
    assert rounds[0].epochs == 1 and all(a.networks > b.networks for a, b in itertools.pairwise(rounds))


def test_a_comparison_trains_its_cells_and_is_not_repeated(few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"search.batch": 10, "search.epochs": 1, "search.layers": [3], "search.channels": 2, "data.fraction": 0.5}
    small = {**nasbench.TASK.settings, "data.fraction": 0.5, "skeleton.layers": 5}
    monkeypatch.setattr(nasbench, "TASK", replace(nasbench.TASK, settings=small))
    monkeypatch.setattr(finding, "CURRENT", plan.Attempt(range(1), keys, skip_paths="one"))
    way = Way(replicas=1, halvings=1)
    finding.run([3], [way], 1, [11])
    rows = store.load("nasbench201")
    (group,) = rows["find"]["ways"][way.name].values()
    result = group["11"]
    cells = way.cells(searches.weights_of(rows, searches.variant_name(keys), [3]), 11)
    (only,) = result["way"]["rounds"]
    assert {*map(int, only["accuracies"])} == {*cells} and only["epochs"] == 1
    assert result["way"]["first"] == cells[0] and result["way"]["winner"] == int(next(iter(only["accuracies"])))
    assert [*only["accuracies"].values()] == sorted(only["accuracies"].values(), reverse=True)
    assert all(0 <= one <= 1 for one in only["accuracies"].values())
    drawn = [int(cell) for cell in result["random"]["rounds"][0]["accuracies"]]
    assert CURRENT.cells(11)[drawn].all() and len(set(drawn)) == len(drawn) >= 2
    assert result["searches"] > 0 and result["cpu_seconds"] > 0
    finding.run([3], [way], 1, [11])
    assert store.load("nasbench201") == rows


# --- tables ------------------------------------------------------------------------------------------------------------


def test_the_table_compares_the_winners_by_their_known_accuracy(rows: store.Rows) -> None:
    groups = finding_tables.Groups.of(rows, Way(), finding.TEST_SEEDS)
    best = [nasbench.scores(b)[CURRENT.cells(b)] for b in nasbench.BUDGETS]
    ranked = [np.sort(one)[::-1] for one in best]
    own = [np.mean([one[group] for one in ranked]) for group in (0, 1)]
    others = [np.mean([one[10] for one in ranked]) for _ in (0, 1)]
    assert groups.scores(groups.cells("way")) == pytest.approx(own)
    assert finding_tables.difference(groups, "random").value == pytest.approx(np.mean(np.subtract(own, others)))
    assert finding_tables.difference(groups, "first").value > 0
    assert (groups.seconds("searches"), groups.seconds("way")) == (60.0, 2.0 * (4 + 2 * 2))
    text = " ".join("\n".join(finding_tables.section(rows)).split())
    assert "| random cells, halved | 2 |" in text and "a score of at least 88, is reached" in text
    assert "the other, to be two standard errors ahead of the random cells, is reached" in text


def test_expected_minutes_are_the_time_of_a_proposal_by_its_chance() -> None:
    cells = np.flatnonzero(CURRENT.cells(20)).tolist()
    good = [cell for cell in cells if nasbench.truth()[cell] >= 93.5]
    bad = [cell for cell in cells if nasbench.truth()[cell] < 93.5]
    method = satisficing.Proposals([*good[:2], *bad[:6]], 120.0)
    assert method.minutes(93.5) == pytest.approx(2 / 0.25)
    low, high = wilson(0.25, 8)
    assert method.limits(93.5) == pytest.approx((2 / high, 2 / low))
    assert satisficing_tables.cell(method, 93.5) == f"8.0 [{2 / high:.1f}–{2 / low:.1f}] (25%)"
    never = satisficing.Proposals(bad[:6], 120.0)
    assert never.minutes(93.5) == np.inf and never.limits(93.5)[1] == np.inf
    assert satisficing_tables.cell(never, 93.5).startswith("∞ [")
    exact = satisficing.Proposals(cells, 0.0, exact=True)
    assert satisficing_tables.cell(exact, 93.5) == f"0.0 ({len(good) / len(cells):.0%})"


def test_the_methods_propose_what_was_measured(rows: store.Rows) -> None:
    methods = satisficing.methods(rows, 20)
    assert {*methods} >= {
        "a random cell",
        "random cells, halved",
        "`rapdarts find`: eight cells of three searches, halved",
    }
    own = methods["`rapdarts find`: eight cells of three searches, halved"]
    assert len(own.cells) == 2 and own.seconds == 60 + 2 * (4 + 2 * 2)
    four = methods["the best of 4 random cells after one epoch"]  # one group drew two cells, the other four
    assert four.seconds == 4 * 3.0 and four.cells == [rows["find"]["ways"][Way().name]["139"]["20"]["random"]["winner"]]
    cheaper = satisficing.cheaper(rows, 20)
    assert len(cheaper["one search, half the epochs"].cells) == 12 and cheaper["one search, as above"].seconds == 20
    assert len(cheaper["three searches averaged, half the epochs"].cells) == 4
    assert cheaper["three searches averaged, half the epochs"].seconds == 60
    assert "one search, half the channels" not in cheaper


def test_a_third_search_runs_only_if_the_first_two_disagree(rows: store.Rows) -> None:
    seeds = rows["searches"][CURRENT.name]["seeds"]
    seeds["1"] = seeds["0"]  # the first group agrees, the second one is random
    found = satisficing.stopped_early(rows, [range(3), range(3, 6)], 11)
    first, second = (searches.weights_of(rows, CURRENT.name, group) for group in ([0, 1], [3, 4, 5]))
    assert satisficing.agreement(first[0][0], first[1][0]) == pytest.approx(1)
    assert satisficing.agreement(second[0][0], second[1][0]) < satisficing.AGREED
    assert found.seconds == pytest.approx((40 + 60) / 2) and len(found.cells) == 2


def test_the_sections_and_the_figure(rows: store.Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(satisficing_tables.section(rows))
    assert text.count("| `rapdarts find`: eight cells of three searches, halved | 2 |") == len(satisficing.BUDGETS)
    assert as_svg(satisficing_figure.picture(rows)).startswith(b"<?xml")

    monkeypatch.setattr(store, "FOLDER", tmp_path)
    gumbel = {**CURRENT.keys, "search.relaxation": "gumbel"}
    store.save("nasbench201", rows | {"searches": rows["searches"] | series(gumbel, range(7))})
    lines = relaxations.section()
    (line,) = (one for one in lines if one.startswith("| one candidate drawn per edge"))
    assert "| `search.relaxation=gumbel` | 7 |" in line and "+0.0 ± 0.0 |" in line and "+0.00 ± 0.00 |" in line
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

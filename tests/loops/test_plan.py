"""Plans of `rapdarts find`: the division of the work in counts, its time, and plan.json."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rapdarts.config.experiment import Experiment, RetrainConfig, SearchConfig
from rapdarts.config.finding import FindConfig
from rapdarts.errors import InputError
from rapdarts.loops.pace import Pace, Sizes, StagePace
from rapdarts.loops.plan import (
    TOLERANCE,
    Plan,
    Round,
    compute,
    compute_of_search,
    durations,
    efforts,
    fitting,
    halving,
    plan_of,
    read_plan,
    with_random,
)

DIGITS = Experiment(search=SearchConfig(epochs=3, warmup_epochs=1, layers=[3, 3, 4]), retrain=RetrainConfig(epochs=10))
SIZES = Sizes(search_steps=5, rank_steps=40, rank_images=599, retrain_steps=80, test_images=600)
PACE = Pace((StagePace(0.5, 0.2, 0.4), StagePace(0.25, 0.1, 0.3)), build=0.125, train=0.05, test=0.001)


@pytest.mark.parametrize(
    ("effort", "epochs", "warmup", "rounds", "final"),
    [
        (1.0, 3, 1, [(8, 1), (4, 2), (2, 4)], 10),
        (2.0, 6, 2, [(16, 1), (8, 2), (4, 4), (2, 8)], 20),
        (0.5, 2, 1, [(4, 1), (2, 2)], 5),
        (0.25, 2, 1, [(2, 1)], 2),
        (0.01, 2, 1, [(2, 1)], 1),
        (1.5, 4, 1, [(8, 2), (4, 4), (2, 8)], 15),
        (32.0, 96, 32, [(64, 5), (32, 10), (16, 20), (8, 40), (4, 80), (2, 160)], 320),
    ],
)
def test_the_plan_of_an_effort(
    effort: float, epochs: int, warmup: int, rounds: list[tuple[int, int]], final: int
) -> None:
    expected = Plan(effort, 3, epochs, warmup, tuple(Round(*one) for one in rounds), final)
    assert plan_of(DIGITS, SIZES, effort) == expected


def test_trainings_that_are_compared_take_at_least_40_steps() -> None:
    plan = plan_of(DIGITS, replace(SIZES, rank_steps=15), 1.0)
    assert plan.rounds == (Round(8, 3), Round(4, 6), Round(2, 10))


def test_halvings_end_with_two_networks_and_never_train_longer_than_the_final_training() -> None:
    assert [*halving(20, 1, 10)] == [Round(20, 1), Round(10, 2), Round(5, 4), Round(3, 8), Round(2, 10)]
    assert [*halving(2, 3, 2)] == [Round(2, 2)]


def test_the_time_of_every_step_computed_by_hand() -> None:
    plan = replace(plan_of(DIGITS, SIZES, 0.5), random=(Round(3, 2), Round(2, 4)))
    # Stages: build + 5 steps x (1 epoch of weights + 1 epoch of both). Networks: epochs x 10 steps + 599 images + build.
    search = 3 * ((0.5 + 5 * (0.2 + 0.4)) + (0.25 + 5 * (0.1 + 0.3)))
    first, second = 4 * (1 * 40 * 0.05 + 0.599 + 0.125), 2 * (2 * 40 * 0.05 + 0.599 + 0.125)
    training = 5 * 80 * 0.05 + 0.6 + 0.125
    found = durations(plan, SIZES, PACE)
    ours, others = ["search", "rank-1", "rank-2", "network", "export"], ["random/rank-1", "random/rank-2"]
    assert [*found] == [*ours, *others, "random/network", "reference"]
    assert found["search"] == pytest.approx(search)
    assert (found["rank-1"], found["rank-2"]) == (pytest.approx(first), pytest.approx(second))
    assert found["network"] == found["random/network"] == found["reference"] == pytest.approx(training)
    assert found["random/rank-1"] == pytest.approx(3 * (2 * 40 * 0.05 + 0.599 + 0.125))


def test_measuring_latency_is_the_first_step_and_other_processes_slow_all_other_steps_down() -> None:
    plan = plan_of(DIGITS, SIZES, 0.5)
    quiet, busy = durations(plan, SIZES, PACE), durations(plan, SIZES, replace(PACE, waiting=1.5, latency=20.0))
    assert "latency" not in quiet and [*busy] == ["latency", *quiet]
    assert busy == {"latency": 20.0, **{name: 1.5 * seconds for name, seconds in quiet.items()}}


def test_the_compute_of_a_search_is_its_training_steps_and_those_of_its_rounds() -> None:
    plan = plan_of(DIGITS, SIZES, 0.5)
    steps_of_search = 3 * 5 * (0.2 + 0.4 + 0.1 + 0.3)
    assert compute_of_search(plan, SIZES, PACE) == pytest.approx(steps_of_search + (4 * 1 + 2 * 2) * 40 * 0.05)


@settings(deadline=None, max_examples=60)
@given(
    effort=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    train=st.floats(0.005, 0.05),
    both=st.floats(0.1, 1.0),
    epochs=st.integers(4, 50),
    seeds=st.integers(1, 3),
)
@example(effort=0.5, train=0.05, both=0.1015625, epochs=4, seeds=1)  # 9.52 epochs: 9 and 10 are 5.5 % and 5.004 % off
def test_random_cells_get_the_compute_of_the_search(
    effort: float, train: float, both: float, epochs: int, seeds: int
) -> None:
    config = replace(DIGITS, search=replace(DIGITS.search, epochs=epochs))
    pace, sizes = replace(PACE, train=train, stages=(StagePace(0.1, both / 2, both),)), replace(SIZES, seeds=seeds)
    asked = plan_of(config, sizes, effort)
    plan = with_random(asked, sizes, pace, 512)
    if plan is None:  # two networks alone reach every even number of epochs, so 5 % can be missed only below 20
        assert compute_of_search(asked, sizes, pace) < 20 * compute((Round(1, 1),), sizes, pace)
        return
    steps = [one.networks * one.epochs * sizes.rank_steps * seeds for one in plan.random]
    assert sum(steps) * train == pytest.approx(compute_of_search(plan, sizes, pace), rel=TOLERANCE)
    for one, later in itertools.pairwise(plan.random):
        assert later.networks == math.ceil(one.networks / 2) and later.epochs >= one.epochs
    assert plan.random[-1].networks == 2


def test_a_small_band_gets_longer_trainings_and_none_an_impossible_plan() -> None:
    plan = with_random(plan_of(DIGITS, SIZES, 1.0), SIZES, PACE, 3)
    assert plan is not None and plan.random[0].networks <= 3
    found, target = compute(plan.random, SIZES, PACE), compute_of_search(plan, SIZES, PACE)
    assert found == pytest.approx(target, rel=TOLERANCE)
    assert with_random(plan_of(DIGITS, SIZES, 1.0), SIZES, PACE, 1) is None
    slow = replace(PACE, train=100.0)  # an epoch of two networks takes longer than the searches
    one_round = replace(plan_of(DIGITS, SIZES, 0.25), rounds=(Round(3, 1), Round(2, 1)))
    assert with_random(one_round, SIZES, slow, 2) is None


def test_the_largest_plan_within_the_time_is_taken_and_the_shortest_time_named() -> None:
    plans = [plan_of(DIGITS, SIZES, effort) for effort in efforts()]

    def duration(plan: Plan) -> float:
        return sum(durations(plan, SIZES, PACE).values())

    taken = fitting(100.0, 10.0, plans, duration)  # 0.9 x 100 - 10 = 80 s are left
    later = plans[plans.index(taken) + 1]
    assert duration(taken) <= 80.0 < duration(later)
    shortest = math.ceil((duration(plans[0]) + 10) / 0.9) + 1
    with pytest.raises(InputError, match=rf"even the shortest plan takes {shortest} s, including its preparation"):
        fitting(20.0, 10.0, plans, duration)
    assert fitting(shortest, 10.0, plans, duration) is not None  # the time that was named suffices


def test_a_plan_is_written_and_read_back_for_any_seed(tmp_path: Path) -> None:
    plan = with_random(plan_of(DIGITS, SIZES, 1.0), SIZES, PACE, 40)
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json(DIGITS, SIZES, PACE), encoding="utf-8")
    options = FindConfig(plan=str(file), proof=True)
    assert read_plan(options, DIGITS, SIZES) == plan
    assert read_plan(options, replace(DIGITS, seed=7, threads=2), SIZES) == plan
    assert Pace.of_plain(json.loads(file.read_text())["pace"]) == PACE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experiment": "0"}, "is the plan of another experiment or budget"),
        ({"format": "rapdarts-genotype"}, "is not a plan"),
        ({"sizes": {**asdict(SIZES), "rank_steps": 41}}, "was made for another number of images"),
        ({"replicas": 0}, "replicas must be a whole number from 1"),
        ({"search_epochs": 1.5}, "search_epochs must be a whole number"),
        ({"warmup_epochs": 3}, "warmup_epochs must be below search_epochs=3"),
        ({"rounds": []}, "rounds must not be empty"),
        (
            {"rounds": [{"networks": 2, "epochs": 1}, {"networks": 2, "epochs": 2}]},
            "fewer networks than the one before",
        ),
        ({"rounds": [{"networks": 2}]}, "the field epochs is missing"),
        ({"rounds": 3}, "rounds must be a list"),
        ({"random": [{"networks": 4, "epochs": 1}]}, "was made for find.proof=true; add find.proof=true"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_sentence(change: dict[str, object], words: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    facts = json.loads(plan_of(DIGITS, SIZES, 1.0).to_json(DIGITS, SIZES, PACE)) | change
    file.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        read_plan(FindConfig(plan=str(file)), DIGITS, SIZES)
    assert str(caught.value).count("\n") == 0


def test_a_plan_without_random_cells_cannot_prove(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan_of(DIGITS, SIZES, 1.0).to_json(DIGITS, SIZES, PACE), encoding="utf-8")
    with pytest.raises(InputError, match=r"has no random cells, but find\.proof=true needs them"):
        read_plan(FindConfig(plan=str(file), proof=True), DIGITS, SIZES)


def test_the_plan_sets_the_lengths_of_the_experiment() -> None:
    recipe = replace(DIGITS.retrain, warmup_epochs=8)
    config = plan_of(DIGITS, SIZES, 0.5).apply(replace(DIGITS, retrain=recipe))
    assert (config.search.epochs, config.search.warmup_epochs, config.search.replicas) == (2, 1, 3)
    assert (config.retrain.epochs, config.retrain.warmup_epochs) == (5, 4)
    assert asdict(config) | {"search": 0, "retrain": 0} == asdict(DIGITS) | {"search": 0, "retrain": 0}


def test_a_plan_in_words() -> None:
    plan = replace(plan_of(DIGITS, SIZES, 1.0), rounds=(Round(4, 1), Round(2, 4)))
    assert (
        "the best cells are trained briefly and halved (4 cells, 1 epoch each; 2 cells, 4 epochs each), and"
        in plan.words
    )

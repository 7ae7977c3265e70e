"""An update with a number that is not finite leaves no trace: the run equals the run without it, bit for bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rapdarts.cli.main import main
from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
from rapdarts.training.guard import INTERVAL, Guard
from tests.loops.planted import Fault, Steps, assert_same, left_out, outcome, planted, run, skipped, tensors

NAN, INF = math.nan, math.inf

OF_SEARCH = [
    Fault(3, "alphas", "loss", NAN),  # the first update of alpha, before Adam has any state
    Fault(4, "alphas", "gradient", INF),
    Fault(5, "alphas", "cost", NAN),
    Fault(3, "alphas", "cost", INF),
    Fault(4, "alphas", "image", NAN),
    Fault(0, "weights", "loss", INF),  # the first step, before SGD has any momentum
    Fault(4, "weights", "gradient", NAN),
    Fault(2, "weights", "gradient", -INF),
    Fault(5, "weights", "image", NAN),  # the last step
]
QUICK = [OF_SEARCH[number] for number in (0, 2, 5, 8)]
"""Faults planted in `make test`."""

OF_RETRAINING = [
    Fault(0, "weights", "gradient", NAN),
    Fault(3, "weights", "loss", INF),
    Fault(6, "weights", "image", NAN),
]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the outcome of the run without an update; each is run once."""
    known: dict[Any, Any] = {}

    def get(loop: Any, fault: Fault, *more: str) -> Any:
        key = loop.__name__, fault.step, fault.update, more
        if key not in known:
            folder = tmp_path_factory.mktemp("without") / "run"
            with left_out(fault, loop=loop):
                assert run(folder, loop, *more) == 0
            assert skipped(folder) == 0
            known[key] = outcome(folder)
        return known[key]

    return get


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the outcome of a run in which nothing happens; each is run once."""

    @cache
    def get(loop: Any) -> Any:
        folder = tmp_path_factory.mktemp("whole") / "run"
        assert run(folder, loop) == 0
        return outcome(folder)

    return get


@contextmanager
def stopped_after(steps: int, loop: Any) -> Iterator[None]:
    """Send SIGTERM to the run in the step with this number, counted from 1."""
    name = "alternation" if loop is searching else "training_step"

    def take(step: Any, number: int, arguments: tuple[Any, ...], made: tuple[Any, ...]) -> Any:
        facts = step(*arguments)
        if number == steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return facts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, name, Steps(getattr(loop, name), take))
        yield


def check(loop: Any, fault: Fault, without: Any, folder: Path, *more: str) -> None:
    with planted(fault, loop=loop):
        assert run(folder, loop, *more) == 0
    assert skipped(folder) == 1
    found = outcome(folder)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors(found))
    assert_same(found, without(loop, fault, *more))
    (warning,) = [one for one in json.loads((folder / "result.json").read_text())["warnings"] if "skipped" in one]
    assert warning.startswith("1 update was skipped")


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=str(fault), marks=[] if fault in QUICK else [pytest.mark.proof]) for fault in OF_SEARCH],
)
def test_a_bad_update_of_a_search_leaves_no_trace(fault: Fault, without: Any, tmp_path: Path) -> None:
    check(searching, fault, without, tmp_path / "run")


@pytest.mark.parametrize("fault", OF_RETRAINING, ids=str)
def test_a_bad_step_of_a_retraining_leaves_no_trace(fault: Fault, without: Any, tmp_path: Path) -> None:
    check(retraining, fault, without, tmp_path / "run")


LOOPS = pytest.mark.parametrize("loop", [searching, retraining], ids=["search", "retraining"])
IN_A_ROW = [Fault(step, "weights", "loss", NAN) for step in (1, 2, 3)]


@pytest.fixture(params=[1, pytest.param(INTERVAL, marks=pytest.mark.proof)], ids=["cpu", "gpu"])
def interval(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the guard as often as on a CPU or a GPU."""
    original = Guard.__init__

    def init(guard: Guard, *given: Any) -> None:
        original(guard, *given)
        guard.interval = request.param

    monkeypatch.setattr(Guard, "__init__", init)


@LOOPS
@pytest.mark.usefixtures("interval")
def test_three_bad_updates_in_a_row_end_the_run_and_a_resumed_run_tries_them_again(
    loop: Any, whole: Any, tmp_path: Path
) -> None:
    """The only checkpoint is the initial one. A resumed run without the faults equals one that never had any."""
    folder = tmp_path / "run"
    with planted(*IN_A_ROW, loop=loop):
        assert run(folder, loop) == 5
    before = (folder / "checkpoint").read_bytes()
    with planted(*IN_A_ROW, loop=loop):
        assert run(folder, loop, "resume=true") == 5
    assert (folder / "checkpoint").read_bytes() == before
    status = json.loads((folder / "status.json").read_text())
    assert status["exit_code"] == 5 and "3 updates of the weights in a row were skipped" in status["why"]
    assert "because the loss is not finite" in status["why"]
    assert run(folder, loop, "resume=true") == 0
    assert skipped(folder) == 0
    assert_same(outcome(folder), whole(loop))


@LOOPS
@pytest.mark.usefixtures("interval")
def test_no_checkpoint_is_written_after_the_third_bad_update(loop: Any, tmp_path: Path) -> None:
    """A run that saves after every step has saved after the second one; a resumed run tries the third one again."""
    folder, often = tmp_path / "run", "save_seconds=0"
    with planted(*IN_A_ROW, loop=loop):
        assert run(folder, loop, often) == 5
    state = outcome(folder)["state"]
    assert (state["epoch"], state["step"]) == ((1, 0) if loop is searching else (0, 3))
    assert run(folder, loop, "resume=true", often) == 0
    assert skipped(folder) == 2
    with left_out(*IN_A_ROW[:2], loop=loop):
        assert run(tmp_path / "without", loop) == 0
    assert_same(outcome(folder), outcome(tmp_path / "without"))


def test_the_updates_in_a_row_are_counted_across_a_resume(tmp_path: Path) -> None:
    """Two of three bad updates come before the stop. Resumed, the count of the epoch is also continued."""
    folder, faults = tmp_path / "run", [Fault(step, "alphas", "cost", INF) for step in (3, 4)]
    with planted(*faults), stopped_after(5, searching):
        assert run(folder) == 75
    shutil.copytree(folder, tmp_path / "copy")
    with planted(Fault(0, "alphas", "cost", INF)):  # the first step of the resumed run is the last one of the search
        assert run(folder, searching, "resume=true") == 5
    assert json.loads((folder / "status.json").read_text())["why"].startswith("3 updates of the alphas in a row")
    assert run(tmp_path / "copy", searching, "resume=true") == 0
    assert skipped(tmp_path / "copy") == 2


ONE_STEP = {
    searching: ["search.batch=49", "search.epochs=3"],
    retraining: ["retrain.batch=119", "retrain.epochs=3"],
}
"""Settings for three epochs of one step."""


@pytest.mark.parametrize(
    ("loop", "fault"),
    [
        (searching, Fault(0, "weights", "loss", NAN)),
        (searching, Fault(1, "weights", "image", INF)),
        (searching, Fault(1, "alphas", "loss", INF)),
        (searching, Fault(2, "alphas", "cost", NAN)),
        (retraining, Fault(0, "weights", "gradient", INF)),
        (retraining, Fault(2, "weights", "loss", NAN)),
    ],
    ids=lambda value: str(value) if isinstance(value, Fault) else value.__name__.rpartition(".")[2],
)
def test_a_bad_update_leaves_no_trace_if_it_is_the_only_one_of_its_epoch(
    loop: Any, fault: Fault, without: Any, tmp_path: Path
) -> None:
    """The record of the epoch lacks the means of these updates."""
    folder = tmp_path / "run"
    check(loop, fault, without, folder, *ONE_STEP[loop])
    records = outcome(folder)["records"]
    assert len(records) == 3
    assert ["train_loss" in record for record in records] == [
        fault != Fault(epoch, "weights", fault.place, fault.value) for epoch in range(3)
    ]
    if loop is searching:
        assert ["search_loss" in record for record in records[1:]] == [
            fault != Fault(epoch, "alphas", fault.place, fault.value) for epoch in (1, 2)
        ]
        result = json.loads((folder / "result.json").read_text())
        assert result["search_loss"] == records[2].get("search_loss")
        assert result["train_accuracy"] == records[2].get("train_accuracy")
    assert main(["report", str(folder)]) == 0


@LOOPS
def test_three_epochs_without_any_update_end_the_run(loop: Any, tmp_path: Path) -> None:
    with planted(*(Fault(step, "weights", "gradient", NAN) for step in range(3)), loop=loop):
        assert run(tmp_path / "run", loop, *ONE_STEP[loop]) == 5
    assert "3 updates of the weights in a row" in json.loads((tmp_path / "run" / "status.json").read_text())["why"]

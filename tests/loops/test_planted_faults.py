"""An update with a number that is not finite leaves no trace: the run equals the run without it, bit for bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
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
OF_RETRAINING = [
    Fault(0, "weights", "gradient", NAN),
    Fault(3, "weights", "loss", INF),
    Fault(6, "weights", "image", NAN),
]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the outcome of the run without an update; each is run once."""
    known: dict[Any, Any] = {}

    def get(loop: Any, fault: Fault) -> Any:
        key = loop.__name__, fault.step, fault.update
        if key not in known:
            folder = tmp_path_factory.mktemp("without") / "run"
            with left_out(fault, loop=loop):
                assert run(folder, loop) == 0
            assert skipped(folder) == 0
            known[key] = outcome(folder)
        return known[key]

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


def check(loop: Any, fault: Fault, without: Any, folder: Path) -> None:
    with planted(fault, loop=loop):
        assert run(folder, loop) == 0
    assert skipped(folder) == 1
    found = outcome(folder)
    assert all(bool(tensor.isfinite().all()) for tensor in tensors(found))
    assert_same(found, without(loop, fault))
    (warning,) = [one for one in json.loads((folder / "result.json").read_text())["warnings"] if "skipped" in one]
    assert warning.startswith("1 update was skipped")


@pytest.mark.parametrize("fault", OF_SEARCH, ids=str)
def test_a_bad_update_of_a_search_leaves_no_trace(fault: Fault, without: Any, tmp_path: Path) -> None:
    check(searching, fault, without, tmp_path / "run")


@pytest.mark.parametrize("fault", OF_RETRAINING, ids=str)
def test_a_bad_step_of_a_retraining_leaves_no_trace(fault: Fault, without: Any, tmp_path: Path) -> None:
    check(retraining, fault, without, tmp_path / "run")


@pytest.mark.parametrize("loop", [searching, retraining], ids=["search", "retraining"])
def test_three_bad_updates_in_a_row_end_the_run_with_the_last_good_state(loop: Any, tmp_path: Path) -> None:
    """The state is that of the run without these updates; resuming the run ends it at once, for the same reason."""
    folder, faults = tmp_path / "run", [Fault(step, "weights", "loss", NAN) for step in (1, 2, 3)]
    with planted(*faults, loop=loop):
        assert run(folder, loop) == 5
    status = json.loads((folder / "status.json").read_text())
    assert status["exit_code"] == 5 and "3 updates of the weights in a row were skipped" in status["why"]
    assert "because the loss is not finite" in status["why"]
    found = outcome(folder)
    with left_out(*faults, loop=loop), stopped_after(4, loop):
        assert run(tmp_path / "without", loop) == 75
    wanted = outcome(tmp_path / "without")
    assert_same(found["state"], wanted["state"])
    before = (folder / "checkpoint").read_bytes()
    assert run(folder, loop, "resume=true") == 5
    assert json.loads((folder / "status.json").read_text())["why"].startswith("3 updates of the weights in a row")
    assert_same(outcome(folder)["state"], wanted["state"])
    assert len((folder / "checkpoint").read_bytes()) == len(before)


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


def test_an_epoch_without_any_update_ends_the_run(tmp_path: Path) -> None:
    """With one step per epoch, its mean loss would be a mean over nothing."""
    with planted(Fault(1, "weights", "loss", NAN), loop=retraining):
        assert run(tmp_path / "run", retraining, "retrain.batch=119") == 5
    assert "train_loss is nan in epoch 2" in json.loads((tmp_path / "run" / "status.json").read_text())["why"]

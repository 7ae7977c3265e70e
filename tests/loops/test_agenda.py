"""The steps of `rapdarts find` on the screen: their number, their expected time, and the time that they took."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rapdarts.architecture.genotype import random_genotype
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.lookup import Found
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DivergedError, StorageError
from rapdarts.loops import find as steps
from rapdarts.loops.find import Agenda, Work
from rapdarts.loops.plan import Round
from rapdarts.loops.rank import RankingEntry
from rapdarts.training.checkpoint import save_checkpoint
from rapdarts.training.log import Screen
from rapdarts.training.meter import Meter
from rapdarts.training.session import open_run


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def work_in(folder: Path, agenda: Agenda) -> Work:
    """Return the arguments of steps in a folder, of which nothing is finished yet."""
    run = SimpleNamespace(folder=folder, screen=Screen(silent=True), keep=lambda what, work: work())
    return Work(*[cast(Any, None)] * 4, run=cast(Any, run), agenda=agenda)


def test_the_time_of_a_step_covers_all_sessions(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    agenda = Agenda({"search": 60.0, "network": 30.0}, Screen())
    (tmp_path / "search").mkdir()
    empty = {
        "stage": 0,
        "epoch": 0,
        "step": 0,
        "finished": [],
        "objects": {},
        "meter": Meter().state_dict(),
        "records": [],
        "seconds": 0.0,
    }
    save_checkpoint(tmp_path / "search" / "checkpoint", {**empty, "elapsed": 45.0}, {})

    def train(*_: Any) -> dict[str, Any]:
        assert agenda.left() == 60.0 - 45.0 + 30.0
        clock.now += 41.0
        assert agenda.left() == 30.0
        return {"score": 1}

    assert work_in(tmp_path, agenda).step("search", train) == {"score": 1, "step_seconds": 86.0}
    assert work_in(tmp_path, agenda).step("network", lambda *_: {}) == {"step_seconds": 0.0}
    assert capsys.readouterr().err.splitlines() == [
        "step 1 of 2: search (about 1 min 0 s; 45 s left in all)",
        "search took 1 min 26 s instead of 1 min 0 s: this machine is slower than planned, but the plan does not change",
        "step 2 of 2: network (about 30 s; 30 s left in all)",
    ]


@pytest.mark.parametrize("in_round", [True, False], ids=["in a round", "as the winner"])
def test_the_result_of_an_opponent_that_diverged_is_its_own_after_a_resume(
    in_round: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = named_space("darts")
    cells = [random_genotype(space, np.random.default_rng(seed)) for seed in range(2)]
    found = {"random": [{"cell": one.to_json(), "score": None} for one in cells]}
    plan = SimpleNamespace(random=(Round(2, 1), Round(1, 2)))
    reference = ReferenceBlueprint("lenet", (1, 8, 8), 10)
    names = ["random/rank-1", "random/rank-2", "random/network", "reference"]
    trained: list[str] = []

    def rank(work: Work, entries: list[RankingEntry], epochs: int, number: int, launch: Launch, *_: Any) -> Any:
        trained.append(launch.run)
        if in_round and number == 2:
            raise DivergedError("every training diverged.")
        return {"networks": [{"genotype": one.genotype.line, "diverged": False} for one in entries]}

    def retrain(work: Work, network: Found, space: Any, launch: Launch, *_: Any) -> Any:
        trained.append(launch.run)
        if network.name == "the winner":
            raise DivergedError("the training diverged.")
        return {"test_accuracy": 0.5}

    monkeypatch.setattr(steps, "_rank", rank)
    monkeypatch.setattr(steps, "_retrain", retrain)
    results = []
    for resume in (False, True):
        with open_run("find", Experiment(), Launch(run=str(tmp_path), resume=resume), "test", {}) as run:
            agenda = Agenda(dict.fromkeys(names, 1.0), Screen(silent=True))
            work = Work(cast(Any, None), space, cast(Any, None), None, run=run, agenda=agenda)
            results.append(steps.prove(work, cast(Any, plan), found, reference))
    assert results[0] == results[1]
    assert results[0]["random/network"]["diverged"].endswith("diverged.")
    assert results[0]["reference"]["test_accuracy"] == 0.5
    wanted = [name for name in names if not (in_round and name == "random/network")]
    assert trained == [str(tmp_path / name) for name in wanted]  # each once
    assert [*results[0]] == [name for name in names if not (in_round and name == "random/rank-2")]


def test_a_step_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "search").symlink_to(tmp_path)
    agenda = Agenda({"search": 1.0}, Screen(silent=True))
    with pytest.raises(StorageError, match="search is a link"):
        work_in(tmp_path / "run", agenda).step("search", lambda launch, screen: {})

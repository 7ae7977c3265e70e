"""The steps of `rapdarts find` on the screen: their number, their expected time, and the time that they took."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rapdarts.loops import find as steps
from rapdarts.loops.find import Agenda, Work
from rapdarts.training.checkpoint import save_checkpoint
from rapdarts.training.log import Screen
from rapdarts.training.meter import Meter


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

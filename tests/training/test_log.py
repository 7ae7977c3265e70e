"""The screen: the estimated time left."""

from __future__ import annotations

import pytest

from rapdarts.training import log
from rapdarts.training.log import Screen


def test_the_time_left_excludes_steps_before_resuming(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    screen = Screen()
    screen.start("retraining", 10, 40)  # a quarter was finished before the run was resumed
    for done, seconds in ((20, 45.0), (30, 90.0), (40, 135.0)):
        now[0] = 1000.0 + seconds
        screen.epoch(f"epoch {done // 10}/4", done)
    screen.stop()
    assert capfd.readouterr().err.splitlines() == [
        "epoch 2/4  (1 min 30 s left of retraining)",
        "epoch 3/4  (45 s left of retraining)",
        "epoch 4/4",
    ]

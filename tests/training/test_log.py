"""The screen: the estimated time left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rapdarts.training import log
from rapdarts.training.log import Log, Screen


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


def test_a_record_after_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    record = Log(tmp_path, [])
    record.append({"epoch": 0})
    with open(record.path, "ab") as torn:
        torn.write(b'{"epo')  # as much of the next record as the disk could take
    record.file.close()
    record.file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 (closed with the log)
    record.append({"epoch": 1})
    assert not record.is_whole and record.path.read_bytes().endswith(b'{"epo')
    record.append({"epoch": 2})
    assert record.is_whole
    assert [json.loads(line)["epoch"] for line in record.path.read_text().splitlines()] == [0, 1, 2]
    record.append({"epoch": 3})
    record.close()
    assert [json.loads(line)["epoch"] for line in record.path.read_text().splitlines()] == [0, 1, 2, 3]

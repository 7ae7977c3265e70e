"""Tests of the series of faults themselves: a promise that does not hold must be reported, and the page shows what was measured."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from rapdarts.training import checkpoint
from tests.faults import kills, record, runs, saves
from tests.faults.__main__ import main
from tests.faults.series import Outcome, scaled, table


def test_the_page_is_up_to_date() -> None:
    page = record.PAGE.read_text(encoding="utf-8")
    assert record.with_table(page) == page, "run `python -m tests.faults SERIES --keep`"


def test_an_outcome_states_what_its_trials_leave_open() -> None:
    assert Outcome("P2", "kills", 1000).bound == "below 0.3%"  # 1 - 0.05 ** (1 / 1000)
    assert Outcome("P2", "kills", 1).bound == "below 95.0%"
    assert Outcome("P2", "kills", 2, ["a", "b"]).bound == "below 100.0%"
    assert list(table([Outcome("P2", "kills", 50, ["a"], "slow")]))[-1] == "| P2 | kills | 50 | 1 | below 9.1% | slow |"
    assert [scaled(200, one) for one in (1, 0.1, 0.001)] == [200, 20, 1]


def test_results_replace_earlier_ones_of_their_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(record, "PAGE", tmp_path / "page.md")
    record.PAGE.write_text(f"above\n{record.BEGIN}\n{record.END}\nbelow\n")
    record.keep([Outcome("P10 one owner", "two starts", 5), Outcome("P2 torn write", "kills", 10, ["lost"])])
    record.keep([Outcome("P2 torn write", "kills", 20)])
    assert [(row["promise"], row["trials"], row["failures"]) for row in record.rows()] == [
        ("P2 torn write", 20, []), ("P10 one owner", 5, []),
    ]  # fmt: skip
    lines = record.PAGE.read_text().splitlines()
    assert lines[0] == "above" and lines[-1] == "below" and "| P2 torn write | kills | 20 | 0 |" in "\n".join(lines)


def test_a_state_that_is_lost_after_it_was_saved_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint"
    assert saves.problem(path, -1) == "" and saves.problem(path, 0) == "there is no checkpoint"
    checkpoint.save_checkpoint(path, saves.state_of(3), saves.ORIGIN)
    assert saves.problem(path, 3) == "" and "older than 4" in saves.problem(path, 4)
    checkpoint.save_checkpoint(path, {**saves.state_of(4), "tensor": torch.zeros(saves.NUMBERS)}, saves.ORIGIN)
    assert "values of another one" in saves.problem(path, 4)

    assert not saves.torn_writes(tmp_path / "sound", 5).failures

    def torn(path: Path, state: Any, origin: Any) -> None:
        """Write a file in place, as `torch.save` does."""
        torch.save(state, path)

    monkeypatch.setattr(saves, "save_checkpoint", torn)
    assert saves.torn_writes(tmp_path / "torn", 3).failures


@pytest.mark.proof
def test_runs_are_killed_and_compared(tmp_path: Path) -> None:
    search = tmp_path / "search"
    kind = "retraining, EMA and drop path"
    said, killed = kills.killed_run(kind, tmp_path / "run", search, ["threads=1"], 1, 1)
    assert not said and killed == 1
    first, again = runs.fingerprint(tmp_path / "run" / "whole"), tmp_path / "run" / "killed"
    assert {"network.safetensors", "metrics.jsonl", "result.json", "checkpoint: objects.sgd"} <= first.keys()
    record = again / "metrics.jsonl"
    record.write_text(record.read_text().replace('"epoch": 0', '"epoch": 1'))
    found = checkpoint.load_checkpoint(again / "checkpoint", {})
    assert found is not None
    found[0]["objects"]["sgd"]["state"][0]["momentum_buffer"][0] += 1
    checkpoint.save_checkpoint(again / "checkpoint", found[0], {})
    assert runs.differing(runs.fingerprint(again), first) == ["checkpoint: objects.sgd", "metrics.jsonl"]


def test_enough_runs_are_killed_often_enough() -> None:
    count = sum(kills.LONG.get(kind, kills.RUNS) for kind in runs.KINDS)
    assert kills.LONG.keys() <= runs.KINDS.keys() and count >= 40 and count * kills.KILLS >= 200


def test_an_unknown_series_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["floods"])
    assert refused.value.code == 2 and "there is no series floods" in capsys.readouterr().err
    process = runs.start(["sleep", "60"])
    os.killpg(process.pid, signal.SIGKILL)  # a run has a process group of its own
    assert process.wait() == -signal.SIGKILL

"""Tests of the series of faults themselves: a promise that does not hold must be reported, and the page shows what was measured."""

from __future__ import annotations

import errno
import math
import mmap
import os
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rapdarts.errors import StorageError
from rapdarts.files import atomic
from rapdarts.training import checkpoint, run
from tests import fuzzed
from tests.faults import kills, power, record, runs, saves, signals, states, storage
from tests.faults.__main__ import main
from tests.faults.series import Outcome, scaled, table


def test_the_page_is_up_to_date() -> None:
    page = record.PAGE.read_text(encoding="utf-8")
    assert record.with_table(page) == page, "run `python -m tests.faults SERIES --keep`"
    promised = re.findall(r"P\d+", " ".join(re.findall(r"(?m)^- \*\*(P[\dP, ]+)\.", page)))
    assert sorted(promised) == sorted(record.PROMISES)
    assert all(row["promise"].split()[0] in promised for row in record.rows())
    left = record.missing()
    assert ("Not run in full yet: " in page) == bool(left) and all(
        f"{one}," in page or f"{one}." in page for one in left
    )


def test_an_outcome_states_what_its_trials_leave_open() -> None:
    assert Outcome("P2", "kills", 1000).bound == "below 0.3%"  # 1 - 0.05 ** (1 / 1000)
    assert Outcome("P2", "kills", 1).bound == "below 95.0%"
    assert Outcome("P6", "saves", 60, sampled=False).bound == "–"
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
    monkeypatch.setattr(saves, "save_checkpoint", in_place)
    in_place(path, saves.state_of(5), saves.ORIGIN)
    assert saves.problem(path, 5) == ""
    torn = saves.torn_writes(tmp_path / "torn", 5)
    assert any("bytes, but its header says" in one for one in torn.failures)


def in_place(path: Path, state: Any, origin: Any) -> None:
    """Write a checkpoint in its place, slowly, and without keeping the previous one."""
    with tempfile.TemporaryDirectory() as other:
        checkpoint.save_checkpoint(Path(other) / "checkpoint", state, origin)
        content = (Path(other) / "checkpoint").read_bytes()
    with open(path, "wb", buffering=0) as file:
        for part in range(0, len(content), 20_000):
            file.write(content[part : part + 20_000])
            time.sleep(0.002)


def test_a_save_that_is_not_synced_in_order_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not power.interrupted_calls(tmp_path / "sound").failures

    def unsynced(path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{'0' * 16}.tmp")
        descriptor = atomic.os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o644)
        with atomic.os.fdopen(descriptor, "wb") as file:
            file.write(data)
        atomic.os.replace(temporary, path)
        atomic.sync_folder(path.parent)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", unsynced)
        lost = power.interrupted_calls(tmp_path / "unsynced")
    assert any("is older than" in one or "is damaged" in one for one in lost.failures)

    monkeypatch.setattr(atomic, "sync_folder", lambda folder: None)
    assert any("is older than" in one for one in power.interrupted_calls(tmp_path / "not entered").failures)


def test_a_storage_error_that_loses_something_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, written = storage.Fault(), ("checkpoint", "write")
    assert (
        storage.trained(tmp_path / "whole", whole)[0] == 0 and whole.calls[written] == whole.calls["checkpoint", "open"]
    )

    def wrong(name: str) -> list[str]:
        fault = storage.Fault(written, 4, 5, errno.ENOSPC)
        return list(storage.wrong(tmp_path / name, fault, whole.calls[written]))

    assert wrong("sound") == []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        assert any(one.startswith("it left .checkpoint.") for one in wrong("left over"))
    with monkeypatch.context() as patch:
        patch.setattr(run, "MOST_FAILURES", 1)
        assert any(one.startswith("exit code 6 instead of 0") for one in wrong("impatient"))
    monkeypatch.setattr(atomic, "storage_error", lambda *given, **named: StorageError("something failed"))
    assert any("do not contain" in one for one in wrong("silent"))


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


def test_a_command_that_ignores_a_signal_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep({})"

    def sent(seconds: float) -> signals.Tally:
        words, tally = [sys.executable, "-c", program.format(seconds)], signals.Tally()
        monkeypatch.setattr(signals, "words_of", lambda *given: words)
        known = signals.Whole({signals.HANDLED: 0.1, signals.END: signals.MARGIN + 0.2})
        signals.interrupt("evaluate", "evaluate", (signals.HANDLED, signals.END), known, tmp_path, 1, tally)
        return tally

    assert sent(0.5).failures == ["evaluate: only 0 of 1 signals were sent before the command ended"]
    assert "exit code 0 after" in sent(3.0).failures[0]
    assert signals.note(signals.Tally()) == ""


def test_the_memory_of_an_input_is_measured_on_its_own() -> None:
    memory = fuzzed.Memory()
    with memory.watched() as large, mmap.mmap(-1, 200_000_000) as block:
        block[::4096] = b"x" * math.ceil(200_000_000 / 4096)
    with memory.watched() as small:
        pass
    assert small[0] < large[0] - 100_000_000 and memory.most == large[0]


def test_changed_states_differ_in_one_place() -> None:
    state = {"stage": 1, "records": ["{}"], "objects": {"sgd": {"lr": 0.1, "momentum": torch.ones(2)}}}
    changes = {states.changed(state, random.Random(number))[1].partition(":")[0] for number in range(300)}
    assert {"drop stage", "replace records", "alter objects.sgd.momentum", "add objects.sgd.lr"} <= changes
    assert state["stage"] == 1 and len(state) == 3


def test_an_unknown_series_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["floods"])
    assert refused.value.code == 2 and "there is no series floods" in capsys.readouterr().err
    process = runs.start(["sleep", "60"])
    os.killpg(process.pid, signal.SIGKILL)  # a run has a process group of its own
    assert process.wait() == -signal.SIGKILL

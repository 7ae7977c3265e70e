"""A run whose disk is full reports it, goes on and tries again; it always records how it ended, and leaves no temporary files."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rapdarts.config.experiment import Experiment, Launch
from rapdarts.errors import DamagedError, DeviceError, StorageError, exit_code
from rapdarts.files import atomic
from rapdarts.interruptions import during
from rapdarts.training import checkpoint
from rapdarts.training.session import open_run
from rapdarts.training.status import RESERVED, write_status
from tests.full_disk import train_on_a_full_disk
from tests.together import Job


@pytest.fixture(params=["disk", "limit"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """How space runs out, and a folder to write to: a disk of 1 MB, which needs the right to mount one, or a limit on the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        yield "limit", folder
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system")
    try:
        yield "disk", folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def train(how: str, folder: Path, ends: bool) -> tuple[int | None, list[str]]:
    """Train for six epochs; space runs out in the third, and is there again after one step if it `ends`. Return exit code and stderr."""
    job = Job(folder.parent, train_on_a_full_disk, folder / "run", folder / "filler", how, ends, processes=1)
    (code,), (printed,) = job.end()
    assert "Traceback" not in printed, printed
    return code, printed.splitlines()


def reason(how: str) -> str:
    return "No space left on device (it needs" if how == "disk" else "File too large (it needs"


def test_a_run_goes_on_when_the_space_is_back(place: tuple[str, Path]) -> None:
    how, folder = place
    code, printed = train(how, folder, ends=True)
    assert code == 0, printed
    warning = next(line for line in printed if line.startswith("warning: "))
    assert f"checkpoint cannot be written: {reason(how)}" in warning
    assert ("and 0 bytes are free" if how == "disk" else "the limit on the size of a file is 4,096 bytes") in warning
    assert warning.endswith("keeps its last checkpoint, and tries to save again in 0 s (failure 1 of 3).")
    assert json.loads((folder / "run" / "status.json").read_text()) == {"state": "done", "exit_code": 0}
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2, 3, 4, 5]
    assert not list(folder.rglob("*.tmp"))


def test_a_run_ends_after_three_failures_and_keeps_its_last_checkpoint(place: tuple[str, Path]) -> None:
    how, folder = place
    code, printed = train(how, folder, ends=False)
    assert code == 6
    assert printed[-1].startswith("rapdarts: error: ") and reason(how) in printed[-1]
    status = json.loads((folder / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 6) and "cannot be written" in status["why"]
    assert not list(folder.rglob("*.tmp"))
    found = checkpoint.load_checkpoint(folder / "run" / "checkpoint", {})
    assert found is not None and float(found[0]["objects"]["things"]["weights"][0]) == 4  # of the second epoch


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise StorageError("no space.")

    with pytest.raises(StorageError, match="no space"):
        with open_run("test", Experiment(), Launch(run=str(tmp_path / "run")), "test", {}) as run:
            monkeypatch.setattr(checkpoint, "save_packed", refuse)
            for _ in run.epochs("training", 1, 2, {}):
                pass
            run.write("result", "written")
    assert (tmp_path / "run" / "result").read_text() == "written"
    assert json.loads((tmp_path / "run" / "status.json").read_text())["exit_code"] == 6


@pytest.mark.parametrize("why", ["short", "long " * 1000])
def test_the_status_is_written_into_its_own_blocks(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_status(path, {"state": "running", "pid": 1})
    assert path.stat().st_size == RESERVED

    def refuse(*given: object) -> None:
        raise StorageError("no space.")

    monkeypatch.setattr(atomic, "write_atomically", refuse)
    write_status(path, {"state": "failed", "exit_code": 6, "why": why})
    status = json.loads(path.read_text())
    assert status["exit_code"] == 6 and status["why"][:5] == why[:5]
    assert path.stat().st_size == RESERVED
    path.unlink()
    with pytest.raises(StorageError, match="no space"):
        write_status(path, {"state": "done"})


@pytest.mark.parametrize("taken", ["checkpoint", "checkpoint.previous"])
def test_a_folder_in_the_place_of_a_checkpoint_is_moved_aside(taken: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for number in (1, 2):
        checkpoint.save_checkpoint(path, {"stage": number}, {})
    (tmp_path / taken).unlink()
    (tmp_path / taken / "of somebody").mkdir(parents=True)
    found = checkpoint.load_checkpoint(path, {})
    assert found is not None and found[0]["stage"] == (1 if taken == "checkpoint" else 2)
    checkpoint.save_checkpoint(path, {"stage": 3}, {})
    found = checkpoint.load_checkpoint(path, {})
    assert found is not None and found[0]["stage"] == 3
    assert (tmp_path / f"{taken}.damaged" / "of somebody").exists()


class Broken(io.BytesIO):
    """A file on a disk with an unreadable sector."""

    def readline(self, size: int | None = -1, /) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("both", [False, True])
def test_a_checkpoint_that_the_disk_cannot_read_counts_as_damaged(
    both: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    for number in (1, 2):
        checkpoint.save_checkpoint(path, {"stage": number}, {})
    opened = checkpoint._open
    monkeypatch.setattr(checkpoint, "_open", lambda place: Broken() if both or place == path else opened(place))
    if both:
        with pytest.raises(DamagedError, match=r"cannot be read: Input/output error.*checkpoint\.previous is damaged"):
            checkpoint.load_checkpoint(path, {})
        return
    found = checkpoint.load_checkpoint(path, {})
    assert found is not None and found[0]["stage"] == 1
    assert found[1] == f"checkpoint {path} is damaged (it cannot be read: Input/output error)"


ERRORS = [
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
    ),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["torch.load", "rapdarts.training.checkpoint.unpack"])
def test_a_lack_of_memory_is_no_damage(
    place: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **more: Any) -> Any:
        raise error

    path = tmp_path / "checkpoint"
    for number in (1, 2):
        checkpoint.save_checkpoint(path, {"stage": number}, {})
    monkeypatch.setattr(place, fail)
    with pytest.raises(type(error)):
        checkpoint.load_checkpoint(path, {})
    assert {one.name for one in tmp_path.iterdir()} == {"checkpoint", "checkpoint.previous"}


@pytest.mark.parametrize("error", ERRORS)
def test_a_lack_of_memory_is_reported_with_its_task(error: Exception) -> None:
    with pytest.raises(DeviceError, match="out of memory while reading the data") as raised:
        with during("a longer task"), during("reading the data"):
            raise error
    assert exit_code(raised.value) == exit_code(error) == 7


def test_tensorboard_gives_one_warning_when_the_disk_is_full(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Every write to /dev/full fails."""
    with open_run("test", Experiment(), Launch(run=str(tmp_path / "run")), "test", {}) as run:
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), run.log_file.board.file.fileno())
        for _ in run.epochs("training", 3, 2, {}):
            run.meter.add("loss", torch.tensor(1.0), 1)
            run.log(("loss",))
    assert "Traceback" not in capfd.readouterr().err
    assert caplog.messages == [
        "TensorBoard logging has stopped ([Errno 28] No space left on device); metrics.jsonl is still written."
    ]

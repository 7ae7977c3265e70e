"""The run folder: atomic files, a single owner, checkpoints that detect damage, and loops that stop and resume anywhere."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapdarts.config.experiment import Experiment, Launch
from rapdarts.errors import BusyError, DamagedError, DivergedError, InputError, Preempted, StorageError
from rapdarts.files import atomic as files
from rapdarts.training import checkpoint
from rapdarts.training import run as running
from rapdarts.training.board import Board
from rapdarts.training.meter import Meter
from rapdarts.training.run import Run
from rapdarts.training.session import open_run
from tests.edited import edit


class Numbers:
    """A source of five batches per epoch."""

    steps = 5

    def epoch(self, epoch: int, start: int = 0) -> Iterator[int]:
        return iter(range(10 * epoch + start, 10 * epoch + self.steps))


def train(folder: Path, resume: bool = False, stop: int | None = None, save_seconds: float = 1e5, **inputs: str) -> Any:
    """Train a layer on random numbers for two stages of three epochs; send SIGTERM at step `stop`."""
    config = Experiment(save_seconds=save_seconds)
    steps, done = 0, []
    with open_run("test", config, Launch(run=str(folder), resume=resume), "test", inputs) as run:
        for stage in range(2):
            torch.manual_seed(stage)
            layer = torch.nn.Linear(3, 2)
            sgd = torch.optim.SGD(layer.named_parameters(), 0.1, momentum=0.9)
            for epoch in run.epochs(f"stage {stage}", 3, 5, {"layer": layer, "sgd": sgd}, carries=["layer"]):
                for batch in run.batches(Numbers()):
                    loss = (layer(torch.randn(4, 3)) - batch).square().mean()
                    sgd.zero_grad()
                    loss.backward()
                    sgd.step()
                    run.meter.add("loss", loss, 1)
                    done.append((stage, epoch, batch))
                    steps += 1
                    if steps == stop:
                        os.kill(os.getpid(), signal.SIGTERM)
                run.log(epoch_again=float(epoch))
            if stage == 0:
                first = {name: value.clone() for name, value in layer.state_dict().items()}
        records = [{**record, "seconds": 0} for record in run.records()]
    return first, layer.state_dict(), records, done


@pytest.mark.parametrize("stop", range(1, 30))
def test_a_loop_stopped_at_any_step_resumes_bit_identically(tmp_path: Path, stop: int) -> None:
    first, last, records, done = train(tmp_path / "whole")
    assert len(done) == 30
    with pytest.raises(Preempted, match="resume=true"):
        train(tmp_path / "cut", stop=stop)
    first_again, last_again, records_again, rest = train(tmp_path / "cut", resume=True)
    assert done[stop:] == rest
    assert records_again == records
    for ours, theirs in ((first, first_again), (last, last_again)):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def drawn(folder: Path, *streams: tuple[int, int] | None) -> tuple[list[list[float]], list[int]]:
    """Return the random numbers of a run with seed 3 and a stage for each stream, and the stages in its records."""
    found: list[list[float]] = []
    with open_run("test", Experiment(seed=3), Launch(run=str(folder)), "test", {}) as run:
        for stream in streams:
            found.append([])
            for _ in run.epochs("numbers", 2, 5, {"layer": torch.nn.Linear(1, 1)}, stream=stream):
                for _ in run.batches(Numbers()):
                    found[-1].append(torch.rand(1).item())
                run.log(constant=1.0)
        return found, [record["stage"] for record in run.records()]


def test_a_stage_draws_from_its_stream(tmp_path: Path) -> None:
    """The default stream is the run's seed and the stage's number; an explicit stream can give the numbers of another run."""
    own, stages = drawn(tmp_path / "own", None, None)
    named, same_stages = drawn(tmp_path / "named", (3, 0), (3, 1))
    assert (own, stages) == (named, same_stages) and stages == [0, 0, 1, 1] and own[0] != own[1]
    assert [len(set(numbers)) for numbers in own] == [10, 10]  # every step of every epoch draws other numbers
    replicas, stages = drawn(tmp_path / "replicas", (3, 0), (7, 0), (3, 1), (7, 1))
    assert replicas[::2] == own and stages == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len({tuple(numbers) for numbers in replicas}) == 4


def test_a_run_folder_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "run")
    with pytest.raises(InputError, match="resume=true"):
        train(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        with open_run("search", Experiment(), Launch(), "digits", {}) as run:
            assert run.folder == Path(f"runs/search-digits-{number}")


def test_the_folder_of_a_run_that_never_began_can_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError), open_run("test", Experiment(seed=1), Launch(run=str(tmp_path)), "test", {}):
        raise InputError("refused before the first step.")
    assert (tmp_path / "config.yaml").exists()
    train(tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


def test_results_without_a_checkpoint_are_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint.previous").unlink(missing_ok=True)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(DamagedError, match="no checkpoint to continue from"):
        train(tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_another_command_cannot_resume_a_run(tmp_path: Path) -> None:
    train(tmp_path)
    launch = Launch(run=str(tmp_path), resume=True)
    with pytest.raises(DamagedError, match="a different command"):
        with open_run("search", Experiment(save_seconds=1e5), launch, "test", {}):
            pass


def test_resuming_in_a_different_environment_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Preempted):
        train(tmp_path, stop=3)
    path = tmp_path / "environment.json"
    edit(path, threads=64)
    train(tmp_path, resume=True)
    assert "threads 64 -> 1" in capsys.readouterr().err
    kept = json.loads(path.read_text())
    assert kept["threads"] == 64
    assert [one["threads"] for one in kept["resumed"]] == [1]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with open_run("test", Experiment(), Launch(run=str(tmp_path)), "test", {}):
        code = (
            "from rapdarts.config.experiment import *; from rapdarts.training.session import open_run\n"
            f"with open_run('test', Experiment(), Launch(run={str(tmp_path)!r}, resume=True), 'test', {{}}): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "BusyError" in other.stderr
        assert "in use" in other.stderr
    with open_run("test", Experiment(), Launch(run=str(tmp_path), resume=True), "test", {}):
        pass  # the lock was released with its owner


def test_the_lock_also_holds_within_one_process(tmp_path: Path) -> None:
    launch = Launch(run=str(tmp_path), resume=True)
    with open_run("test", Experiment(), launch, "test", {}), pytest.raises(BusyError):
        with open_run("test", Experiment(), launch, "test", {}):
            pass


def test_resuming_with_different_inputs_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", data="one")
    with pytest.raises(DamagedError, match="a different data"):
        train(tmp_path / "run", resume=True, data="two")


def test_an_unusable_folder_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is not a folder"):
        train(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="usable path"):
        train(Path("a\0b"))


def test_values_that_are_not_finite_are_neither_logged_nor_saved(tmp_path: Path) -> None:
    kept = (
        r": the training diverged. Lower the learning rate in a new run; the last checkpoint of this one was written before the"
        r" divergence\.$"
    )
    with pytest.raises(DivergedError, match=rf"^loss is nan in epoch 1{kept}"):
        with open_run("test", Experiment(), Launch(run=str(tmp_path / "log")), "test", {}) as run:
            for _ in run.epochs("stage", 1, 5, {}):
                run.meter.add("loss", torch.tensor(float("nan")), 1)
                run.log()
    assert (tmp_path / "log" / "metrics.jsonl").read_text() == ""
    layer = torch.nn.Linear(2, 2)
    initial = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(DivergedError, match=rf"^layer\.weight .*{kept}"):
        with open_run("test", Experiment(save_seconds=0), Launch(run=str(tmp_path / "save")), "test", {}) as run:
            for _ in run.epochs("stage", 1, 5, {"layer": layer}):
                for _ in run.batches(Numbers()):
                    torch.nn.init.constant_(layer.weight, float("inf"))
    found = checkpoint.load_checkpoint(
        tmp_path / "save" / "checkpoint", {}
    )  # that of step 0, which keeps the initial state
    assert found is not None and (found[0]["epoch"], found[0]["step"]) == (0, 0)
    assert all(torch.equal(found[0]["objects"]["layer"][name], value) for name, value in initial.items())
    assert json.loads((tmp_path / "save" / "status.json").read_text())["exit_code"] == 5


def test_a_checkpoint_before_the_divergence_is_mentioned(tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"in a new run; the last checkpoint of this one was written before the divergence\.$"
    ):
        with open_run("test", Experiment(save_seconds=0), Launch(run=str(tmp_path)), "test", {}) as run:
            for epoch in run.epochs("stage", 2, 5, {}):
                for _ in run.batches(Numbers()):
                    run.meter.add("loss", torch.tensor(float("nan") if epoch else 1.0), 1)
                run.log()


def test_a_stage_that_gives_up_is_not_run_again(tmp_path: Path) -> None:
    """The second of three stages gives up halfway; resuming runs only stages that no checkpoint holds."""

    def train(run: Run, layer: torch.nn.Module, gives_up: bool) -> dict[str, Any]:
        for _ in run.epochs("stage", 2, 5, {"layer": layer}):
            for batch in run.batches(Numbers()):
                asked.append(run.stage)
                if batch == 12 and gives_up:
                    return {"ended": False}
            run.log()
        return {"ended": True, "bias": torch.ones(2)}

    def stages(resume: bool) -> list[bool]:
        with open_run(
            "test", Experiment(save_seconds=1e5), Launch(run=str(tmp_path), resume=resume), "test", {}
        ) as run:
            found = []
            for stage in range(3):
                found.append(run.remember(partial(train, run, torch.nn.Linear(2, 2), stage == 1))["ended"])
                assert (run.stage, run.meter.sums) == (stage + 1, {})
        return found

    asked: list[int] = []
    assert stages(resume=False) == [True, False, True]
    assert asked == [0] * 10 + [1] * 8 + [2] * 10
    asked = []
    assert stages(resume=True) == [True, False, True]
    assert asked == []
    found = checkpoint.load_checkpoint(tmp_path / "checkpoint", {})
    assert found is not None and [facts["ended"] for facts in found[0]["finished"]] == [True, False]


def test_a_checkpoint_holds_the_time_of_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, file = [100.0], tmp_path / "run" / "checkpoint"
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def taking(seconds: float) -> dict[str, Any]:
        now[0] += seconds
        return {}

    assert checkpoint.elapsed_of(file) == 0.0
    with open_run("test", Experiment(), Launch(run=str(tmp_path / "run")), "test", {}) as run:
        run.keep("one", lambda: taking(7))
        taking(20)  # killed after its last checkpoint
    assert checkpoint.elapsed_of(file) == 7.0
    now[0] = 1000.0
    with open_run("test", Experiment(), Launch(run=str(tmp_path / "run"), resume=True), "test", {}) as run:
        run.keep("one", lambda: taking(300))
        run.keep("two", lambda: taking(5))
    assert checkpoint.elapsed_of(file) == 12.0
    file.write_bytes(file.read_bytes()[:-1])  # damaged
    assert checkpoint.elapsed_of(file) == 7.0


def test_momentum_of_other_parameters_is_refused(tmp_path: Path) -> None:
    def once(layer: torch.nn.Module, resume: bool) -> None:
        sgd = torch.optim.SGD(layer.named_parameters(), 0.1)
        with open_run("test", Experiment(), Launch(run=str(tmp_path), resume=resume), "test", {}) as run:
            for _ in run.epochs("stage", 1, 5, {"sgd": sgd}):
                pass

    once(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)), resume=False)
    with pytest.raises(DamagedError, match="for different parameters"):
        once(torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)}), resume=True)


def test_the_first_interrupt_in_a_step_is_answered_and_the_second_one_stops_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with SIGINT ignored
    with pytest.raises(KeyboardInterrupt) as stopped:
        with open_run("test", Experiment(), Launch(run=str(tmp_path)), "test", {}) as run:
            for _ in run.epochs("stage", 1, 5, {}):
                for _ in run.batches(Numbers()):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)
                    assert capfd.readouterr().err.endswith(
                        "\nsaving after this step; press again to stop without saving\n"
                    )
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(10)
    assert type(stopped.value) is KeyboardInterrupt
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["exit_code"], status["why"]) == (130, "stopped immediately, without saving")


def test_a_file_is_replaced_atomically_without_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, "old")
    files.write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    with pytest.raises(StorageError, match="cannot be written"):
        files.write_atomically(tmp_path / "absent" / "file", "x")
    files.write_atomically(path, "x" * 10)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".file.0123456789abcdef.tmp").write_text("left by a killed process")
    (tmp_path / ".notes.tmp").write_text("the user's own")
    files.remove_leftovers(tmp_path)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == [".notes.tmp", "deep", "file"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from rapdarts.files import atomic as files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"files.write_atomically(Path({str(tmp_path / 'file')!r}), b'x' * 5000)"
    )
    files.write_atomically(tmp_path / "file", "old")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "StorageError" in process.stderr
    assert "it needs 5,000 bytes, and the limit on the size of a file is 1,000 bytes" in process.stderr
    assert (tmp_path / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_signal_that_the_launcher_ignores_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with open_run("test", Experiment(), Launch(run=str(tmp_path)), "test", {}) as run:
            os.kill(os.getpid(), signal.SIGHUP)
            assert run.signals.asked is None
    finally:
        signal.signal(signal.SIGHUP, before)


STATE = {"stage": 1, "weights": torch.arange(6.0), "nested": {"list": [1, 2.5, "x"]}}


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    assert checkpoint.load_checkpoint(path, {}) is None
    checkpoint.save_checkpoint(path, STATE, {"data": "a"})
    checkpoint.save_checkpoint(path, {**STATE, "stage": 2}, {"data": "a"})
    found = checkpoint.load_checkpoint(path, {"data": "a"})
    assert found is not None
    state, damage = found
    assert state["stage"] == 2
    assert torch.equal(state["weights"], STATE["weights"])  # type: ignore[arg-type]
    assert state["nested"] == STATE["nested"]
    assert damage == ""


@settings(max_examples=150, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["flip", "cut", "append", "zero"]))
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(
    tmp_path_factory: pytest.TempPathFactory, position: float, how: str
) -> None:
    path = tmp_path_factory.mktemp("damage") / "checkpoint"
    checkpoint.save_checkpoint(path, STATE, {"data": "a"})
    checkpoint.save_checkpoint(path, {**STATE, "stage": 2}, {"data": "a"})
    raw = bytearray(path.read_bytes())
    at = int(position * len(raw))
    if how == "flip":
        raw[at] ^= 1
    elif how == "cut":
        del raw[at:]
    elif how == "append":
        raw += b"\0" * (at + 1)
    else:
        raw[at : at + 64] = bytes(64)
    if bytes(raw) == path.read_bytes():
        return
    path.write_bytes(raw)
    try:
        found = checkpoint.load_checkpoint(path, {"data": "a"})
    except DamagedError as error:
        assert "a different data" in str(error)  # the flipped bit is in the recorded origin
        return
    assert found is not None
    assert found[0]["stage"] == 1
    assert "damaged" in found[1]
    # The next save must not overwrite the intact checkpoint with the damaged one.
    checkpoint.save_checkpoint(path, {**STATE, "stage": 3}, {"data": "a"})
    assert not checkpoint.previous(path).exists() or checkpoint.previous(path).read_bytes() != bytes(raw)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    import hashlib
    import io

    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(marker),)

    buffer = io.BytesIO()
    torch.save({"stage": Payload()}, buffer)
    payload = buffer.getvalue()
    header = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), "origin": {}}
    (tmp_path / "checkpoint").write_bytes(checkpoint.MAGIC + json.dumps(header).encode() + b"\n" + payload)
    with pytest.raises(DamagedError, match="plain values"):
        checkpoint.load_checkpoint(tmp_path / "checkpoint", {})
    assert not marker.exists()


def test_the_meter_weights_batches_by_their_size() -> None:
    meter = Meter()
    meter.add("loss", torch.tensor(30.0), 10)
    meter.add("loss", torch.tensor(2.0), 2)
    assert meter.means() == {"loss": 32 / 12}
    copy = Meter()
    copy.load_state_dict(meter.state_dict())
    copy.add("loss", torch.tensor(1.0), 1)
    assert copy.means() == {"loss": 33 / 13}
    assert meter.means() == {"loss": 32 / 12}


def test_an_error_in_tensorboard_does_not_stop_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file where the folder should be")
    _, _, records, _ = train(tmp_path / "run")
    assert len(records) == 6
    assert [message.partition(" (")[0] for message in caplog.messages] == ["TensorBoard logging has stopped"]


def test_control_characters_in_an_error_of_tensorboard_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    board = Board(None, 0)
    board.broken = False
    with board:
        raise ValueError("red \x1b[31m\nand a second line")
    assert caplog.messages == [r"TensorBoard logging has stopped (red \x1b[31m); metrics.jsonl is still written."]


def test_tensorboard_shows_the_records(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, _, records, _ = train(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("loss")]
    assert shown == pytest.approx([record["loss"] for record in records])


def test_a_run_writes_files_in_its_folder(tmp_path: Path) -> None:
    with open_run("test", Experiment(), Launch(run=str(tmp_path)), "test", {}) as run:
        assert isinstance(run, Run)
        assert run.write("deep/er/file.txt", "x").read_text() == "x"
        with pytest.raises(ValueError, match="JSON"):
            run.write_json("bad.json", float("nan"))

"""The folder of a run: where a run may begin, and its lock, which is taken before anything slow."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rapdarts.cli.main import main
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.errors import BusyError, DamagedError, InputError, StorageError
from rapdarts.files.run_files import RESULTS
from rapdarts.training import claim
from rapdarts.training.claim import Claim, claimed, reserved
from rapdarts.training.session import open_run

SEARCH = Path(__file__).parents[1] / "whole" / "runs_0_1_0" / "search"
VERBS = {
    "search": ["search", "digits"],
    "random": ["search", "digits", "strategy=random"],
    "retrain": ["retrain", "PDARTS", "digits"],
    "rank": ["rank", "searched"],
    "find": ["find", "digits", "budget.params=100k"],
}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("names", [["config.yaml", "genotype.json"], ["notes.txt"], ["config.yaml"], [".hidden"]])
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_written_into_a_folder_of_other_files(
    verb: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SEARCH, "searched")
    Path("mine").mkdir()
    for name in names:
        Path("mine", name).write_text("seed: 1\n")
    before = snapshot(Path("mine"))
    assert main([*VERBS[verb], "run=mine"]) == 2
    assert "rapdarts: error: mine is not empty and not the folder of a run" in capsys.readouterr().err
    assert snapshot(Path("mine")) == before


def test_a_run_begins_in_a_folder_that_is_empty_or_was_left_by_a_killed_launch(tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "lock").write_text("")
    (tmp_path / "left" / ".config.yaml.0123456789abcdef.tmp").write_text("torn")
    for name in ("left", "new/er"):
        with open_run("test", Experiment(), Launch(run=str(tmp_path / name)), "test", {}) as run:
            pass
        assert (run.folder / "config.yaml").read_text().startswith("# written by rapdarts, sha256 ")


def test_a_run_begins_again_in_its_own_folder(tmp_path: Path) -> None:
    for seed in (1, 2):  # the first run saves nothing
        with open_run("test", Experiment(seed=seed), Launch(run=str(tmp_path)), "test", {}):
            pass
    shutil.copytree(SEARCH, tmp_path / "older")  # of a version without hashes
    for name in ("checkpoint", "metrics.jsonl", *RESULTS):
        (tmp_path / "older" / name).unlink(missing_ok=True)
    with open_run("search", Experiment(), Launch(run=str(tmp_path / "older")), "test", {}):
        pass


def test_a_new_folder_is_removed_after_an_error_before_the_run_began(tmp_path: Path) -> None:
    for error in (InputError("no data."), KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)), claimed("test", Launch(run=str(tmp_path / "a" / "b")), "test"):
            raise error
        assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    with pytest.raises(InputError), claimed("test", Launch(run=str(tmp_path / "kept")), "test"):
        raise InputError("no data.")
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize("link", ["trained", "trained/1", "tensorboard"])
def test_a_linked_folder_below_the_folder_of_a_run_is_not_written_to(
    link: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "of somebody").mkdir()
    with open_run("test", Experiment(), Launch(run=str(tmp_path / "run")), "test", {}):
        pass
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    (tmp_path / "run" / link).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / link).symlink_to(tmp_path / "of somebody")
    with open_run("test", Experiment(), Launch(run=str(tmp_path / "run"), resume=True), "test", {}) as run:
        if link == "tensorboard":
            assert "TensorBoard logging has stopped (" in caplog.text
        else:
            with pytest.raises(StorageError, match=rf"cannot be written: .*{link} is a link"):
                run.write("trained/1/genotype.json", "{}")
    assert not list((tmp_path / "of somebody").iterdir())


@pytest.mark.parametrize("name", ["genotype.json", "network.safetensors", "ranking.json"])
def test_results_are_not_overwritten_even_without_their_checkpoint(name: str, tmp_path: Path) -> None:
    with open_run("search", Experiment(), Launch(run=str(tmp_path)), "test", {}):
        pass
    for left in ("checkpoint", "checkpoint.previous", "result.json", "metrics.jsonl"):
        (tmp_path / left).unlink(missing_ok=True)
    (tmp_path / name).write_text("a result")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()}
    with pytest.raises(InputError, match=rf"holds results of a run \({re.escape(name)}\), which are not overwritten"):
        with open_run("search", Experiment(), Launch(run=str(tmp_path)), "test", {}):
            pass
    with pytest.raises(DamagedError, match="holds results but no checkpoint to continue from"):
        with open_run("search", Experiment(), Launch(run=str(tmp_path), resume=True), "test", {}):
            pass
    assert (tmp_path / name).read_text() == "a result"
    after = {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.is_file()}
    assert {one: content for one, content in after.items() if one != "status.json"} == {
        one: content for one, content in before.items() if one != "status.json"
    }


@pytest.mark.parametrize("path", ["file", "file/a/b"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_path_that_is_not_a_folder_is_refused(path: str, resume: bool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    launch = Launch(run=str(tmp_path / path), resume=resume)
    with pytest.raises(InputError, match="file is not a folder; choose another path"), claimed("test", launch, "t"):
        pass


def test_a_claim_is_held_by_the_run_that_it_is_for(tmp_path: Path) -> None:
    with reserved("test", Launch(), "test", Experiment()) as launch:
        assert launch == Launch()  # a folder without a name cannot be in use
    with reserved("test", Launch(run=str(tmp_path)), "test", Experiment()) as held:
        assert isinstance(held, Claim)
        with open_run("test", Experiment(), held, "test", {}) as run:
            assert run.folder == tmp_path


@pytest.mark.parametrize("saved", [False, True], ids=["at its first step", "later"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_second_owner_is_refused_before_data_are_read_and_torch_is_loaded(
    verb: str, saved: bool, tmp_path: Path
) -> None:
    shutil.copytree(SEARCH, tmp_path / "searched")
    (tmp_path / "run").mkdir()
    if saved:
        shutil.copytree(SEARCH, tmp_path / "run", dirs_exist_ok=True)
    code = (
        "import sys; from rapdarts.cli.main import main\n"
        f"code = main({[*VERBS[verb], 'run=run']!r}); sys.exit(100 if 'torch' in sys.modules else code)"
    )
    with open(tmp_path / "run" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 3, process.stderr
    assert "run is in use by another process" in process.stderr.splitlines()[-1]


def test_a_run_that_another_process_finished_just_before_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = claim._lock

    def late(folder: Path) -> int:
        """Take the lock after another process has used the folder."""
        shutil.copytree(SEARCH, folder, dirs_exist_ok=True)
        return lock(folder)

    monkeypatch.setattr(claim, "_lock", late)
    with pytest.raises(InputError, match="already holds a run"), claimed("test", Launch(str(tmp_path / "run")), "test"):
        raise AssertionError("the folder was claimed")
    assert {*snapshot(SEARCH)} == {*snapshot(tmp_path / "run")} - {"lock"}


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl"])
def test_a_link_in_the_folder_is_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    (tmp_path / "run").mkdir()
    with open_run("test", Experiment(), Launch(run=str(tmp_path / "run")), "test", {}):
        pass
    (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    try:
        with open_run("test", Experiment(), Launch(run=str(tmp_path / "run")), "test", {}) as run:
            run.log(loss=1.0)
        assert name == "metrics.jsonl"  # replaced by a file
    except (StorageError, InputError) as error:
        assert name in str(error)
    assert (tmp_path / "mine").read_text() == ""


def test_a_fifo_in_place_of_the_lock_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    began = time.monotonic()
    with pytest.raises(InputError, match="lock is not a regular file"):
        with claimed("test", Launch(run=str(tmp_path)), "test"):
            pass
    assert time.monotonic() - began < 1


def test_a_refused_owner_does_not_remove_the_folder_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found that the folder did not exist, and both were too early to find any file in it."""
    launch = Launch(run=str(tmp_path / "run"))
    with claimed("test", launch, "test"):
        monkeypatch.setattr(claim, "_missing", lambda folder: folder)
        with pytest.raises(BusyError), claimed("test", launch, "test"):
            pass
        assert (tmp_path / "run" / "lock").exists()


def lock_of(folder: Path, how: int = fcntl.LOCK_EX) -> int:
    """Return the descriptor of a lock that is held as by another process."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    return descriptor


@pytest.mark.parametrize("owned", [True, False], ids=["owned", "free"])
def test_the_lock_of_a_folder_that_was_removed_and_created_again_is_not_the_lock(
    owned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, the first owner removes its folder, and a third process creates it again."""
    folder, flock, others = tmp_path / "run", fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not others:
            shutil.rmtree(folder)
            folder.mkdir()
            others.append(os.open(folder / "lock", os.O_RDWR | os.O_CREAT))
            if owned:
                flock(others[0], fcntl.LOCK_EX)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    try:
        if owned:
            with pytest.raises(BusyError), claimed("test", Launch(run=str(folder)), "test"):
                raise AssertionError("two processes own the folder")
        else:
            with claimed("test", Launch(run=str(folder)), "test"), pytest.raises(BlockingIOError):
                flock(others[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert (folder / "lock").exists()
    finally:
        os.close(others[0])


def test_a_process_that_only_looks_whether_a_folder_is_in_use_does_not_stop_its_owner(tmp_path: Path) -> None:
    shutil.copytree(SEARCH, tmp_path / "run")
    looking = lock_of(tmp_path / "run", fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [looking]).start()
    with claimed("test", Launch(run=str(tmp_path / "run"), resume=True), "test") as claim:
        assert isinstance(claim, Claim)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_run_goes_on_with_a_warning_where_there_are_no_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *given: fail(number))
    for resume in (False, True):
        with open_run("test", Experiment(), Launch(str(tmp_path / "run"), resume), "test", {}) as run:
            run.save()
    assert caplog.messages == 2 * [
        f"the file system of {tmp_path / 'run'} has no locks, so a second run in this folder would not be noticed"
    ]


@pytest.mark.parametrize("there", [False, True])
def test_a_lock_that_fails_is_reported_with_its_path_and_leaves_no_new_folder(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        (tmp_path / "a" / "run").mkdir(parents=True)
    monkeypatch.setattr(fcntl, "flock", lambda *given: fail(errno.EIO))
    with pytest.raises(StorageError, match=r"a/run/lock cannot be written: Input/output error\. Choose another place"):
        with claimed("test", Launch(run=str(tmp_path / "a" / "run")), "test"):
            raise AssertionError("the folder was claimed")
    assert (tmp_path / "a" / "run").exists() == there == (tmp_path / "a").exists()


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


def test_an_owner_is_waited_for_only_for_a_moment(tmp_path: Path) -> None:
    own, before = lock_of(tmp_path), len(os.listdir("/proc/self/fd"))
    began = time.monotonic()
    with pytest.raises(BusyError, match="is in use by another process"):
        with claimed("test", Launch(run=str(tmp_path)), "test"):
            raise AssertionError("two processes own the folder")
    assert time.monotonic() - began < 2
    assert len(os.listdir("/proc/self/fd")) == before  # every attempt closes its file
    os.close(own)

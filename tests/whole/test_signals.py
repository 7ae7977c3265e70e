"""A signal stops a command in every phase, at once or after the step, with one sentence and exit code 75, and nothing is lost."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rapdarts.cli.main import main
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.deploy.runtimes import need
from rapdarts.errors import Preempted, Stopped, StorageError
from rapdarts.interruptions import SIGNALS, completing, during, handled
from rapdarts.training import status
from rapdarts.training.footprint import Alive
from rapdarts.training.session import open_run
from tests.bits import file_sha256
from tests.tiny import TINY

STAGE = ["search.layers=[3]", "search.candidates=[0]", "search.skip_dropout=[0.3]", "data.fraction=0.08"]
SEARCH = ["search", "digits", *TINY, *STAGE]
RETRAIN = ["retrain", "PDARTS", "digits", "threads=1", "data.fraction=0.1", "skeleton.layers=3", "skeleton.channels=4"]
RETRAIN += ["retrain.epochs=2", "retrain.batch=40", "retrain.validation_fraction=0.2"]
ANSWER = 2.0
"""Seconds within which a signal must be answered."""


@pytest.fixture(autouse=True)
def own_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder. A background job of a shell starts with SIGINT ignored, and a signal could end the tests."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs that no signal stopped, by command."""
    folder = tmp_path_factory.mktemp("whole")
    found = {"search": folder / "search", "retrain": folder / "retrain"}
    for command in (SEARCH, RETRAIN):
        assert main([*command, f"run={found[command[0]]}"]) == 0
    return found


def bits(folder: Path) -> dict[str, str]:
    """Return the hashes of the results of a run, by file."""
    names = ("alphas.json", "genotype.json", "candidates.json", "network.safetensors", "best.safetensors")
    return {name: file_sha256(folder / name) for name in names if (folder / name).exists()}


def at(place: str, number: int, monkeypatch: pytest.MonkeyPatch, waits: bool) -> list[float]:
    """Send a signal when the function at `place` is called first, and then, unless it `waits` for the step, compute for 20 s.

    Return the list to which the time of the signal is added.
    """
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(f"rapdarts.{module}")
    *inside, name = name.split(".")
    for part in inside:
        owner = getattr(owner, part)
    original, sent = getattr(owner, name), list[float]()

    def signalled(*given: Any, **named: Any) -> Any:
        if not sent:
            sent.append(time.monotonic())
            os.kill(os.getpid(), number)
            while not waits and time.monotonic() < sent[0] + 20:
                torch.ones(10).sum()
        return original(*given, **named)

    monkeypatch.setattr(owner, name, signalled)
    return sent


PHASES = [
    (SEARCH, "loops.launch:load_dataset", "while reading the data; nothing is lost.", False),
    (SEARCH, "loops.search:prices", "while counting the costs of the search space; nothing is lost.", False),
    (SEARCH, "loops.memory:MemoryEstimate.__init__", "; everything saved so far is kept.", False),
    (SEARCH, "loops.search:build_stage", "; everything saved so far is kept.", False),
    (SEARCH, "loops.search:alternation", "; everything saved so far is kept.", False),
    (SEARCH, "strategy.derive:discretize", "; everything saved so far is kept.", False),
    (SEARCH, "loops.search:derive_jointly", "; everything saved so far is kept.", False),
    (SEARCH, "loops.launch:cost_report", "; everything saved so far is kept.", False),
    (SEARCH, "loops.search:mean_loss", " at stage 1/1, epoch ", True),
    (SEARCH, "loops.search:certainty", " at stage 1/1, epoch ", True),
    (SEARCH, "training.checkpoint:torch.save", "; everything saved so far is kept.", True),
    (RETRAIN, "loops.retrain:build_network", "; everything saved so far is kept.", False),
    (RETRAIN, "loops.retrain:summed_loss", " at retraining, epoch 1, step 1;", True),
    (RETRAIN, "loops.retrain:predict", " at retraining, epoch 1, step 3;", True),
    (RETRAIN, "loops.retrain:topk_correct", " while testing the network; everything saved so far is kept.", False),
    (RETRAIN, "loops.retrain:to_safetensors", "; everything saved so far is kept.", False),
]


SLOW = (
    "MemoryEstimate.__init__",
    "alternation",
    "discretize",
    "cost_report",
    "certainty",
    "build_network",
    "to_safetensors",
)


@pytest.mark.parametrize(
    ("command", "place", "words", "waits", "number"),
    [
        pytest.param(
            *phase,
            SIGNALS[turn % len(SIGNALS)],
            id=phase[1].partition(":")[2],
            marks=[pytest.mark.proof] if phase[1].endswith(SLOW) else [],
        )
        for turn, phase in enumerate(PHASES)
    ],
)
def test_a_run_is_stopped_in_every_phase_and_resumes_bit_identically(
    command: list[str],
    place: str,
    words: str,
    waits: bool,
    number: signal.Signals,
    whole: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        sent = at(place, number, patch, waits)
        assert main([*command, f"run={folder}"]) == 75
        assert time.monotonic() - sent[0] < ANSWER
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1].startswith("rapdarts: stopped by " + number.name) and words in printed[-1], printed
    if (folder / "status.json").exists():
        status = json.loads((folder / "status.json").read_text())
        assert (status["state"], status["exit_code"]) == ("preempted", 75)
        assert f"Continue with: rapdarts {command[0]} " in printed[-1]
    else:
        assert "Run the same command again." in printed[-1]
    assert not list(tmp_path.rglob("*.tmp"))
    assert main([*command, f"run={folder}", "resume=true"]) == 0
    assert bits(folder) == bits(whole[command[0]])


COMMANDS: dict[str, tuple[Callable[[Path], list[str]], str, str]] = {
    "cost": (lambda net: ["cost", "PDARTS"], "deploy.network_costs:count_layers", ""),
    "evaluate": (lambda net: ["evaluate", f"{net}"], "deploy.evaluation:data_to_test", "testing the network"),
    "export": (
        lambda net: ["export", f"{net}", "to=onnx", "out=net.onnx"],
        "deploy.verify:write_verified",
        "exporting the network",
    ),
    "measure": (lambda net: ["measure", "lenet"], "deploy.network_latency:_seconds", "measuring latency"),
    "report": (lambda net: ["report", f"{net}"], "reports.run_table:run_table", ""),
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_other_commands_stop_at_once(
    verb: str,
    whole: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, place, task = COMMANDS[verb]
    sent = at(place, signal.SIGTERM, monkeypatch, waits=False)
    assert main(command(whole["retrain"])) == 75
    assert time.monotonic() - sent[0] < ANSWER
    while_task = f" while {task}" if task else ""
    sentence = f"rapdarts: stopped by SIGTERM{while_task}; nothing is lost. Run the same command again."
    assert capsys.readouterr().err.splitlines()[-1] == sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_waits_for_a_file_to_be_written(number: signal.Signals) -> None:
    done = False
    with pytest.raises(Stopped, match=f"stopped by {number.name}"), handled(), completing():
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        done = True
    assert done


def test_a_signal_in_a_destructor_is_not_lost() -> None:
    """Python prints and drops an exception that is raised there, so the signal is answered shortly afterwards."""

    finished: list[str] = []

    def signalled(name: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        finished.append(name)

    class Thing:
        def __del__(self) -> None:
            signalled("destructor")

    for kind in ("destructor", "finalizer"):
        began = time.monotonic()
        with pytest.raises(Stopped), handled():
            thing: Any = Thing() if kind == "destructor" else torch.ones(1)
            if kind == "finalizer":
                weakref.finalize(thing, signalled, kind)
            del thing
            time.sleep(20)
        assert time.monotonic() - began < ANSWER
    assert finished == ["destructor", "finalizer"]


def test_a_signal_while_a_memory_estimate_releases_a_tensor_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Alive._gone

    def _gone(alive: Alive, known: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        gone(alive, known)

    monkeypatch.setattr(Alive, "_gone", _gone)
    with pytest.raises(Stopped), handled(), Alive() as alive:
        tensor = torch.ones(3)
        alive.track(tensor)
        del tensor
        time.sleep(20)


def test_a_stop_that_is_swallowed_is_raised_again() -> None:
    began = time.monotonic()
    with pytest.raises(Stopped), handled():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        except BaseException:
            time.sleep(20)
    assert time.monotonic() - began < ANSWER


def test_a_run_that_is_stopped_while_its_status_is_written_is_not_left_as_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = status.write_status

    def stopped_once(path: Path, facts: Any) -> None:
        write(path, facts)
        if facts["state"] == "running":
            with completing():  # as every file that is written
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(status, "write_status", stopped_once)
    with pytest.raises((Preempted, Stopped)):
        with open_run("test", Experiment(), Launch(run=str(tmp_path / "run")), "test", {}):
            pass
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "preempted"


def broken_by_a_signal(error: Exception) -> None:
    """Receive a signal in the code of a package that turns every exception into one of its own."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException:
        raise error from None


@pytest.mark.parametrize("error", [RuntimeError("Failed to export the model."), ImportError("initialisation failed")])
def test_a_stop_that_a_package_turns_into_an_error_is_a_stop(error: Exception) -> None:
    with handled(), pytest.raises(Stopped) as caught, during("exporting the network"):
        broken_by_a_signal(error)
    assert caught.value.task == "exporting the network"
    with pytest.raises(type(error)), during("exporting the network"):
        raise error


def test_a_signal_in_an_import_does_not_make_a_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: broken_by_a_signal(ImportError("no module")))
    with handled(), pytest.raises(Stopped):
        need("onnx", "to=onnx")


def test_an_error_of_ours_after_a_signal_is_reported() -> None:
    with handled(), pytest.raises(StorageError, match="no space"), during("saving the run"):
        broken_by_a_signal(StorageError("no space."))


@pytest.mark.parametrize("place", ["rapdarts.cli.main._run", "torch.onnx.export"])
def test_a_command_that_a_signal_breaks_ends_as_stopped(
    place: str, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(place, lambda *given, **more: broken_by_a_signal(RuntimeError("This is step 1/3.")))
    assert main(["export", str(whole["retrain"]), "to=onnx", "out=net.onnx"]) == 75
    assert "internal error" not in capsys.readouterr().err


def test_handlers_and_the_timer_of_a_program_are_left_alone() -> None:
    def own(number: int, frame: Any) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGALRM, own)
    try:
        with handled() as outer, handled() as inner:
            assert outer is inner
            assert signal.getsignal(signal.SIGALRM) is own
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)] == [signal.SIG_DFL, own]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_alarm_that_was_set_before_is_left_alone() -> None:
    """Its default response ends the process, as whoever set it intends."""
    code = (
        "import signal, time; from rapdarts.interruptions import handled\n"
        "signal.alarm(2)\n"
        "with handled():\n    pass\n"
        "assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 2\n"
        "with handled():\n    time.sleep(30)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGALRM, done.stderr


@pytest.mark.parametrize(("before", "end"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
def test_ctrl_c_while_the_command_line_is_loaded_ends_without_a_traceback(before: str, end: int) -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *given):\n"
        "        if name == 'rapdarts.cli.main':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        f"signal.signal(signal.SIGINT, signal.{before})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['rapdarts', '--version']\n"
        "from rapdarts.cli.entry import main\n"
        "raise SystemExit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (end, "")

"""The table of mutants fits the code and the tests, and the runner tells which mutants are noticed."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mutants import __main__ as program
from tests.mutants.runner import ROOT, Mutant, Result, replace_line, report, run_mutants, run_tests
from tests.mutants.table import mutants

NAMED = (
    "the first-order gradient of alpha comes from the training half",
    "wrong labels in the search loss",
    "a constant learning rate of the search",
    "alpha is not clipped",
    "alpha has no weight decay",
    "the auxiliary head has weight 1",
    "a constant drop path",
    "gradients are clipped by value",
    "augmentation is frozen to epoch 0",
    "errors of a difference are not paired",
)
"""Faults that no test noticed before there was this table."""


def test_every_mutant_fits_one_line_and_names_an_existing_test() -> None:
    found = mutants()
    assert len(found) >= 100 and len({one.what for one in found}) == len(found)
    assert set(NAMED) <= {one.what for one in found}
    folders = {one.file.split("/")[1] for one in found}
    assert folders == {
        "loops",
        "strategy",
        "cost",
        "networks",
        "training",
        "data",
        "files",
        "errors.py",
        "interruptions.py",
    }
    for one in found:
        text = (ROOT / one.file).read_text(encoding="utf-8")
        assert text.count(one.old) == 1, f"{one.file} must have exactly one line with {one.old!r}"
        assert "\n" not in one.old + one.new and one.old != one.new, one.what
        file, _, name = one.test.partition("::")
        function = re.escape(name.partition("[")[0])
        assert re.search(rf"^def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), one.test


ONE = "def one():\n    return 1\n"

TESTS = """
import os, subprocess, time
import pytest
from one import one

@pytest.fixture
def half():
    return 1 / one()

@pytest.fixture
def checked():
    assert one() == 1

def test_value():
    assert one() == 1

def test_call():
    one()

def test_broken_fixture(half):
    assert half == 1

def test_checking_fixture(checked):
    pass

def test_crash():
    os.abort()

def test_waits():
    with open("alive", "w") as alive:
        subprocess.run(["sh", "-c", "echo started; exec sleep 60"], stdout=alive)
"""


def mutant_of(old: str = "return 1", new: str = "return 2", test: str = "test_value") -> Mutant:
    return Mutant("one.py", "a wrong number", old, new, f"test_one.py::{test}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one.py").write_text(ONE)
    (tmp_path / "test_one.py").write_text(TESTS)
    return tmp_path


@pytest.mark.parametrize(
    "new, test, state, by",
    [
        ("return 2", "test_value", "killed", "test_one.py::test_value (AssertionError)"),
        ("raise OSError", "test_call", "killed", "test_one.py::test_call (OSError)"),
        ("return 2", "test_checking_fixture", "killed", "test_one.py::test_checking_fixture (AssertionError)"),
        ("return 2", "test_call", "survived", ""),
        ("return 0", "test_broken_fixture", "broken", "test_one.py::test_broken_fixture (ZeroDivisionError)"),
        ("return (", "test_value", "broken", "test_one.py:: (CollectError)"),
        ("return 2", "test_absent", "broken", ""),
        ("return 2", "test_crash", "broken", ""),
    ],
)
def test_a_mutant_is_killed_only_by_a_test_that_fails(new: str, test: str, state: str, by: str, folder: Path) -> None:
    (outcome,) = run_mutants(folder, [mutant_of(new=new, test=test)])
    assert (outcome.result.state, outcome.result.by) == (state, by), outcome.result.output
    assert (folder / "one.py").read_text() == ONE


def test_the_runner_runs_the_test_of_each_fault_and_reports_all_results(folder: Path) -> None:
    results = iter(
        [Result("killed", "test_value"), Result("survived"), Result("broken", "", "no such test"), Result("timed out")]
    )

    def run(folder: Path, tests: Sequence[str]) -> Result:
        assert (folder / "one.py").read_text() == "def one():\n    return 2\n" and tests == ["test_one.py::test_value"]
        return next(results)

    lines = report(list(run_mutants(folder, [mutant_of()] * 4, run))).splitlines()
    assert [re.split("  +", line)[2] for line in lines[1:5]] == ["killed", "survived", "broken", "timed out"]
    assert lines[5].startswith("1 of 4 mutants were killed in ") and lines[5].endswith(
        ", 1 survived, 1 broken, 1 timed out"
    )
    assert lines[6:] == ["--- a wrong number: broken", "no such test", "--- a wrong number: timed out"]


@contextmanager
def sleeper(folder: Path) -> Iterator[Callable[[], None]]:
    """Yield a function that waits until `test_waits` has started a process; at the end, this process must be dead.

    The process has a pipe open. It sleeps for a minute, so that a failing test ends.
    """
    os.mkfifo(folder / "alive")
    reader = os.open(folder / "alive", os.O_RDONLY | os.O_NONBLOCK)

    def started() -> None:
        assert select.select([reader], [], [], 60)[0]

    with open(reader) as alive:
        yield started
        os.set_blocking(reader, True)
        began = time.monotonic()
        assert alive.read() == "started\n"
        assert time.monotonic() - began < 20


def test_tests_that_take_too_long_are_ended_with_their_processes(folder: Path) -> None:
    with sleeper(folder):
        assert run_tests(folder, ["test_one.py::test_waits"], limit=3).state == "timed out"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_runner_that_is_stopped_ends_the_tests_with_their_processes(number: signal.Signals, folder: Path) -> None:
    # A process in the background may ignore the signals.
    program = (
        "import signal, sys; from pathlib import Path; from tests.mutants import runner; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "runner.exit_on_signals(); runner.run_tests(Path(sys.argv[1]), ['test_one.py::test_waits'])"
    )
    with sleeper(folder) as started:
        runner = subprocess.Popen([sys.executable, "-c", program, folder], cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            started()
            runner.send_signal(number)
            assert runner.wait(20) == (-number if number == signal.SIGINT else 128 + number)
        finally:
            runner.kill()


@pytest.mark.parametrize("old", ["return 3", "e", "return 1\n"])
def test_a_fault_must_be_in_one_line(old: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="exactly one line"):
        replace_line(folder, mutant_of(old))


@pytest.mark.proof
def test_a_mutant_is_killed_and_one_that_changes_nothing_survives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, test = "rapdarts/training/schedules.py", "tests/training/test_schedules.py::test_drop_path_rises_from_zero"
    fault = Mutant(file, "a fault", "return rate * epoch / epochs", "return rate", test)
    nothing = Mutant(file, "no fault", "return rate * epoch / epochs", "return rate * (epoch / epochs)", test)
    monkeypatch.setattr(program, "mutants", lambda: [fault, nothing])
    assert program.main(["a fault"]) == 0
    assert program.main([]) == 1
    out = capsys.readouterr().out.splitlines()
    assert "test_schedules.py::test_drop_path_rises_from_zero" in out[1] and " killed " in out[1]
    assert out[2].startswith("1 of 1 mutants were killed in ")
    assert " killed " in out[4] and " survived " in out[5] and out[6].startswith("1 of 2 mutants")

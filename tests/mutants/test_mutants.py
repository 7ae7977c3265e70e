"""The table of mutants fits the code and the tests, and the runner tells which mutants are noticed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants import __main__ as program
from tests.mutants.runner import ROOT, Mutant, replace_line, report, run_mutants
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
    assert folders == {"loops", "strategy", "cost", "networks", "training", "data"}
    for one in found:
        text = (ROOT / one.file).read_text(encoding="utf-8")
        assert text.count(one.old) == 1, f"{one.file} must have exactly one line with {one.old!r}"
        assert "\n" not in one.old + one.new and one.old != one.new, one.what
        file, _, name = one.test.partition("::")
        function = re.escape(name.partition("[")[0])
        assert re.search(rf"^def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), one.test


def mutant_of(old: str = "return 1", new: str = "return 2") -> Mutant:
    return Mutant("one.py", "a wrong number", old, new, "test_one.py::test_one")


def test_the_runner_restores_the_file_and_tells_the_results_apart(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def one():\n    return 1\n")
    outputs = iter([(1, "FAILED tests/test_one.py::test_one - assert"), (0, ""), (2, "no such test")])

    def run(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
        assert (folder / "one.py").read_text() == "def one():\n    return 2\n" and tests == ["test_one.py::test_one"]
        return next(outputs)

    outcomes = list(run_mutants(tmp_path, [mutant_of()] * 3, run))
    assert [(one.state, one.by) for one in outcomes] == [
        ("killed", "test_one.py::test_one"), ("survived", ""), ("broken", ""),
    ]  # fmt: skip
    assert (tmp_path / "one.py").read_text() == "def one():\n    return 1\n"
    lines = report(outcomes).splitlines()
    assert [line.split()[-2] for line in lines[1:4]] == ["killed", "survived", "broken"]
    assert lines[4].startswith("1 of 3 mutants were killed in ") and "no such test" in lines[-1]


@pytest.mark.parametrize("old", ["return 3", "e", "return 1\n"])
def test_a_fault_must_be_in_one_line(old: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def one():\n    return 1\n")
    with pytest.raises(ValueError, match="exactly one line"):
        replace_line(tmp_path, mutant_of(old))


@pytest.mark.slow
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

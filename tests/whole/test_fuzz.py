"""Mutated inputs: a command succeeds or refuses them in one line, in time, and executes nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzzed
from tests.pages import ROOT

COUNT = 300
"""Number of mutated inputs, ten of every kind; `python -m tests.faults inputs` tries 10,000."""


def test_mutated_inputs_are_accepted_or_refused(tmp_path: Path) -> None:
    found = fuzzed.fuzz(COUNT, tmp_path)
    assert [f"{one.name}, number {one.number}: {one.what}, {one.content[:200]!r}" for one in found] == []


@pytest.mark.parametrize("name", ["genotype in Python", "picture in PNG"])
def test_a_process_answers_as_the_function_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials run in one process; these check that nothing is lost by that."""
    monkeypatch.chdir(tmp_path)
    one = fuzzed.inputs()[name]
    content = fuzzed.mutated(one.content, random.Random(3), one.text)
    code, out, err = fuzzed.answer(one, one.command, content)
    fuzzed.write(one.path, content)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rapdarts", *one.command]
    alone = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (alone.returncode, alone.stdout, alone.stderr) == (code, out, err)
    assert fuzzed.problem_of(code, out, err) == ""


def test_the_judge_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = "rapdarts: error: a.json is not a genotype.\n"
    assert fuzzed.problem_of(2, "", refused) == "" == fuzzed.problem_of(0, "5 params\n", "")
    assert fuzzed.problem_of(1, "", refused)
    assert fuzzed.problem_of(2, "", "Traceback (most recent call last):\n  File\n" + refused)
    assert fuzzed.problem_of(2, "", "rapdarts: internal error: KeyError.\n")
    assert fuzzed.problem_of(2, "", "rapdarts: error: a\x1b[31m.\n")
    assert fuzzed.problem_of(0, "\u202e\n", "")
    Path(fuzzed.MARKER).touch()
    assert fuzzed.problem_of(2, "", refused) == "something was executed"


def test_the_memory_of_one_input_is_measured_beyond_what_the_process_has() -> None:
    held, memory = bytearray(b"a") * 10**8, fuzzed.Memory()
    with memory.watched() as little:
        pass
    with memory.watched() as most:
        del held[: len(bytearray(b"a") * 10**8)]
    assert little[0] < 10**7 < 9 * 10**7 < most[0] == memory.most

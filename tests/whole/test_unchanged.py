"""A call of the library leaves the process as it was: its signals, warnings, random numbers, threads and memory settings."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from rapdarts import api
from tests.environment import ENVIRONMENT
from tests.unchanged import CALLS, DRAWS


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the output of tests/unchanged.py in a new process, in which no package is imported yet."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unchanged"],
        cwd=tmp_path_factory.mktemp("unchanged"),
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},  # the calls ask for one thread
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_public_function_is_called() -> None:
    assert set(CALLS) == set(api.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_the_process_as_it_was(name: str, printed: dict[str, Any]) -> None:
    expected = ["random numbers of torch"] if name in DRAWS else []
    assert printed["changes"][name] == expected


def test_after_a_search_freed_memory_returns_to_the_system(printed: dict[str, Any]) -> None:
    """A search on a CPU makes glibc keep freed memory; the program that called it does not want that."""
    assert printed["kept"] < 2**25

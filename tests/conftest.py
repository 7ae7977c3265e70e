"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch

# Kernels for a GPU are interpreted where there is none. Triton asks when it is imported, which torch may do at any time.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# On a small shared machine two threads are several times slower than one.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays: looked through again and again, it made Python's collector a fifth of the whole time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_unconfigure() -> None:
    """Libraries that look for leaks as a process ends find none."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def memory_is_not_looked_into(request: pytest.FixtureRequest) -> Iterator[None]:
    """Estimating what a search will take is tested in loops/test_memory.py; elsewhere it would be a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.path.parts[-2:] != ("loops", "test_memory.py"):
            patch.setattr("rapdarts.loops.memory.MemoryEstimate.words", lambda estimate: None)
        yield

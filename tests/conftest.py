"""Setup shared by all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# Without a GPU, Triton must interpret its kernels. It reads this variable when it is imported, and torch may import it at any time.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A busy machine takes longer for an example than its deadline, which is no fault of the code.
settings.register_profile("without a deadline", deadline=None)
settings.load_profile("without a deadline")

# On a small shared machine, two threads are several times slower than one.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Exclude all objects created so far from garbage collection; scanning them repeatedly took a fifth of the total time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_unconfigure() -> None:
    """Return these objects to the garbage collector, so that libraries that check for leaks at exit find none."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def no_memory_estimates(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip memory estimates except in loops/test_memory.py; they would take a quarter of the time of the many tiny searches."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.path.parts[-2:] != ("loops", "test_memory.py"):
            patch.setattr("rapdarts.loops.memory.MemoryEstimate.summary", lambda estimate: None)
        yield

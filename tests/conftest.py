"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# On a small shared machine two threads are several times slower than one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data sets as users have them on disk: cifar-10-batches-bin/, fashion-mnist/, imagenette224/."""
    folder = os.environ.get("RAPDARTS_DATA", "")
    if not folder:
        pytest.skip("RAPDARTS_DATA is not set; it names the folder that holds cifar-10-batches-bin/ and the like")
    return Path(folder)

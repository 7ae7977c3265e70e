"""Fixtures: a few random images in place of CIFAR-10, for searches that take a second, and made-up results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evidence import made_up, store, tasks


@pytest.fixture
def few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary folder for data, runs and results, with 200 random images in place of CIFAR-10."""
    rng = np.random.default_rng(0)
    halves = {"train": 200, "test": 20}
    arrays = {f"x_{half}": rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8) for half, n in halves.items()}
    labels = {f"y_{half}": np.arange(n) % 10 for half, n in halves.items()}
    np.savez(tmp_path / "cifar10_half.npz", **arrays, **labels)
    monkeypatch.setattr(store, "FOLDER", tmp_path / "results")
    store.FOLDER.mkdir()
    for module in (store, tasks):
        monkeypatch.setattr(module, "WORK", tmp_path)
    return tmp_path


@pytest.fixture
def rows() -> store.Rows:
    """Return made-up results on NAS-Bench-201: those of `made_up.compared`."""
    return made_up.compared()

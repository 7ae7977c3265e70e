"""A program that calls every public function of the library once and prints what each call has changed in the process."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rapdarts
from rapdarts import api

RNG = np.random.default_rng(0)
DATA = RNG.integers(0, 256, (240, 1, 8, 8), dtype=np.uint8), np.arange(240) % 3
SEARCH = {"channels": 2, "layers": (3,), "candidates": [0], "skip_dropout": [0.3], "epochs": 1, "warmup_epochs": 0}
TINY: dict[str, Any] = {
    "threads": 1,
    "data": {"crop": 1, "flip": False},
    "skeleton": {"layers": 3, "channels": 4},
    "search": {**SEARCH, "batch": 40},
    "retrain": {"epochs": 1, "batch": 40},
}
QUIET: dict[str, Any] = {"data": DATA, "progress": False}

CALLS: dict[str, Callable[[], Any]] = {
    "search": lambda: api.search(TINY, run="search", **QUIET),
    "retrain": lambda: api.retrain("PDARTS", TINY, run="net", **QUIET),
    "random_baseline": lambda: api.random_baseline(TINY, {"random.count": 2}, run="random", **QUIET),
    "rank": lambda: api.rank("search", {"rank.count": 2, "rank.epochs": 1, "threads": 1}, run="rank", **QUIET),
    "find": lambda: api.find(TINY, {"budget.params": 10}, run="find", **QUIET),
    "derive": lambda: api.derive("search", max_skips=1, progress=False),
    "derived": lambda: api.derived("PDARTS", channels=4, layers=3),
    "read": lambda: api.read("PDARTS"),
    "load": lambda: api.load("net"),
    "evaluate": lambda: api.evaluate("net", **QUIET),
    "export": lambda: api.export("net", "onnx", out="exported.onnx", data=DATA),
    "costs": lambda: api.costs("lenet"),
    "layer_costs": lambda: api.layer_costs("lenet", plot="costs.png"),
    "space_prices": lambda: api.space_prices({"space": "nasbench201", "channels": 4, "layers": 3}),
    "filter_designs": lambda: api.filter_designs(),
    "measure": lambda: api.measure("lenet", rounds=4, progress=False, threads=1),
    "report": lambda: api.report(["search", "net"]),
}
REFUSED = {"find"}
"""Calls that raise InputError after the data are read and costs are counted, because no network meets the budget."""
DRAWS = {"derived"}
"""Functions that draw new weights from torch's global generator, as the constructor of any module does."""


def state() -> dict[str, Any]:
    """Return the state of the process that a call of a library must not change."""
    numbers = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
    cuda = torch.backends.cudnn
    return {
        "warning filters": [*warnings.filters],
        "signal handlers": [signal.getsignal(number) for number in numbers],
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "random numbers of Python": random.getstate(),
        "random numbers of NumPy": str(np.random.get_state()),
        "random numbers of torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "determinism": (
            torch.are_deterministic_algorithms_enabled(),
            cuda.benchmark,
            cuda.deterministic,
            cuda.allow_tf32,
        ),
        "logging": (logging.root.manager.disable, logging.root.level, [*logging.root.handlers]),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning),
        "running threads": threading.active_count(),
        "folder": os.getcwd(),
        # torch sets one of its own variables when its compiler is first loaded
        "environment": {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"},
        "streams": (sys.stdout, sys.stderr),
    }


def freed_memory() -> int:
    """Return how many bytes of a large tensor this process keeps after the tensor is freed."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    tensor = torch.ones(2**26)
    assert resident() - before > 2**27
    del tensor
    return resident() - before


def main() -> None:
    """Print, as JSON, the changes by function, and the bytes kept after a search."""
    changes: dict[str, list[str]] = {}
    for name, call in CALLS.items():
        before = state()
        try:
            call()
            assert name not in REFUSED
        except rapdarts.InputError:
            if name not in REFUSED:
                raise
        after = state()
        changes[name] = [what for what in before if before[what] != after[what]]
    print(json.dumps({"changes": changes, "kept": freed_memory()}))


if __name__ == "__main__":
    main()

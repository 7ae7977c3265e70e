"""Small runs of every kind, started as real processes, and a fingerprint of everything that a finished run has computed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapdarts.files.run_files import RunFile
from rapdarts.training.checkpoint import load_checkpoint
from tests.bits import weights_sha256
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "PYTHONPATH": str(ROOT),
}
"""Environment of all runs. Threads that wait do not spin, which would slow down the others on a busy machine; results do not change."""

PROGRAM = [sys.executable, "-m", "rapdarts"]

TRAINING = ["data.fraction=0.1", "skeleton.layers=3", "skeleton.channels=4", "retrain.epochs=3", "retrain.batch=24"]
RETRAIN = ["retrain", "DARTS_V2", "digits", *TRAINING, "retrain.ema=0.9", "retrain.drop_path=0.2"]

KINDS: dict[str, list[str]] = {
    "search": ["search", "digits", *TINY],
    "search with a budget": ["search", "digits", *TINY, "budget.params=9k"],
    "priced search, partial channels, recomputed cells": [
        "search", "digits", *TINY, "cost.macs=0.2", "search.channels=4", "search.partial_channels=2", "search.checkpoint=true",
    ],
    "second-order search": ["search", "digits", *TINY, "search.unrolled=true"],
    "search with replicas": ["search", "digits", *TINY, "search.replicas=2"],
    "retraining, EMA and drop path": RETRAIN,
    "ranking": ["rank", "{search}", "rank.count=3", "rank.epochs=2", "retrain.batch=24", "threads=1"],
    "random baseline": ["search", "digits", *TINY, "strategy=random", "search.random.count=2", *TRAINING],
    "find": ["find", "digits", *TINY, "budget.params=9k", "effort=0.05", "retrain.batch=24"],
}  # fmt: skip
"""Commands by the kind of run, without the run folder; `{search}` is the folder of a finished search."""

NOT_COMPUTED = frozenset({RunFile.STATUS, RunFile.ENVIRONMENT, RunFile.LOCK, RunFile.CHECKPOINT_BEFORE})
"""Files that say how a run went, not what it computed."""

TIMES = frozenset(
    {"seconds", "step_seconds", "planned_seconds", "choosing_seconds", "elapsed", "timing", "pace", "sha256", "files"}
)
"""Keys of durations, of the pace of the machine, and of hashes that cover such values; the hashed files are compared themselves."""


def command(kind: str, folder: Path, *more: str, search: Path | None = None) -> list[str]:
    """Return the command of a run in a folder."""
    words = [str(search) if word == "{search}" else word for word in KINDS[kind]]
    return [*PROGRAM, *words, f"run={folder}", *more]


def start(words: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own; what it prints on stderr is kept."""
    return subprocess.Popen(
        words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(words: Sequence[str], timeout: float = 600.0) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it printed on stderr."""
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False)
    return done.returncode, done.stderr


def fingerprint(folder: Path) -> dict[str, Any]:
    """Return what a finished run has computed, file by file: hashes of weights and files, and JSON and checkpoints without times.

    The entries of a checkpoint, such as its finished stages and the states of networks and optimisers, have names of their own.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name not in NOT_COMPUTED and "tensorboard" not in path.parts:
            if path.name == RunFile.CHECKPOINT:
                found |= {f"{name}: {entry}": value for entry, value in state(path, folder).items()}
            else:
                found[name] = READERS.get(path.suffix, whole)(path, folder)
    return found


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of the entries in which two fingerprints differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def state(path: Path, folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint without times, with a hash in the place of every tensor. The objects are separate entries."""
    found = load_checkpoint(path, {})
    if found is None or found[1]:
        return {"damage": found and found[1]}
    content = {**found[0], "records": [json.loads(line) for line in found[0]["records"]]}
    objects = content.pop("objects")
    return compared({**content, **{f"objects.{name}": value for name, value in objects.items()}}, folder)


def whole(path: Path, folder: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(path: Path, folder: Path) -> str:
    return weights_sha256(path)


def compared(value: Any, folder: Path) -> Any:
    """Return a value without times, with a hash in the place of every tensor and a word in the place of the run's folder."""
    if isinstance(value, dict):
        return {name: compared(one, folder) for name, one in value.items() if name not in TIMES}
    if isinstance(value, list | tuple):
        return [compared(one, folder) for one in value]
    if isinstance(value, Tensor):
        raw = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw).hexdigest()}"
    return value.replace(str(folder), "RUN") if isinstance(value, str) else value


def parsed(path: Path, folder: Path) -> Any:
    return compared(json.loads(path.read_text(encoding="utf-8")), folder)


def records(path: Path, folder: Path) -> Any:
    return [compared(json.loads(line), folder) for line in path.read_text(encoding="utf-8").splitlines()]


def page(path: Path, folder: Path) -> str:
    """Return a Markdown page without its durations."""
    return re.sub(r"[\d.,]+ (s|ms|min|h)\b", "TIME", path.read_text(encoding="utf-8"))


def settings(path: Path, folder: Path) -> str:
    """Return a configuration without its comments and the time between checkpoints."""
    return re.sub(r"(?m)^(#.*|save_seconds:.*)\n", "", path.read_text(encoding="utf-8"))


READERS: dict[str, Callable[[Path, Path], Any]] = {
    ".json": parsed,
    ".jsonl": records,
    ".safetensors": weights,
    ".md": page,
    ".yaml": settings,
}
"""Functions that return what a file of this kind holds, for a path and the folder of the run."""

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

from rapdarts.files.run_files import RunFile
from tests.bits import weights_sha256
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

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

NOT_COMPUTED = frozenset(
    {RunFile.STATUS, RunFile.ENVIRONMENT, RunFile.LOCK, RunFile.CHECKPOINT, RunFile.CHECKPOINT_BEFORE}
)
"""Files that say how a run went, not what it computed."""

TIMES = frozenset(
    {"seconds", "step_seconds", "steps", "quality", "export", "choosing_seconds", "sha256", "files", "pace", "resumed"}
)
"""Keys of values that depend on the time a run took, on the pace of the machine, or that cover such values."""


def command(kind: str, folder: Path, *more: str, search: Path | None = None) -> list[str]:
    """Return the command of a run in a folder."""
    words = [str(search) if word == "{search}" else word for word in KINDS[kind]]
    return [sys.executable, "-m", "rapdarts", *words, f"run={folder}", *more]


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
    """Return what a finished run has computed, file by file: hashes of weights and files, and JSON without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name not in NOT_COMPUTED and "tensorboard" not in path.parts:
            found[name] = READERS.get(path.suffix, whole)(path)
    return found


def whole(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(value: Any) -> Any:
    """Return a JSON value without times."""
    if isinstance(value, dict):
        return {name: without_times(one) for name, one in value.items() if name not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def parsed(path: Path) -> Any:
    return without_times(json.loads(path.read_text(encoding="utf-8")))


def records(path: Path) -> Any:
    return [without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def page(path: Path) -> str:
    """Return a Markdown page without its durations."""
    return re.sub(r"[\d.,]+ (s|ms|min|h)\b", "TIME", path.read_text(encoding="utf-8"))


def settings(path: Path) -> str:
    """Return a configuration without its comments and the time between checkpoints."""
    return re.sub(r"(?m)^(#.*|save_seconds:.*)\n", "", path.read_text(encoding="utf-8"))


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": parsed,
    ".jsonl": records,
    ".safetensors": weights_sha256,
    ".md": page,
    ".yaml": settings,
}

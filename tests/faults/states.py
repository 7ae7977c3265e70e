"""Checkpoints whose state is changed and whose hash is valid again, as a program that edits them could write them.

A hash shows damage, not forgery. A state that does not fit must nevertheless be refused in one line, without a traceback.
"""

from __future__ import annotations

import copy
import io
import math
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapdarts.cli.main import main
from rapdarts.files.run_files import RunFile
from rapdarts.training.checkpoint import load_checkpoint, origin_of, previous, save_checkpoint
from tests import fuzzed
from tests.hung import in_time
from tests.mutations import stop
from tests.tiny import TINY

LIMIT = 30
"""Seconds after which a resumed run counts as hung; it takes one or two."""

DIVERGED = 5
"""Exit code of a run with changed weights, which may diverge."""

TRAINING = [
    "threads=1",
    "data.fraction=0.1",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "retrain.batch=50",
    "retrain.epochs=3",
]

RUNS = {
    "search": (["search", "digits", *TINY, "save_seconds=0"], 14),
    "retraining": (["retrain", "DARTS_V2", "digits", *TRAINING, "retrain.ema=0.9", "retrain.validation_fraction=0.2", "save_seconds=0"], 5),
    "random baseline": (["search", "digits", *TRAINING, "strategy=random", "random.count=3", "save_seconds=0"], 14),
}  # fmt: skip
"""Commands, and the number of the save after which they are stopped: in the middle of their second stage, or of the only one."""

VALUES = (
    None, True, -1, 0, 1, 3, 2**31, 2**70, 0.5, math.nan, math.inf, "", "text", [], {}, [[]], {"a": 1}, ["{}"], torch.tensor(1.0),
    torch.tensor(math.nan), torch.zeros(3), torch.zeros(0), torch.zeros(2, 2, dtype=torch.complex64), torch.tensor([1, 2]),
)  # fmt: skip
"""Values that replace others."""


def trials(folder: Path, count: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Resume runs from `count` changed states; return a line for each that is not handled, and the number of each exit code."""
    failures, codes = list[str](), Counter[str]()
    for name, (words, saves) in RUNS.items():
        stop(*words, f"run={folder / name}", saves=saves)
    for number in range(count):
        name = list(RUNS)[number % len(RUNS)]
        rng, place = random.Random(f"{seed} {number}"), folder / f"{number}"
        shutil.copytree(folder / name, place)
        change = rewrite(place / RunFile.CHECKPOINT, rng)
        said, code = resumed([*RUNS[name][0], f"run={place}", "resume=true"])
        codes[str(code)] += 1
        failures += [f"{name}, {number}, {change}: {said}"] if said else []
        shutil.rmtree(place)
    return failures, codes


def rewrite(path: Path, rng: random.Random) -> str:
    """Change the state in a checkpoint, which is then the only one; return what was changed, as text."""
    found, origin = load_checkpoint(path, {}), origin_of(path)
    assert found is not None
    state, said = changed(found[0], rng)
    save_checkpoint(path, state, origin)
    previous(path).unlink()
    return said


def resumed(words: list[str]) -> tuple[str, int]:
    """Resume a run; return what is wrong with its answer, empty if nothing is, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), in_time(LIMIT):
        code = main(words)
    printed = err.getvalue()
    if code == DIVERGED and "the training diverged" in printed:
        return "", code
    return fuzzed.problem_of(code, out.getvalue(), printed), code


def places(tree: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield every container in a tree with every key or index, and the path to this place."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        here = f"{path}.{key}".strip(".")
        yield tree, key, here
        yield from places(value, here)


def changed(state: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
    """Return a copy of a state with one change, and the change as text. Every entry of the state is changed equally often."""
    state = copy.deepcopy(state)
    entry = rng.choice(list(state))
    tree, key, path = rng.choice(
        [(state, entry, entry), *places(state[entry], entry)] if rng.random() < 0.7 else [(state, entry, entry)]
    )
    value, change = tree[key], rng.choice(("drop", "add", "replace", "alter", "alter"))
    if change == "drop":
        del tree[key]
    elif change == "add" and isinstance(tree, dict):
        tree["unknown"] = value
    elif change == "alter":
        tree[key] = altered(value, rng)
    else:
        tree[key] = rng.choice(VALUES)
    return state, f"{change} {path}: {f'{value!r} -> {tree[key]!r}'[:150] if change in ('replace', 'alter') else ''}"


def altered(value: Any, rng: random.Random) -> Any:
    """Return another value of the same type."""
    if isinstance(value, Tensor):
        kinds = [
            value.reshape(-1),
            value[None],
            value.double(),
            value.half(),
            value * 1e30,
            value * 0,
            -value,
            value.flatten()[:1],
        ]
        return rng.choice(kinds).clone()
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, 1000 * value, -value))
    if isinstance(value, str):
        return rng.choice((value[: len(value) // 2], value + "x", value.upper()))
    if isinstance(value, list):
        return rng.choice(([], value[:-1], value[::-1], [*value, *value]))
    if isinstance(value, dict):
        names, values = list(value), list(value.values())
        return rng.choice(
            (
                {},
                dict(zip(names, values[1:] + values[:1], strict=True)),
                dict(zip(map(str, names), values, strict=True)),
            )
        )
    return value

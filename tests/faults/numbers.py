"""Numbers that are not finite, planted in single updates of a search and a retraining: these updates must leave no trace."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
from tests.faults.series import Outcome, scaled
from tests.loops.planted import Fault, assert_same, left_out, outcome, planted, run, skipped, tensors

OF_SEARCH, OF_RETRAINING = 150, 50
"""Faults in the full series."""

STEPS, WARM = {searching: 6, retraining: 8}, (3, 4, 5)
"""Steps of the runs, and the steps of the search that update the alphas; the others are warm-up."""


def series(folder: Path, scale: float) -> Iterator[Outcome]:
    """Plant one fault in each of many runs, and compare the run with one in which the update was left out."""
    torch.set_num_threads(1)
    for loop, full, kind in ((searching, OF_SEARCH, "search"), (retraining, OF_RETRAINING, "retraining")):
        known: dict[tuple[int, str], Any] = {}
        faults = [random_fault(loop, random.Random(f"{kind} {number}")) for number in range(scaled(full, scale))]
        said = [(fault, trial(loop, fault, folder / f"{kind}-{number}", known)) for number, fault in enumerate(faults)]
        yield Outcome(
            "P8 non-finite numbers", f"{kind}, one update", len(said), [f"{one}: {why}" for one, why in said if why]
        )


def random_fault(loop: Any, rng: random.Random) -> Fault:
    """Return a fault at a random place of a random update."""
    update = rng.choice(("alphas", "weights")) if loop is searching else "weights"
    place = rng.choice(("image", "loss", "gradient", *(["cost"] if update == "alphas" else [])))
    step = rng.choice(WARM) if update == "alphas" else rng.randrange(STEPS[loop])
    return Fault(step, update, place, rng.choice((math.nan, math.inf, -math.inf)))


def trial(loop: Any, fault: Fault, folder: Path, known: dict[tuple[int, str], Any]) -> str:
    """Return what failed, or an empty string; `known` keeps the outcomes of the runs without an update."""
    at = fault.step, fault.update
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        if at not in known:
            with left_out(fault, loop=loop):
                run(folder / "without", loop)
            known[at] = outcome(folder / "without")
        with planted(fault, loop=loop):
            code = run(folder / "planted", loop)
    if code or skipped(folder / "planted") != 1:
        return f"exit code {code}, {skipped(folder / 'planted')} updates skipped"
    found = outcome(folder / "planted")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors(found)):
        return "a saved tensor is not finite"
    try:
        assert_same(found, known[at])
    except AssertionError as error:
        return f"{error} differs from the run without the update"
    return ""

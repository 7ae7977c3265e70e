"""Parts `derive`, `cost` and `startup`: waiting times at the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.architecture.space import Skeleton
from rapdarts.cost.expected import price_table
from rapdarts.cost.measure import timer
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy.derive import derive
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.rule import Rule
from tests.benchmarks.turns import Job, header, in_turns, rows, say, table, timed

ROOT = Path(__file__).resolve().parents[2]

SKIPS = 2
"""P-DARTS' own cap on skips."""

TIGHT = 0.85
"""The budgets of `derive`, as a share of the costs of the genotype derived without budgets; below 1, so that they always bind."""


def derivations(rounds: int, warm_up: int) -> dict[str, Any]:
    """Time derivations in the space darts, alternately within two budgets and without any, after imports and pricing.

    Every round derives from new random mixing weights.
    """
    say("derive: pricing the space")
    space = named_space("darts")
    prices = price_table(space, Skeleton(20, 36, (3, 32, 32), 10))
    rng = np.random.default_rng(0)
    drawn = [rng.dirichlet(np.ones(len(space.primitives)), space.mask.shape[:2]) for _ in range(warm_up + rounds)]
    costs = [prices.exact(discretize(space, weights, SKIPS)) for weights in drawn]
    budgets = [{name: TIGHT * cost[name] for name in ("params", "macs")} for cost in costs]

    def job(limits: Sequence[Mapping[str, float]]) -> Job:
        turns = iter(zip(drawn, limits, strict=True))

        def derivation() -> object:
            weights, limit = next(turns)
            return derive(space, weights, prices, Rule("pdarts", SKIPS, limit), {})

        return derivation

    say("derive: timing")
    jobs = {"within budgets": job(budgets), "without": job([{} for _ in drawn])}
    return timed(in_turns(jobs, timer(torch.device("cpu")), rounds, warm_up))


def wall_times(command: Sequence[str], against: str, rounds: int, warm_up: int) -> dict[str, Any]:
    """Measure the wall times of a `rapdarts` command and of the Python code `against`, run alternately, each in a new process."""
    say(f"rapdarts {' '.join(command)}")
    jobs = {f"rapdarts {' '.join(command)}": ["-m", "rapdarts", *command], f"python -c '{against}'": ["-c", against]}
    return timed(in_turns({name: partial(python, words) for name, words in jobs.items()}, by_wall, rounds, warm_up))


def python(words: Sequence[str]) -> None:
    """Run a Python process to its end. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def by_wall(job: Callable[[], object]) -> float:
    """Return the wall time of a job in seconds: the CPU clock of this process does not cover a process that the job starts."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def report(figures: Mapping[str, Any]) -> str:
    names = [name for name in figures if name != "ratio"]
    return table([header("", names), *rows("time", figures)])

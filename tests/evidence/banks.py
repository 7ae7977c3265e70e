"""Banks: random cells of one band, each trained with several seeds, to evaluate searches in the space darts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

import rapdarts
from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.reading import parse_genotype
from rapdarts.strategy.budgets import budgets_on
from rapdarts.strategy.derive import derive
from rapdarts.strategy.discretize import score
from rapdarts.strategy.exact import Budgets
from rapdarts.strategy.random_cells import random_cells
from rapdarts.strategy.rule import Rule
from tests.evidence import store
from tests.evidence.figures import percentile, spearman
from tests.evidence.store import Rows, keep, load, origin, origin_of, own_origin, say, scratch
from tests.evidence.tasks import TASKS, Task, images_of
from tests.evidence.workers import each

CELLS, SPEND, MAX_SKIPS = 60, 0.9, 2


@dataclass(frozen=True)
class Headroom:
    """Headroom of a bank: standard deviations in points of accuracy.

    `noise` is the standard deviation of one training, `between` that of the cells' true means, and `error` the standard error
    of a cell's measured mean.
    """

    noise: float
    between: float
    error: float

    @property
    def exists(self) -> bool:
        """True if the cells differ by at least a third of the noise of one training."""
        return self.between >= self.noise / 3

    @property
    def settled(self) -> bool:
        """True if the error of a cell's mean is at most half the standard deviation between cells."""
        return self.error <= self.between / 2


def band(task: Task) -> Budgets:
    """Return the band of a bank as budgets."""
    budgets = budgets_on(task.table, {"macs": task.macs}, floors={"macs": SPEND * task.macs})
    assert budgets is not None
    return budgets


def drawn(task: Task, count: int = CELLS) -> list[Genotype]:
    """Return the first `count` cells of a bank: distinct random cells with a cap on skips, drawn from a fixed seed."""
    rng, found, budgets = np.random.default_rng(0), list[Genotype](), band(task)
    while len(found) < count:
        (genotype,) = random_cells(task.space, rng, 1, budgets, MAX_SKIPS)
        if genotype not in found:
            found.append(genotype)
    return found


def begin(name: str) -> Rows:
    """Return the rows of a bank; draw its cells first if it has none."""
    rows: Rows = load(name)
    if not rows["cells"]:
        rows["cells"] = [genotype.line for genotype in drawn(TASKS[name])]
        keep(name, rows["cells"], "cells")
    return rows


def train(name: str, genotypes: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Train genotypes with a bank's recipe and the missing seeds, and keep their test accuracies."""
    images_of(TASKS[name].data)
    rows = load(name)
    bank = store.begin(name, origin(), "bank")
    todo = [(line, seed) for seed in seeds for line in genotypes if str(seed) not in rows["trained"].get(line, {})]
    for left, ((_, line, seed), result) in enumerate(
        each(one_training, [(name, *one) for one in todo], jobs), 1 - len(todo)
    ):
        keep(name, {**own_origin(bank), **result}, "trained", line, str(seed))
        say(f"{name}: {result}, {-left} left")


def one_training(name: str, line: str, seed: int) -> dict[str, float]:
    """Train one genotype; return its test accuracy (0 to 1) and the CPU time."""
    torch.set_num_threads(1)
    task, began = TASKS[name], time.process_time()
    with scratch(f"{name}-training") as folder:
        result = rapdarts.retrain(line, task.experiment(seed=seed, **task.recipe), run=folder, progress=False)
    return {"test_accuracy": result.test.accuracy, "cpu_seconds": round(time.process_time() - began, 1)}


def trained_cells(rows: Rows) -> list[str]:
    """Return the cells of a bank that have an accuracy."""
    return [line for line in rows["cells"] if line in rows["trained"]]


def origins(rows: Rows, lines: Sequence[str]) -> list[dict[str, str]]:
    """Return the command, date and machine of every training of some genotypes."""
    trainings = [one for line in lines for one in rows["trained"].get(line, {}).values()]
    return [origin_of(one, rows["bank"]) for one in trainings]


def accuracies(rows: Rows, lines: Sequence[str]) -> np.ndarray:
    """Return the test accuracy of genotypes in percent, averaged over their seeds, (n,)."""
    return np.array([100 * np.mean([one["test_accuracy"] for one in rows["trained"][line].values()]) for line in lines])


def headroom(rows: Rows) -> Headroom | None:
    """Return the headroom of a bank by a one-way analysis of variance over its cells (random effects).

    The result is None if fewer than two cells have been trained at least twice.
    """
    trained = [[100 * one["test_accuracy"] for one in rows["trained"][line].values()] for line in trained_cells(rows)]
    trained = [one for one in trained if len(one) > 1]
    if len(trained) < 2:
        return None
    n = np.mean([len(one) for one in trained])
    noise = float(np.mean([np.var(one, ddof=1) for one in trained]))
    means = float(np.var([np.mean(one) for one in trained], ddof=1))
    return Headroom(noise**0.5, max(0.0, means - noise / n) ** 0.5, (noise / n) ** 0.5)


def agreement(rows: Rows, values: Sequence[float]) -> float:
    """Return the rank correlation of values, one for each trained cell, with the accuracies of these cells."""
    return spearman(np.array(values), accuracies(rows, trained_cells(rows)))


def correlation(task: Task, rows: Rows, weights: np.ndarray) -> float:
    """Return the rank correlation of a search's scores for the trained cells with their accuracies."""
    return agreement(rows, [score(task.space, weights, genotype_of(line)) for line in trained_cells(rows)])


def derived(task: Task, weights: np.ndarray) -> str:
    """Return the genotype derived from the mixing weights of a search in the band of its bank."""
    rule = Rule("exact", MAX_SKIPS, {"macs": task.macs}, {"macs": SPEND})
    return derive(task.space, weights, task.table, rule, {}).genotype.line


def standing(rows: Rows, line: str) -> float:
    """Return the percentage of a bank's other cells that are less accurate than a trained genotype."""
    others = [other for other in trained_cells(rows) if other != line]
    return percentile(float(accuracies(rows, [line])[0]), accuracies(rows, others))


def genotype_of(line: str) -> Genotype:
    """Return the genotype that a line of text describes."""
    return parse_genotype(line, "the bank")

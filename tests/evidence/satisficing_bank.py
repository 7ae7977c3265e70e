"""Cost of a cell that satisfices on a bank: its accuracy is that of a training which is part of the price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from rapdarts.config.experiment import Launch
from rapdarts.config.given import find_experiment
from rapdarts.errors import plural
from rapdarts.loops import launch
from rapdarts.loops.rank import RankingEntry
from rapdarts.strategy.agreement import contrasts
from rapdarts.strategy.replicas import mean_weights
from rapdarts.training.log import Screen
from tests.evidence import banks, found, naswot, searches
from tests.evidence.figures import spearman
from tests.evidence.satisficing import AGREED, QUANTILES, SETS, Proposals, average
from tests.evidence.store import Rows, begin, load, origin, origin_of, say, scratch
from tests.evidence.tasks import TASKS, images_of

BANK = "fashion14"
"""The bank whose searches, which run without a budget, serve all budgets."""

BUDGETS = ("fashion14-700k", BANK, "fashion14-1400k")
"""Tasks that differ from the bank in their budget."""

CELLS, SEARCHES, SEED = 40, range(12), 0
"""Number of random cells per budget, the seeds of the searches, and the seed with which every cell is trained once."""

GROUPS = [SEARCHES[start : start + 3] for start in SEARCHES[::3]]
"""Groups of searches that are averaged."""


def run(jobs: int) -> None:
    """Run what is missing: searches, trainings of random and of derived cells, rankings of untrained cells, and `rapdarts find`."""
    searches.run_series(BANK, {}, SEARCHES, jobs)
    for name in BUDGETS:
        cells = banks.begin(name)["cells"][:CELLS]
        singles, averages, pairs = derived(name)
        lines = dict.fromkeys([*cells, *singles, *averages, *pairs])
        banks.train(name, list(lines), [SEED], jobs)
        naswot.run_bank(name)
        if "short" not in load(name):
            begin(name, {**origin(), "accuracies": short_trainings(name, cells, 1)}, "short")
    found.run(jobs, BUDGETS)


def short_trainings(name: str, cells: Sequence[str], epochs: int) -> dict[str, float]:
    """Train cells on half of the training images as `rapdarts find` does; return their accuracies (0 to 1) on the other half."""
    torch.set_num_threads(1)
    images_of(TASKS[name].data)
    task = TASKS[name]
    keys = task.experiment(seed=SEED, **task.recipe, **{"rank.epochs": epochs, "rank.count": len(cells)})
    config = find_experiment("rank", keys, None, {}).config
    entries = [RankingEntry(banks.genotype_of(line), task.space, (line,)) for line in cells]
    with scratch(f"{name}-short") as folder:
        place, screen = Launch(str(folder), False), Screen(silent=True)
        report = launch.run_ranking(config, entries, launch.data_of(config), place, name, screen=screen).report
    say(f"{name}: {plural(len(cells), 'short training')}")
    return {one["sources"][0]: one["accuracies"][0] for one in report["networks"]}


def derived(name: str) -> tuple[list[str], list[str], list[str]]:
    """Return the genotypes derived for a budget: from each search, from each group, and from the first two searches of each group."""
    rows, task, variant = load(BANK), TASKS[name], searches.variant_name({})
    known = [searches.weights_of(rows, variant, group) for group in GROUPS if is_known(rows, group)]
    singles = [banks.derived(task, one) for group in known for one in group]
    averages, pairs = ([banks.derived(task, mean_weights(group[:size])) for group in known] for size in (3, 2))
    return singles, averages, pairs


def is_known(rows: Rows, group: Sequence[int]) -> bool:
    """Return whether all searches of a group have been run."""
    return len(searches.seeds_of(rows, searches.variant_name({}), group)) == len(group)


def agreements(rows: Rows) -> list[float]:
    """Return the rank correlation of the first two searches of every group that has been run."""
    known = [
        searches.weights_of(rows, searches.variant_name({}), group[:2]) for group in GROUPS if is_known(rows, group)
    ]
    return [spearman(*(contrasts(TASKS[BANK].space, one) for one in pair)) for pair in known]


@cache
def accuracies(name: str) -> tuple[float, ...]:
    """Return the accuracies to reach within a budget in percent: quantiles of those of random cells, rounded to 0.1."""
    rows = load(name)
    values = np.quantile(trained(rows, random_cells(rows)), QUANTILES)
    return tuple(round(float(one), 1) for one in values)


def random_cells(rows: Rows) -> list[str]:
    """Return the random cells that have been trained with the seed."""
    return [line for line in rows["cells"][:CELLS] if str(SEED) in rows["trained"].get(line, {})]


def trained(rows: Rows, lines: Sequence[str]) -> list[float]:
    """Return the test accuracy of each cell in percent, from its training with the seed."""
    return [100 * rows["trained"][line][str(SEED)]["test_accuracy"] for line in lines]


def final_training(pace: Rows, name: str) -> float:
    """Return the CPU time of a final training on all images of the task, in seconds."""
    return float(2 * TASKS[name].recipe["retrain.epochs"] * pace["epoch"][name])


def finished() -> bool:
    """Return whether all methods have results for all budgets."""
    complete = [{"short", "naswot", "find"} <= load(name).keys() for name in BUDGETS]
    return all(complete) and "pace" in load(BANK) and bool(agreements(load(BANK)))


def methods(name: str) -> dict[str, Proposals]:
    """Return the proposals of all methods for a budget, by name, except of those that need more random cells than there are."""
    rows, bank = load(name), load(BANK)
    pace, cells = bank["pace"], random_cells(rows)
    search, epoch, random = pace["search"], pace["epoch"][name], trained(rows, cells)
    singles, averages, pairs = (trained(rows, lines) for lines in derived(name))
    agreed = [one >= AGREED for one in agreements(bank)]
    early = [two if agree else three for two, three, agree in zip(pairs, averages, agreed, strict=True)]
    short, scores = rows["short"]["accuracies"], rows["naswot"]["scores"]

    def best(number: int, by: Mapping[str, float], seconds: float) -> Proposals:
        return Proposals(random, number * seconds, best_of=number, scores=[by[line] for line in cells])

    found = {
        "a random cell": Proposals(random, 0.0),
        **{f"the best of {number} random cells after one epoch": best(number, short, epoch) for number in SETS},
        "random cells, halved": by_find(rows, pace, name, "random"),
        "the best of ten random cells by NASWOT": best(naswot.DRAWN, scores, pace["naswot"] / naswot.DRAWN),
        "one search": Proposals(singles, search),
        "three searches averaged": Proposals(averages, 3 * search),
        f"two searches, and a third if their rank correlation is below {AGREED}": Proposals(
            early, average([search * (2 if agree else 3) for agree in agreed])
        ),
        "`rapdarts find`: eight cells of three searches, halved": by_find(rows, pace, name, "found"),
    }
    return {method: one for method, one in found.items() if one.n}


def by_find(rows: Rows, pace: Rows, name: str, source: str) -> Proposals:
    """Return the networks of `rapdarts find` ("found") or of the "random" cells with the same compute, whichever were trained."""
    runs = list(rows["find"]["seeds"].values())
    # A training that diverged reached no accuracy.
    reached = [100 * (one[source]["test_accuracy"] or 0.0) for one in runs]
    return Proposals(reached, average([seconds_of(one["plan"], pace, name) for one in runs]))


def seconds_of(plan: Mapping[str, Any], pace: Rows, name: str) -> float:
    """Return the CPU time of the searches and the halving of a plan, in seconds; random cells are given the same."""
    epochs = sum(one["networks"] * one["epochs"] for one in plan["rounds"])
    length = plan["search_epochs"] / TASKS[BANK].settings["search.epochs"]
    return float(plan["replicas"] * length * pace["search"] + epochs * pace["epoch"][name])


def origins() -> list[dict[str, str]]:
    """Return the command, date and machine of all results."""
    bank = load(BANK)
    rows = [load(name) for name in BUDGETS]
    trainings = [one["trained"][line][str(SEED)] for one in rows for line in random_cells(one)]
    facts = [one for part in rows for one in (part["short"], part["naswot"])]
    runs = [origin_of(one, part["find"]) for part in rows for one in part["find"]["seeds"].values()]
    return [
        *searches.origins(bank, searches.variant_name({}), SEARCHES),
        *(origin_of(one, bank["bank"]) for one in trainings),
        *facts,
        *runs,
        bank["pace"],
    ]

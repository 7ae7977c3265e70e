"""`rapdarts find` on the banks, proof included: its network against random cells with the same compute, each trained and tested."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rapdarts
from rapdarts.files.run_files import RunFile
from tests.evidence.figures import mean, paired_gain
from tests.evidence.plan import BANKS
from tests.evidence.store import Rows, begin, keep, load, origin, origin_of, own_origin, say, scratch
from tests.evidence.tables import NOT_RUN, paragraph, ranges, sources, table
from tests.evidence.tasks import TASKS, images_of
from tests.evidence.workers import each

SEEDS = range(100, 105)
"""Seeds of the runs, with which nothing was chosen."""


def run(jobs: int, tasks: Sequence[str] = tuple(BANKS)) -> None:
    """Find a network on each bank with the missing seeds."""
    for task in tasks:
        images_of(TASKS[task].data)
        known = begin(task, {**origin(), "seeds": {}}, "find")
        missing = [(task, seed) for seed in SEEDS if str(seed) not in known["seeds"]]
        for (_, seed), result in each(find_once, missing, jobs):
            keep(task, {**own_origin(known), **result}, "find", "seeds", str(seed))
            say(f"{task}, find: seed {seed}, {sum(result['seconds'].values()):.0f} s")


def find_once(task: str, seed: int) -> dict[str, Any]:
    """Find a network within the budget of a bank, with its proof, and return its `facts` with the CPU time."""
    torch.set_num_threads(1)
    bank, began = TASKS[task], time.process_time()
    settings = bank.experiment(seed=seed, **bank.recipe, **{"search.budget.macs": bank.macs, "find.proof": True})
    with scratch(f"{task}-find") as folder:
        rapdarts.find(settings, run=folder, progress=False)
        return {"cpu_seconds": round(time.process_time() - began, 1), **facts(folder)}


def facts(folder: Path) -> dict[str, Any]:
    """Return what is kept of a finished run: networks with their accuracies (0 to 1) and MACs, the plan, and seconds by step."""
    result = json.loads((folder / RunFile.RESULT).read_text(encoding="utf-8"))
    proof = result["proof"]
    return {
        "seconds": {one["name"]: one["seconds"] for one in result["steps"]},
        "choosing_seconds": proof["choosing_seconds"],
        "plan": result["plan"],
        "genotype": result["genotype"],
        "found": outcome(result),
        "random": outcome(proof["random"]),
        "reference": {"name": proof["reference_network"], **outcome(proof["reference"])},
    }


def outcome(network: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the test accuracy and the MACs of a network, or None for both if its training diverged."""
    if network.get("diverged"):
        return {"test_accuracy": None, "macs": None}
    return {"test_accuracy": network["test_accuracy"], "macs": network["costs"]["macs"]}


def section() -> list[str]:
    """Return the section as lines."""
    heading = ["## `rapdarts find` on the banks", ""]
    known = {task: found for task in BANKS if (found := load(task).get("find")) and found["seeds"]}
    if not known:
        return [*heading, NOT_RUN, ""]
    head = [
        "bank",
        "seeds",
        "n",
        "found",
        "random cells",
        "difference",
        "reference network",
        "difference",
        "MACs",
        "s to choose",
    ]
    return [
        *heading,
        *paragraph(
            """`rapdarts find` ran once per seed, with `proof=true` and the budget of the bank's band: three searches, their eight best
            cells halved, the winner trained on all training images and tested once. The random cells of the same band are given the
            same compute as the searches and the halving (training steps, each weighted by its time, equal within 5 %), are halved,
            and their winner is trained and tested alike; the reference is ResNet-20 as wide as the budget allows. Accuracies are
            test accuracies in percent, and differences are paired, in points. *s to choose* is the time that choosing took in
            wall-clock seconds, found and random."""
        ),
        *table(head, [row(task, known[task]["seeds"]) for task in known]),
        *sources(origin_of(one, found) for found in known.values() for one in found["seeds"].values()),
    ]


def row(task: str, seeds: Rows) -> list[object]:
    """Return the row of a bank."""
    runs = list(seeds.values())
    own = accuracies(runs, "found")
    cells: list[object] = [f"`{task}`", ranges(sorted(map(int, seeds))), len(runs), mean(own)]
    for other in ("random", "reference"):
        others = accuracies(runs, other)
        both = [pair for pair in zip(own, others, strict=True) if not np.isnan(pair[1])]
        cells += [
            mean([b for _, b in both]),
            paired_gain([a for a, _ in both], [b for _, b in both]).text(2, sign=True),
        ]
    macs = np.mean([one["found"]["macs"] for one in runs])
    chosen = [np.mean([one["choosing_seconds"][name] for one in runs]) for name in ("found", "random")]
    return [*cells, f"{macs / 1e6:.2f}M", f"{chosen[0]:.0f} and {chosen[1]:.0f}"]


def accuracies(runs: Sequence[Rows], source: str) -> list[float]:
    """Return the test accuracies of a kind of network in percent, NaN if its training diverged."""
    return [100 * (np.nan if (one := run[source]["test_accuracy"]) is None else one) for run in runs]

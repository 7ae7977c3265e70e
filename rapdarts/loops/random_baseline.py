"""The random baseline: a search that cannot beat genotypes drawn at its own cost is worth nothing (Li and Talwalkar 2019)."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import Experiment
from rapdarts.cost.count import count_derived, deployment_facts, macs
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.prices import prices, read_hardware
from rapdarts.data.dataset import DataSet
from rapdarts.data.randomness import key
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.deploy.skeletons import skeleton_to_build
from rapdarts.errors import DivergedError, InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.retrain import all_diverged, retrain
from rapdarts.training.metrics import Evaluation
from rapdarts.training.run import Run

MOST_DRAWS = 20_000


def random_baseline(
    config: Experiment, space: SearchSpace, data: DataSet, run: Run, like: Genotype | None
) -> dict[str, Any]:
    """Draws `search.random.count` genotypes at a given cost and trains each by the retraining recipe.

    The cost is `search.random.macs`, or that of `like`, whose skeleton is built where it fits the images. Writes
    genotypes.json; each network's own files lie in trained/1, trained/2, ... Gives the single accuracies, their mean
    and their standard deviation over genotypes, but for those whose training diverged. Raises DivergedError if all did.
    """
    settings = config.search.random
    skeleton, instead_of = skeleton_to_build(like, config.skeleton, data)
    table = prices(config.search, space, skeleton)
    facts = deployment_facts(config.search.precision, read_hardware(config.search.hardware))
    target = settings.macs or (count_derived(like, space, skeleton, {"macs": macs})["macs"] if like else 0.0)
    genotypes = draw(space, table, settings.count, target, settings.tolerance, key(config.seed, "random genotypes"))
    run.write_json(RunFile.GENOTYPES, [{"genotype": g.line, "costs": table.exact(g)} for g in genotypes])

    drawn = [replace(genotype, provenance=facts) for genotype in genotypes]
    blueprints = [DerivedBlueprint(genotype, space, skeleton, instead_of) for genotype in drawn]
    for remark in blueprints[0].remarks(config.retrain):
        run.screen.say(remark)

    def train(number: int, what: str) -> dict[str, Any]:
        try:
            return asdict(retrain(config, blueprints[number - 1], data, run, f"trained/{number}/", what).test)
        except DivergedError as error:
            return {"diverged": str(error)}

    results: list[dict[str, Any]] = []
    for number, genotype in enumerate(drawn, 1):
        what = f"network {number}/{len(drawn)}"
        reached = run.remember(partial(train, number, what))
        test = None if "diverged" in reached else Evaluation(**reached)
        share = test.accuracy if test else None
        results.append({"genotype": genotype.line, "costs": table.exact(genotype), "test_accuracy": share})
        run.screen.say(f"{what}: {test or reached['diverged']}")
    shares = [found["test_accuracy"] for found in results if found["test_accuracy"] is not None]
    if not shares:
        raise all_diverged(len(drawn), config.retrain)
    mean, deviation = float(np.mean(shares)), float(np.std(shares, ddof=1)) if len(shares) > 1 else math.nan
    spread = f" +- {100 * deviation:.2f} %" if len(shares) > 1 else ""
    return {
        "target_macs": target,
        "count": len(shares),
        "test_accuracy": mean,
        "standard_deviation": deviation if len(shares) > 1 else None,
        "networks": results,
        "seconds": run.seconds(),
        "summary": f"random baseline: test accuracy {100 * mean:.2f} %{spread} (standard deviation over {len(shares)} genotypes)",
    }


def draw(space: SearchSpace, table: PriceTable, count: int, macs: float, tolerance: float, seed: int) -> list[Genotype]:
    """`count` different random genotypes within `tolerance` (a share) of `macs`; any cost at macs = 0.

    Raises InputError, naming the costs that were seen, if too few turn up in MOST_DRAWS draws.
    """
    rng = np.random.default_rng(seed)
    found: list[Genotype] = []
    seen: list[float] = []
    for _ in range(MOST_DRAWS):
        genotype = random_genotype(space, rng)
        seen.append(table.exact(genotype)["macs"])
        if (macs == 0 or abs(seen[-1] - macs) <= tolerance * macs) and genotype not in found:
            found.append(genotype)
            if len(found) == count:
                return found
    raise InputError(
        f"only {len(found)} of {MOST_DRAWS} random genotypes come within {tolerance:.0%} of {macs:,.0f} MACs;"
        f" they have {min(seen):,.0f} to {max(seen):,.0f}. Change search.random.macs or search.random.tolerance."
    )

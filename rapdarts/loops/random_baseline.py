"""The random baseline: a search that cannot beat genotypes drawn at its own cost is worth nothing (Li and Talwalkar 2019)."""

from __future__ import annotations

from dataclasses import asdict, replace
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
from rapdarts.deploy import skeletons
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.retrain import Trained
from rapdarts.loops.series import all_diverged, retrain_once
from rapdarts.training.metrics import Evaluation
from rapdarts.training.run import Run

MOST_DRAWS = 20_000


def random_baseline(
    config: Experiment, space: SearchSpace, data: DataSet, run: Run, like: Genotype | None
) -> dict[str, Any]:
    """Draw `search.random.count` genotypes of a certain cost and train each by the retraining recipe.

    The cost is `search.random.macs`, or that of `like`, whose skeleton is built where it fits the images. Writes
    genotypes.json; each network's own files lie in trained/1, trained/2, ... Returns the single accuracies, their
    mean and their standard deviation over the genotypes whose training did not diverge. Raises DivergedError if all did.
    """
    settings = config.search.random
    skeleton, instead_of = skeletons.to_build(like, config.skeleton, data)
    table = prices(config.search, space, skeleton)
    facts = deployment_facts(config.search.precision, read_hardware(config.search.hardware))
    target = settings.macs or (count_derived(like, space, skeleton, {"macs": macs})["macs"] if like else 0.0)
    genotypes = draw_genotypes(
        space, table, settings.count, target, settings.tolerance, key(config.seed, "random genotypes")
    )
    run.write_json(RunFile.GENOTYPES, [{"genotype": g.line, "costs": table.exact(g)} for g in genotypes])

    drawn = [replace(genotype, provenance=facts) for genotype in genotypes]
    blueprints = [DerivedBlueprint(genotype, space, skeleton, instead_of) for genotype in drawn]
    for remark in blueprints[0].remarks(config.retrain):
        run.screen.say(remark)

    def test_result(trained: Trained | None) -> dict[str, Any]:
        return asdict(trained.test) if trained else {}

    results: list[dict[str, Any]] = []
    for number, genotype in enumerate(drawn, 1):
        what, folder = f"network {number}/{len(drawn)}", f"trained/{number}/"
        outcome = retrain_once(config, blueprints[number - 1], data, run, folder, what, test_result)
        test = None if "diverged" in outcome else Evaluation(**outcome)
        accuracy = test.accuracy if test else None
        results.append({"genotype": genotype.line, "costs": table.exact(genotype), "test_accuracy": accuracy})
        run.screen.say(f"{what}: {test or outcome['diverged']}")
    accuracies = [result["test_accuracy"] for result in results if result["test_accuracy"] is not None]
    if not accuracies:
        raise all_diverged(len(drawn), config.retrain)
    mean = float(np.mean(accuracies))
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    spread = f" +- {100 * deviation:.2f} %" if deviation is not None else ""
    return {
        "target_macs": target,
        "count": len(accuracies),
        "test_accuracy": mean,
        "standard_deviation": deviation,
        "networks": results,
        "seconds": run.seconds(),
        "summary": f"random baseline: test accuracy {100 * mean:.2f} %{spread} (standard deviation over {len(accuracies)} genotypes)",
    }


def draw_genotypes(
    space: SearchSpace, table: PriceTable, count: int, macs: float, tolerance: float, seed: int
) -> list[Genotype]:
    """Draw `count` different random genotypes within `tolerance` (a fraction) of `macs`; of any cost at macs = 0.

    Raises InputError, naming the costs that were drawn, if there are too few in MOST_DRAWS draws.
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

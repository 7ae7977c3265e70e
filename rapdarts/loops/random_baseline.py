"""The random baseline (Li and Talwalkar 2019): random genotypes with the same cost as the genotype of a search."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import Experiment
from rapdarts.cost.count import count_derived, deployment_facts, macs
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.latency import LatencyTable
from rapdarts.cost.penalty import uniform_mixing
from rapdarts.cost.prices import prices, read_hardware
from rapdarts.data.dataset import DataSet
from rapdarts.data.randomness import key
from rapdarts.deploy import skeletons
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.retrain import Trained
from rapdarts.loops.series import all_diverged, retrain_once
from rapdarts.strategy.budgets import budgets_on, check_budgets, spent
from rapdarts.strategy.exact import Budgets, Infeasible
from rapdarts.strategy.random_cells import random_cells
from rapdarts.strategy.rule import Rule, bounds_in_words, cap_in_words, rule_of
from rapdarts.training.intervals import mean_in_words, mean_interval
from rapdarts.training.metrics import Evaluation
from rapdarts.training.run import Run

MOST_DRAWS = 20
"""Maximum number of draws per requested genotype; drawing then stops, even if too few different genotypes were found."""


@dataclass(frozen=True)
class Draw:
    """Random genotypes to train: their `blueprints`, and their `costs` by resource.

    `words` describes the conditions that they meet. `target` is their approximate number of MACs, or 0 if there is no
    such target.
    """

    blueprints: list[DerivedBlueprint]
    costs: list[dict[str, float]]
    words: str
    target: float


def draw(
    config: Experiment, space: SearchSpace, data: DataSet, like: Genotype | None, latency: LatencyTable | None = None
) -> Draw:
    """Draw `search.random.count` genotypes that a search could have found.

    The genotypes meet the cap on skips and the budgets of the search, including the lower bound from `search.spend`. Without
    budgets, their MACs are close to `search.random.macs` or to the MACs of `like`. The skeleton of `like` is used if it fits
    the images. `latency` is a table measured for this run, for settings that need a table but do not name one. Raises
    InputError if no genotype meets the budgets, or if too few do.
    """
    settings, rule = config.search.random, rule_of(config.search, space)
    skeleton, instead_of = skeletons.to_build(like, config.skeleton, data)
    table = prices(config.search, space, skeleton, measured=latency)
    check_budgets(config.search, table)
    facts = deployment_facts(config.search.precision, read_hardware(config.search.hardware))
    target = settings.macs
    if like and not (target or rule.limits):
        target = count_derived(like, space, skeleton, {"macs": macs})["macs"]
    budgets, words = conditions(space, table, rule, target, settings.tolerance)
    seed = key(config.seed, "random genotypes")
    drawn = draw_genotypes(space, settings.count, seed, budgets, rule.max_skips, words)
    blueprints = [DerivedBlueprint(replace(one, provenance=facts), space, skeleton, instead_of) for one in drawn]
    return Draw(blueprints, [table.exact(one) for one in drawn], words, target)


def random_baseline(config: Experiment, drawn: Draw, data: DataSet, run: Run) -> dict[str, Any]:
    """Train each of the random genotypes with the retraining recipe.

    Writes genotypes.json, and the files of each network into trained/1, trained/2, ... Returns the accuracies of the networks
    and, over the genotypes whose training did not diverge, the mean, its 95 % interval and the standard deviation. Raises
    DivergedError if all diverged, and Preempted if a signal stops the run.
    """
    count = len(drawn.blueprints)
    run.screen.say(f"{count} {drawn.words}")
    facts = [
        {"genotype": blueprint.genotype.line, "costs": costs}
        for blueprint, costs in zip(drawn.blueprints, drawn.costs, strict=True)
    ]
    run.write_json(RunFile.GENOTYPES, facts)
    for remark in drawn.blueprints[0].remarks(config.retrain):
        run.screen.say(remark)

    def test_result(trained: Trained | None) -> dict[str, Any]:
        return asdict(trained.test) if trained else {}

    results: list[dict[str, Any]] = []
    for number, blueprint in enumerate(drawn.blueprints, 1):
        what, folder = f"network {number}/{count}", f"trained/{number}/"
        outcome = retrain_once(config, blueprint, data, run, folder, what, test_result)
        test = None if "diverged" in outcome else Evaluation(**outcome)
        results.append({**facts[number - 1], "test_accuracy": test.accuracy if test else None})
        run.screen.say(f"{what}: {test or outcome['diverged']}")
    accuracies = [result["test_accuracy"] for result in results if result["test_accuracy"] is not None]
    if not accuracies:
        raise all_diverged(count, config.retrain)
    several = len(accuracies) > 1
    return {
        "target_macs": drawn.target,
        "drawn": drawn.words,
        "count": len(accuracies),
        "test_accuracy": float(np.mean(accuracies)),
        "standard_deviation": float(np.std(accuracies, ddof=1)) if several else None,
        "interval": [*mean_interval(accuracies)] if several else None,
        "networks": results,
        "seconds": run.seconds(),
        "summary": f"random baseline: test accuracy {mean_in_words(accuracies)}",
    }


def conditions(
    space: SearchSpace, table: PriceTable, rule: Rule, target: float, tolerance: float
) -> tuple[Budgets | None, str]:
    """Return the conditions on random genotypes, as bounds and as text.

    These are MACs within `tolerance` (relative) of `target`, or the rule's budgets if `target` is 0. Raises InputError for
    budgets that no genotype meets.
    """
    cap = cap_in_words(rule, space)
    if target:
        budgets = budgets_on(table, {"macs": (1 + tolerance) * target}, floors={"macs": (1 - tolerance) * target})
        return budgets, f"random genotypes within {100 * tolerance:.0f} % of {target:,.0f} MACs{cap}"
    within, remark = spent(space, uniform_mixing(space.mask).weights.numpy(), budgets_on(table, rule.limits), rule)
    return within, f"random genotypes{bounds_in_words(rule, within)}{cap}{f' ({remark})' if remark else ''}"


def draw_genotypes(
    space: SearchSpace, count: int, seed: int, budgets: Budgets | None, max_skips: int | None, words: str
) -> list[Genotype]:
    """Draw `count` different random genotypes that meet the budgets and the cap on skips.

    Raises InputError, with the conditions in `words`, if there are too few.
    """
    found = distinct_genotypes(space, count, seed, budgets, max_skips)
    if len(found) == count:
        return found
    raise InputError(
        f"found only {len(found)} of {count} different {words}; change search.random.macs, search.random.tolerance or the"
        " budget, or draw fewer with search.random.count."
    )


def distinct_genotypes(
    space: SearchSpace, count: int, seed: int, budgets: Budgets | None, max_skips: int | None
) -> list[Genotype]:
    """Draw up to `count` different random genotypes that meet the budgets and the cap on skips; fewer if the draws keep repeating.

    Raises InputError for an upper bound that no genotype meets.
    """
    rng = np.random.default_rng(seed)
    found: list[Genotype] = []
    for _ in range(MOST_DRAWS * count):
        try:
            (genotype,) = random_cells(space, rng, 1, budgets, max_skips)
        except Infeasible as error:
            if error.floors:  # an upper bound cannot be met
                raise InputError(f"{str(error).rstrip('.')}; raise search.random.macs.") from None
            break
        if genotype not in found:
            found.append(genotype)
        if len(found) == count:
            break
    return found

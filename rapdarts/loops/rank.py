"""The ranking: candidates trained briefly on one part of the training set and compared on the other (Liu et al. 2019, section 3).

The test set has no part in it: what is chosen here may be tested afterwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import Experiment
from rapdarts.config.units import show
from rapdarts.data.dataset import DataSet, split
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.errors import DivergedError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.retrain import all_diverged, retrain
from rapdarts.training.run import Run

SURE = 2.0
"""A difference of fewer standard errors is said to be within the error."""


@dataclass(frozen=True)
class RankingEntry:
    """A genotype to be ranked, where it was found, and its score there: the sum of its log mixing weights, the best of several.

    `own` is the one that a search derived; `score` is None for one that the user named.
    """

    genotype: Genotype
    space: SearchSpace
    sources: tuple[str, ...]
    score: float | None = None
    own: bool = False

    @property
    def cells(self) -> tuple[Any, ...]:
        """What makes two genotypes the same network, in whatever order their edges were written."""
        kinds = sorted(self.genotype.cells.items())
        return (
            self.genotype.space,
            *((kind, cell.inputs, tuple(map(sorted_pairs, cell.nodes)), cell.concat) for kind, cell in kinds),
        )

    def with_facts(self, facts: Mapping[str, Any]) -> RankingEntry:
        """The same, its genotype saying of itself how its costs are counted (`deployment_facts`)."""
        genotype = replace(self.genotype, provenance={**self.genotype.provenance, **facts})
        return replace(self, genotype=genotype)

    def place(self) -> tuple[int, float]:
        """Its place among the candidates: what was named, then what a search derived, then the others, by their scores."""
        return (0, 0.0) if self.score is None else (1 if self.own else 2, -self.score)


def sorted_pairs(node: Sequence[tuple[str, int]]) -> tuple[tuple[int, str], ...]:
    return tuple(sorted((source, primitive) for primitive, source in node))


def choose(found: Sequence[RankingEntry], count: int) -> list[RankingEntry]:
    """Each genotype once: all that were named, and the `count` best that the searches left, their own derived ones before others."""
    once: dict[tuple[Any, ...], RankingEntry] = {}
    for one in found:
        same = once.setdefault(one.cells, one)
        if same is not one:
            sources = same.sources + tuple(source for source in one.sources if source not in same.sources)
            scores = [score for score in (same.score, one.score) if score is not None]
            is_named = len(scores) < 2
            once[one.cells] = replace(
                same, sources=sources, own=same.own or one.own, score=None if is_named else max(scores)
            )
    everyone = sorted(once.values(), key=RankingEntry.place)  # stable: the first found of equals
    named = [one for one in everyone if one.score is None]
    return named + everyone[len(named) : len(named) + count]


def split_for_ranking(data: DataSet, config: Experiment) -> DataSet:
    """A data set whose `train` and `test` are two parts of the training set; the true test set is left out.

    All seeds of one ranking share the parts, so that differences between networks are not differences between images.
    """
    first, second = split(data.train.labels, config.rank.train_fraction, config.seed, "ranking")
    return replace(data, train=data.train.take(first), test=data.train.take(second))


def short_recipe(config: Experiment) -> Experiment:
    """The experiment that each network is trained by: as long as the ranking says, and nothing more held out.

    A ranking that is shorter than the recipe's warm-up still trains an epoch at the full learning rate, as others must.
    """
    epochs = config.rank.epochs or config.retrain.epochs
    warmup_epochs = min(config.retrain.warmup_epochs, epochs - 1)
    recipe = replace(config.retrain, epochs=epochs, warmup_epochs=warmup_epochs, validation_fraction=0.0)
    return replace(config, retrain=recipe)


def rank(
    config: Experiment, contestants: Sequence[RankingEntry], skeleton: Skeleton, data: DataSet, run: Run
) -> dict[str, Any]:
    """Trains every contestant at one skeleton, with one or several seeds, and orders them by their accuracy on the images kept aside.

    One whose training diverges, by any of the seeds, comes last. Writes ranking.json, best.json (the genotype of the
    first) and each network's own files under trained/. Raises DivergedError if all diverged, Preempted if a signal asked
    to stop.
    """
    parts, seeds, recipe = split_for_ranking(data, config), config.rank.seeds, short_recipe(config)
    blueprints = [DerivedBlueprint(one.genotype, one.space, skeleton) for one in contestants]
    for remark in blueprints[0].remarks(recipe.retrain):
        run.screen.say(remark)

    def train(blueprint: DerivedBlueprint, seed: int, folder: str, what: str) -> dict[str, Any]:
        seeded = replace(recipe, seed=(config.seed + seed) % 2**32)
        try:
            return {"right": retrain(seeded, blueprint, parts, run, f"{folder}/", what).right}
        except DivergedError as error:
            return {"right": None, "diverged": str(error)}

    right = np.full((len(contestants), seeds, len(parts.test)), np.nan)  # not a number: diverged
    folders: list[list[str]] = [[] for _ in contestants]
    for number, blueprint in enumerate(blueprints):
        run.screen.say(f"network {number + 1}/{len(blueprints)} is of {', '.join(contestants[number].sources)}")
        for seed in range(seeds):
            folder = f"trained/{number + 1}" + (f"-{seed + 1}" if seeds > 1 else "")
            what = f"network {number + 1}/{len(blueprints)}" + (f" seed {seed + 1}/{seeds}" if seeds > 1 else "")
            reached = run.remember(partial(train, blueprint, seed, folder, what))
            if reached["right"] is None:
                run.screen.say(f"{what}: {reached['diverged']}")
                continue
            right[number, seed] = reached["right"].numpy()
            folders[number].append(folder)
            run.screen.say(f"{what}: {100 * right[number, seed].mean():.2f} % of the images kept aside")

    diverged = np.isnan(right).any((1, 2))
    if diverged.all():
        raise all_diverged(len(contestants), recipe.retrain)
    costs = [blueprint.costs for blueprint in blueprints]
    shares = np.where(diverged, -1.0, right.mean((1, 2)))
    order = sorted(range(len(contestants)), key=lambda one: (-shares[one], costs[one]["macs"], one))
    networks = [
        {
            **compared(place, contestants[number], right[number], right[order[0]]),
            "costs": costs[number],
            "genotype": contestants[number].genotype.line,
            "folders": folders[number],
        }
        for place, number in enumerate(order, 1)
    ]
    wholes = [json.loads(blueprints[number].card["genotype"]) for number in order]
    run.write_json(
        RunFile.RANKING, [{**found, "genotype": whole} for found, whole in zip(networks, wholes, strict=True)]
    )
    facts = {name: networks[0][name] for name in ("validation_accuracy", "standard_error", "sources")}
    best = replace(
        contestants[order[0]].genotype,
        skeleton=skeleton,
        costs=costs[order[0]],
        provenance={**contestants[order[0]].genotype.provenance, "ranking": {**facts, "of": len(order)}},
    )
    run.write(RunFile.BEST_GENOTYPE, best.to_json())
    return {
        "count": len(networks),
        "seeds": seeds,
        "epochs": recipe.retrain.epochs,
        "train_images": len(parts.train),
        "validation_images": len(parts.test),
        "networks": networks,
        "seconds": run.seconds(),
    }


def compared(place: int, one: RankingEntry, right: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    """What the answers that were `right` (seeds, images) say of a network, beside those of the one in the first place.

    Of one that diverged by some seed they say nothing but the accuracies by the others.
    """
    diverged, accuracies = bool(np.isnan(right).any()), right.mean(1).tolist()
    known = {
        "rank": place,
        "sources": list(one.sources),
        "score": one.score if one.score is not None and math.isfinite(one.score) else None,
        "diverged": diverged,
        "accuracies": [None if math.isnan(accuracy) else accuracy for accuracy in accuracies],
    }
    if diverged:
        unknown = ("validation_accuracy", *ERRORS, "difference", "difference_error")
        return {**known, **dict.fromkeys(unknown), "within_error": False}
    share, difference = estimate(right), estimate(first - right)
    return {
        **known,
        "validation_accuracy": share["mean"],
        **{name: share[name] for name in ERRORS},
        "difference": difference["mean"],
        "difference_error": difference["standard_error"],
        "within_error": place > 1 and difference["mean"] <= SURE * difference["standard_error"],
    }


ERRORS = ("standard_error", "standard_error_images", "standard_error_seeds")


def estimate(values: np.ndarray) -> dict[str, Any]:
    """The mean of (seeds, images) and its standard errors: over images, over seeds (None for one), and both together.

    Over images it is that of the means over seeds, which for one seed and shares of right answers is the binomial one;
    the squares of the two add up, which is rather too much than too little, as part of the training's luck is in both.
    Of a difference on the same images it is smaller than what the two networks' own errors would give.
    """
    seeds, images = values.shape
    over_images = float(values.mean(0).std() / math.sqrt(images))
    over_seeds = float(values.mean(1).std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else None
    both = math.hypot(over_images, over_seeds or 0.0)
    return {"mean": float(values.mean()), **dict(zip(ERRORS, (both, over_images, over_seeds), strict=True))}


def describe(result: dict[str, Any], resources: Sequence[str]) -> str:
    """The ranking for the eye: what each network reached, how far it lies behind the first, and what it costs in `resources`."""
    networks = result["networks"]
    rows = [["", "validation accuracy", "behind the first", "", *resources, "score", "from"]]
    for found in networks:
        reached, behind = "diverged", ""
        if not found["diverged"]:
            reached = f"{100 * found['validation_accuracy']:.2f} % +- {100 * found['standard_error']:.2f} %"
            behind = f"{100 * found['difference']:.2f} % +- {100 * found['difference_error']:.2f} %"
        rows.append(
            [
                f"{found['rank']}.",
                reached,
                behind if found["rank"] > 1 else "",
                "~" if found["within_error"] else "",
                *(show(found["costs"][name], name) for name in resources),
                "-" if found["score"] is None else f"{found['score']:.2f}",
                ", ".join(found["sources"]),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        "  ".join([*(f"{cell:>{width}}" for cell, width in zip(row[:-1], widths, strict=False)), row[-1]])
        for row in rows
    ]
    seeds, within = result["seeds"], sum(found["within_error"] for found in networks)
    images = f"{result['validation_images']:,} images"
    alone = f"over {images}; how far another training would come out is not in it (seeds=3 measures that)"
    over = f"over {images} and {seeds} seeds" if seeds > 1 else alone
    many = f"{len(networks)} network{'s' if len(networks) > 1 else ''}"
    near = f"within the error, less than {SURE:g} standard errors behind on the same images"
    trained = f"{result['epochs']} epoch{'s' if result['epochs'] > 1 else ''} on {result['train_images']:,} images"
    return "\n".join(
        [
            f"{many} trained {trained}, compared on {images} of the training set kept aside",
            *aligned,
            f"+-: standard error {over}",
            *([f"~: {near}: {within} of {len(networks) - 1}"] if len(networks) > 1 else []),
        ]
    )

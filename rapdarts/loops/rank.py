"""The ranking: candidates trained briefly on one part of the training set and compared on the other (Liu et al. 2019, section 3).

The test set is not used, so that the chosen network can be tested on it afterwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import Experiment
from rapdarts.data.batches import Batches
from rapdarts.data.dataset import DataSet, split
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.files.run_files import RunFile
from rapdarts.loops.retrain import Trained, training_batches
from rapdarts.loops.series import all_diverged, retrain_once
from rapdarts.training.intervals import accuracy_interval, paired_interval
from rapdarts.training.metrics import balanced_accuracy
from rapdarts.training.run import Run


@dataclass(frozen=True)
class RankingEntry:
    """A genotype to rank, the runs it comes from, and its best score (sum of log mixing weights) in these runs.

    `own` marks the genotype that a search derived. `score` is None for a genotype that the user named.
    """

    genotype: Genotype
    space: SearchSpace
    sources: tuple[str, ...]
    score: float | None = None
    own: bool = False

    @property
    def cells(self) -> tuple[Any, ...]:
        """Key of the network that the genotype describes, independent of the order of edges."""
        kinds = sorted(self.genotype.cells.items())
        return (
            self.genotype.space,
            *((kind, cell.inputs, tuple(map(sorted_pairs, cell.nodes)), cell.concat) for kind, cell in kinds),
        )

    def with_facts(self, facts: Mapping[str, Any]) -> RankingEntry:
        """Return the entry without costs, and with `facts` about their counting (`deployment_facts`) in the genotype's provenance."""
        genotype = replace(self.genotype, provenance={**self.genotype.provenance, **facts}, costs={})
        return replace(self, genotype=genotype)

    def place(self) -> tuple[int, float]:
        """Return a sort key: named entries first, then derived ones, then the others; the last two groups by score."""
        return (0, 0.0) if self.score is None else (1 if self.own else 2, -self.score)


def sorted_pairs(node: Sequence[tuple[str, int]]) -> tuple[tuple[int, str], ...]:
    return tuple(sorted((source, primitive) for primitive, source in node))


def choose_entries(found: Sequence[RankingEntry], count: int) -> list[RankingEntry]:
    """Return each genotype once: all named ones, then the `count` best from the searches, derived genotypes first."""
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
    everyone = sorted(once.values(), key=RankingEntry.place)  # stable: ties keep the order in `found`
    named = [one for one in everyone if one.score is None]
    return named + everyone[len(named) : len(named) + count]


def split_for_ranking(data: DataSet, config: Experiment) -> DataSet:
    """Return a data set whose `train` and `test` are two parts of the training set; the real test set is left out.

    All seeds of a ranking use the same parts, so that differences between networks do not come from different images.
    """
    first, second = split(data.train.labels, config.rank.train_fraction, config.seed, "ranking", data.class_names)
    return replace(data, train=data.train.take(first), test=data.train.take(second))


def batches_of_ranking(data: DataSet, config: Experiment) -> tuple[Batches, int]:
    """Return the training batches of a ranking, and the number of images on which it compares networks.

    Raises InputError if the images cannot be split, or if a batch is larger than the part that it is drawn from.
    """
    parts, share = split_for_ranking(data, config), f"rank.train_fraction={config.rank.train_fraction:g}"
    batches, _ = training_batches(short_recipe(config), parts, share=share, whole=len(data.train))
    return batches, len(parts.test)


def short_recipe(config: Experiment) -> Experiment:
    """Return the experiment for training each network: `rank.epochs` epochs, without a validation fraction.

    If the ranking is shorter than the recipe's warm-up, the warm-up is cut so that one epoch has the full learning rate.
    """
    epochs = config.rank.epochs or config.retrain.epochs
    warmup_epochs = min(config.retrain.warmup_epochs, epochs - 1)
    recipe = replace(config.retrain, epochs=epochs, warmup_epochs=warmup_epochs, validation_fraction=0.0)
    return replace(config, retrain=recipe)


def rank(
    config: Experiment, entries: Sequence[RankingEntry], skeleton: Skeleton, data: DataSet, run: Run
) -> dict[str, Any]:
    """Train every entry at one skeleton, with one or several seeds, and order the entries by accuracy on the held-out images.

    An entry whose training diverges with any seed comes last. Writes ranking.json, best.json (the first genotype) and the
    files of each network under trained/. Raises DivergedError if all diverged, and Preempted if a signal stops the run.
    """
    parts, recipe = split_for_ranking(data, config), short_recipe(config)
    blueprints = [DerivedBlueprint(entry.genotype, entry.space, skeleton) for entry in entries]
    for remark in blueprints[0].remarks(recipe.retrain):
        run.screen.say(remark)
    correct, folders = train_all(recipe, entries, blueprints, parts, run)

    diverged = np.isnan(correct).any((1, 2))
    if diverged.all():
        raise all_diverged(len(entries), recipe.retrain)
    costs = [blueprint.costs for blueprint in blueprints]
    accuracies = np.where(diverged, -1.0, correct.mean((1, 2)))
    order = sorted(range(len(entries)), key=lambda number: (-accuracies[number], costs[number]["macs"], number))
    networks = [
        {
            **compared(place, entries[number], correct[number], correct[order[0]]),
            **balanced(correct[number], parts.test.labels.cpu()),
            "costs": costs[number],
            "genotype": entries[number].genotype.line,
            "folders": folders[number],
        }
        for place, number in enumerate(order, 1)
    ]
    genotypes = [json.loads(blueprints[number].card["genotype"]) for number in order]
    ranking = [{**network, "genotype": genotype} for network, genotype in zip(networks, genotypes, strict=True)]
    run.write_json(RunFile.RANKING, ranking)
    first = replace(entries[order[0]].genotype, skeleton=skeleton, costs=costs[order[0]])
    run.write(RunFile.BEST_GENOTYPE, with_ranking(first, networks).to_json())
    return {
        "count": len(networks),
        "seeds": config.rank.seeds,
        "epochs": recipe.retrain.epochs,
        "train_images": len(parts.train),
        "validation_images": len(parts.test),
        "networks": networks,
        "seconds": run.seconds(),
    }


def train_all(
    recipe: Experiment,
    entries: Sequence[RankingEntry],
    blueprints: Sequence[DerivedBlueprint],
    parts: DataSet,
    run: Run,
) -> tuple[np.ndarray, list[list[str]]]:
    """Train the network of every entry with every seed of the ranking.

    Returns an array (entries, seeds, images) with 1.0 for each held-out image that is classified correctly, 0.0 for the
    others, and NaN if the training diverged. Also returns the folders of each entry's networks, relative to the run folder.
    """
    seeds, networks = recipe.rank.seeds, len(entries)
    correct = np.full((networks, seeds, len(parts.test)), np.nan)
    folders: list[list[str]] = [[] for _ in entries]
    for number, blueprint in enumerate(blueprints):
        run.screen.say(f"network {number + 1}/{networks} comes from {', '.join(entries[number].sources)}")
        for seed in range(seeds):
            folder = f"trained/{number + 1}" + (f"-{seed + 1}" if seeds > 1 else "")
            what = f"network {number + 1}/{networks}" + (f" seed {seed + 1}/{seeds}" if seeds > 1 else "")
            seeded = replace(recipe, seed=(recipe.seed + seed) % 2**32)
            outcome = retrain_once(seeded, blueprint, parts, run, f"{folder}/", what, correct_images)
            if "diverged" in outcome:
                run.screen.say(f"{what}: {outcome['diverged']}")
                continue
            correct[number, seed] = outcome["right"].numpy()
            folders[number].append(folder)
            run.screen.say(f"{what}: validation accuracy {100 * correct[number, seed].mean():.2f} %")
    return correct, folders


def correct_images(trained: Trained | None) -> dict[str, Any]:
    """Return the outcome of a training, to be saved in the checkpoint: a mask (n,) of correctly classified images; None if it diverged."""
    return {"right": trained.correct if trained else None}


def with_ranking(genotype: Genotype, networks: Sequence[Mapping[str, Any]]) -> Genotype:
    """Return the genotype of the first network with its accuracy in the ranking added to its provenance."""
    facts = {name: networks[0][name] for name in ("validation_accuracy", "standard_error", "interval", "sources")}
    return replace(genotype, provenance={**genotype.provenance, "ranking": {**facts, "of": len(networks)}})


def compared(place: int, entry: RankingEntry, correct: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    """Compare an entry with the first one by their correctly classified images, `correct` and `first` (seeds, images).

    A difference is within the error if the 95 % interval of the difference on the same images includes 0. For an entry
    that diverged with some seed, only the accuracies with the other seeds are known.
    """
    diverged, accuracies = bool(np.isnan(correct).any()), correct.mean(1).tolist()
    known = {
        "rank": place,
        "sources": list(entry.sources),
        "score": entry.score if entry.score is not None and math.isfinite(entry.score) else None,
        "diverged": diverged,
        "accuracies": [None if math.isnan(accuracy) else accuracy for accuracy in accuracies],
    }
    if diverged:
        unknown = ("validation_accuracy", *ERRORS, "interval", "difference", "difference_error", "difference_interval")
        return {**known, **dict.fromkeys(unknown), "within_error": False}
    accuracy, difference = estimate(correct), estimate(first - correct)
    low, high = paired_interval(first - correct)
    return {
        **known,
        "validation_accuracy": accuracy["mean"],
        **{name: accuracy[name] for name in ERRORS},
        "interval": [*accuracy_interval(accuracies, correct.shape[1])],
        "difference": difference["mean"],
        "difference_error": difference["standard_error"],
        "difference_interval": [low, high],
        "within_error": place > 1 and low <= 0,
    }


def balanced(correct: np.ndarray, labels: Tensor) -> dict[str, float | None]:
    """Return the balanced accuracy of `correct` (seeds, images) for labels (images,), by name; empty if class sizes are similar.

    The accuracy is the mean over seeds, or None if the training with some seed diverged.
    """
    found = [balanced_accuracy(torch.from_numpy(one), labels) for one in np.nan_to_num(correct)]
    if any(one is None for one in found):
        return {}
    mean = float(np.mean([one[0] for one in found if one]))
    return {"balanced_accuracy": None if np.isnan(correct).any() else mean}


ERRORS = ("standard_error", "standard_error_images", "standard_error_seeds")


def estimate(values: np.ndarray) -> dict[str, Any]:
    """Return the mean of `values` (seeds, images) and its standard errors over images, over seeds (None for one seed), and over both.

    The error over images is the standard error of the images' means over seeds; for one seed, it is the binomial error. The
    joint error is the square root of the sum of the squares of these two errors. It is slightly too large, because both
    errors include part of the variation between trainings. The difference between two networks on the same images has a
    smaller error than the errors of the networks suggest.
    """
    seeds, images = values.shape
    over_images = float(values.mean(0).std() / math.sqrt(images))
    over_seeds = float(values.mean(1).std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else None
    both = math.hypot(over_images, over_seeds or 0.0)
    return {"mean": float(values.mean()), **dict(zip(ERRORS, (both, over_images, over_seeds), strict=True))}

"""`rank`: the best candidates of one search, or of several, trained briefly and put in order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.cli.arguments import Call
from rapdarts.cli.commands.derive import derived_from
from rapdarts.cli.naming import experiment_asked, space_asked
from rapdarts.cli.output import answer
from rapdarts.config import experiment as configuration
from rapdarts.config import knobs, resolve
from rapdarts.config.commands import DeriveConfig
from rapdarts.config.experiment import Experiment
from rapdarts.config.presets import RECIPES
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile

if TYPE_CHECKING:
    from rapdarts.architecture.space import Skeleton
    from rapdarts.data.dataset import DataSet
    from rapdarts.loops.rank import RankingEntry

ALPHAS = RunFile.ALPHAS
COUNTS = ("search.precision", "search.hardware")
"""The keys of a search that say how costs are counted, which a ranking does too."""

SHOWN = ("macs", "params")
"""Costs that a ranking always shows; those with a price or a budget come behind them."""


def rank(call: Call) -> None:
    call.target("the folder of a finished search, or several")
    runs = [Path(word) for word in call.words if os.path.isfile(Path(word) / ALPHAS)]
    if not runs:
        folder = next((word for word in call.words if os.path.isdir(word)), call.words[0])
        raise InputError(
            f"{shorten(folder)} holds no finished search (no {ALPHAS}); rapdarts rank takes the data and the recipe from one."
        )
    given = resolve.keys_given_in("search", call.pairs, call.verb)
    for key, value in call.pairs:
        if given.get(key, "").startswith("search.budget."):
            raise InputError(
                f"rapdarts rank takes what each search left within its own budgets, and has no use for {key}=; derive a"
                f" genotype anew (rapdarts derive RUN {key}={value} out=FILE) and name that file beside the runs."
            )
    idle = [f"{key}=" for key, name in given.items() if name not in COUNTS]
    if idle:
        raise InputError(f"rapdarts rank searches no more, and has no use for {', '.join(idle)}; leave it out.")
    config, launch = experiment_asked(call, str(runs[0] / RunFile.CONFIG), _briefly(resolve.experiment_of_run(runs[0])))
    if config is None:
        return
    from rapdarts.cost.count import deployment_facts
    from rapdarts.cost.prices import read_hardware
    from rapdarts.data.dataset import load_dataset
    from rapdarts.loops import launch as launches
    from rapdarts.loops.rank import choose, describe
    from rapdarts.training.device import training_device

    data = load_dataset(config.data, training_device(config.device, config.threads), config.seed)
    found: list[RankingEntry] = []
    for word in call.words:
        if Path(word) in runs:
            found += _of_search(Path(word), config, data, call)
        else:
            found.append(_named(word, call))
    hardware = config.search.hardware if "search.hardware" in given.values() else ""
    settings = derived_from(config, DeriveConfig(hardware=hardware), runs[0])
    facts = deployment_facts(settings.precision, read_hardware(settings.hardware))  # the costs of all are counted alike
    contestants = [one.with_facts(facts) for one in choose(found, config.rank.count)]
    name, code = runs[0].absolute().name, launches.source(call.space)
    result, best = launches.rank(config, contestants, data, launch, name, code)
    dear = {name for name, price in vars(config.search.cost).items() if price}
    dear |= configuration.budget_limits(config.search.budget).keys()
    resources = [*SHOWN, *(name for name in result["networks"][0]["costs"] if name in dear - {*SHOWN})]
    answer(call, result, f"{describe(result, resources)}\nwritten to {best}")


def _briefly(own: Experiment) -> list[tuple[str, Any]]:
    """What is said for a ranking of an experiment: the recipe `fast`, unless its own retraining is as short.

    A recipe may come with a skeleton and with crops: those that the search was priced for, and saw, stay.
    """
    if own.retrain.epochs <= RECIPES["fast"]["retrain.epochs"]:
        return []
    kept = [key.name for key in knobs.keys(Experiment) if key.name.startswith(("skeleton.", "data."))]
    return [("retrain.recipe", "fast"), *((name, knobs.get(own, name)) for name in kept)]


def _of_search(folder: Path, config: Experiment, data: DataSet, call: Call) -> list[RankingEntry]:
    """The genotype that a search derived, and its best others: those of the exact rule within its own budgets.

    Raises InputError for a search on other data.
    """
    from rapdarts.cost.prices import prices
    from rapdarts.loops.launch import provenance
    from rapdarts.loops.rank import RankingEntry
    from rapdarts.strategy.derive import derive, mixing_weights, read_alphas, space_of_alphas
    from rapdarts.strategy.discretize import score

    own_config = resolve.experiment_of_run(folder)
    full = space_asked(space_of_alphas(folder / ALPHAS), call.space)
    space, skeleton, architecture = read_alphas(folder / ALPHAS, full)
    _check_data(folder, skeleton, config, data)
    settings = derived_from(own_config, DeriveConfig(), folder)
    limits, table = configuration.budget_limits(settings.budget), prices(settings, full, skeleton)
    weights = mixing_weights(architecture)
    facts = provenance(own_config, settings)
    rule = settings.rule, settings.max_skips
    own = derive(space, weights, table, *rule, facts, limits).genotype
    best = derive(space, weights, table, *rule, facts, limits, max(2, config.rank.count)).candidates
    derived = RankingEntry(own, full, (f"{folder} (derived)",), score(space, weights, own), own=True)
    others = [RankingEntry(one.genotype, full, (str(folder),), one.score) for one in best]
    return [derived, *(one for one in others if one.cells != derived.cells)]


def _named(word: str, call: Call) -> RankingEntry:
    """The genotype that a user names beside the searches."""
    from rapdarts.architecture.genotype import validate
    from rapdarts.deploy.lookup import named
    from rapdarts.loops.rank import RankingEntry

    genotype, where = named(word)
    space = space_asked(genotype.space, call.space)
    validate(genotype, space, where)
    return RankingEntry(genotype, space, (word,))


def _check_data(folder: Path, skeleton: Skeleton, config: Experiment, data: DataSet) -> None:
    """Raises InputError for a search, priced at a skeleton, on other images than those that the ranking trains on."""
    from rapdarts.training.checkpoint import origin_of

    searched = resolve.experiment_of_run(folder)
    pairs = [(f"data.{name}", getattr(searched.data, name), getattr(config.data, name)) for name in ("name", "size")]
    pairs += [("images", skeleton.image, data.image), ("classes", skeleton.classes, data.classes)]
    # A share of the training set is drawn by the seed; two of the same seed, and two wholes, must be the same images.
    share = [(one.data.fraction, one.seed if one.data.fraction < 1 else 0) for one in (searched, config)]
    fingerprint = origin_of(folder / RunFile.CHECKPOINT).get("data set", "")
    if fingerprint and share[0] == share[1]:
        pairs.append(("fingerprint", fingerprint[:12], data.fingerprint[:12]))
    for name, theirs, ours in pairs:
        if theirs != ours:
            raise InputError(
                f"{shorten(str(folder))} searched on other data than those of this ranking ({name} {theirs}, not {ours});"
                " rank runs on the same data together."
            )

"""Launches: a search, a baseline, a retraining or a ranking, from settings to a finished run folder, by command or from a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rapdarts
from rapdarts.architecture.genotype import Genotype, validate
from rapdarts.architecture.space import SearchSpace
from rapdarts.config import experiment as configuration
from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment, Launch, SearchConfig
from rapdarts.config.units import within
from rapdarts.cost.count import deployment_facts
from rapdarts.cost.prices import read_hardware
from rapdarts.data.dataset import DataSet, load_dataset
from rapdarts.deploy.blueprint import Blueprint, DerivedBlueprint, ReferenceBlueprint
from rapdarts.deploy.lookup import named
from rapdarts.deploy.model_file import deployed, read_trained
from rapdarts.deploy.skeletons import deployment_skeleton, skeleton_to_build
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
from rapdarts.loops.memory import training_within_memory, within_memory
from rapdarts.loops.random_baseline import random_baseline
from rapdarts.loops.rank import RankingEntry, short_recipe, split_for_ranking
from rapdarts.loops.rank import rank as ranking
from rapdarts.loops.search_record import cost_report
from rapdarts.networks.reference import REFERENCE, find
from rapdarts.strategy.derive import Derivation
from rapdarts.training.device import training_device
from rapdarts.training.distributed import joined
from rapdarts.training.log import Screen
from rapdarts.training.metrics import Evaluation
from rapdarts.training.run import open_run

HARDWARE_KEPT, LATENCY_KEPT = RunFile.HARDWARE, RunFile.LATENCY
"""The tables that a search was priced by, as its run folder keeps them."""

Read = Callable[[torch.device], DataSet]
"""Gives a data set on a device."""

Plan = Callable[[Experiment, DataSet], Blueprint]
"""Gives the network to train on a data set."""


@dataclass(frozen=True)
class Searched:
    """What a search has found: the genotype, what else could have been chosen, what they cost, and where all that is written.

    `report` is what result.json holds.
    """

    derivation: Derivation
    report: dict[str, Any]
    folder: Path

    @property
    def genotype(self) -> Genotype:
        """The genotype that was chosen; it knows the skeleton that it was priced at."""
        return self.derivation.genotype

    @property
    def candidates(self) -> list[Genotype]:
        """Every genotype that could have been chosen, with its costs: see `rapdarts.strategy.derive.Derivation`."""
        return [candidate.genotype for candidate in self.derivation.candidates]

    @property
    def costs(self) -> dict[str, float]:
        """Every resource of the chosen genotype's network, counted in that network."""
        return dict(self.report["counted"])


@dataclass(frozen=True)
class Retrained:
    """What a retraining has reached: accuracy on the test images, that of `best` where one was chosen, and where all that is written.

    `report` is what result.json holds. Of several processes, the one that `is_main` has written it.
    """

    test: Evaluation
    best: Evaluation | None
    blueprint: Blueprint
    report: dict[str, Any]
    folder: Path
    is_main: bool = True

    @property
    def file(self) -> Path:
        """The trained network."""
        return self.folder / RunFile.NETWORK

    @property
    def costs(self) -> dict[str, float]:
        """Every resource of the network as it is shipped."""
        return self.blueprint.costs

    @cached_property
    def network(self) -> nn.Sequential:
        """The trained network from pixels in 0..1 to logits, on the CPU, as `rapdarts.load` gives it."""
        own = self.blueprint.space if isinstance(self.blueprint, DerivedBlueprint) else None
        return deployed(read_trained(self.file, lambda name: own) if own else read_trained(self.file))


def search(
    config: Experiment,
    space: SearchSpace,
    launch: Launch,
    name: str,
    code: str = "",
    read: Read | None = None,
    progress: bool = True,
) -> Searched:
    """Searches `space`, which need not ship: `code` then says what it is, so that a resume notices a change of it.

    `name` is what the run is called where it gets a new folder; `read` gives data other than the experiment's.
    The run folder keeps the width that was found. Raises InputError before a folder is made; else as the loop and `open_run` do.
    """
    space = _searched(config.search, space)
    data = _data(config, read)
    searching.SearchBatches.of(data, config)  # refuses a batch that is too large before a folder is made
    limits = configuration.budget_limits(config.search.budget)
    if limits:
        Screen(silent=not progress).say(f"looking for genotypes with {within(limits)}")
    auto, table = config.skeleton.channels == 0, searching.priced(config, space, data)
    config = replace(config, skeleton=replace(config.skeleton, channels=table.skeleton.channels))
    inputs = _inputs(config, data, code)
    with open_run("search", config, launch, name, inputs, progress=progress) as run:
        if auto:
            run.screen.say(
                f"skeleton.channels={table.skeleton.channels}: the widest whose average cell keeps the budgets"
            )
        for kept, text in ((HARDWARE_KEPT, inputs["hardware table"]), (LATENCY_KEPT, inputs["latency table"])):
            if text:
                run.write(kept, text)
        with within_memory(config, space, data, table, run):
            derivation = searching.search(config, space, data, run, table, provenance(config, config.search))
        report = cost_report(derivation, table, config.search, run)
        run.write_json(RunFile.RESULT, report)
    return Searched(derivation, report, run.folder)


def baseline(
    config: Experiment, space: SearchSpace, launch: Launch, name: str, code: str = ""
) -> tuple[dict[str, Any], Path]:
    """Draws and trains random networks; the arguments are those of `search`. Gives what result.json holds, and that file."""
    space = _searched(config.search, space)
    data = _data(config, None)
    retraining.training_batches(config, data)  # refuses a batch that is too large before a folder is made
    asked = config.search.random.like
    like, where = named(asked) if asked else (None, "")
    if like is not None:
        validate(like, space, f"search.random.like: {where}")
    inputs = _inputs(config, data, code) | {"random.like": like.to_json() if like is not None else ""}
    with open_run("random", config, launch, name, inputs) as run:
        with training_within_memory(config.retrain):
            result = random_baseline(config, space, data, run, like)
        file = run.write_json(RunFile.RESULT, result)
    return result, file


def rank(
    config: Experiment, contestants: Sequence[RankingEntry], data: DataSet, launch: Launch, name: str, code: str = ""
) -> tuple[dict[str, Any], Path]:
    """Trains `contestants` briefly and puts them in order; the other arguments are those of `search`.

    The run folder keeps the length of a training. Gives what result.json holds, and the file of the first genotype.
    """
    skeleton = deployment_skeleton(config.skeleton, data)
    config = replace(config, rank=replace(config.rank, epochs=short_recipe(config).retrain.epochs))
    # Before a folder is made, these two refuse images that are too small and a batch that is too large.
    _ = DerivedBlueprint(contestants[0].genotype, contestants[0].space, skeleton).costs
    retraining.training_batches(short_recipe(config), split_for_ranking(data, config))
    inputs = {"data set": data.fingerprint, "genotypes": "\n".join(one.genotype.line for one in contestants)}
    with open_run("rank", config, launch, name, inputs | {"search space": code}) as run:
        with training_within_memory(config.retrain):
            result = ranking(config, contestants, skeleton, data, run)
        run.write_json(RunFile.RESULT, result)
    return result, run.folder / RunFile.BEST_GENOTYPE


def retrain(
    config: Experiment,
    plan: Plan,
    launch: Launch,
    name: str,
    code: str = "",
    read: Read | None = None,
    progress: bool = True,
) -> Retrained:
    """Trains the network that `plan` gives, from scratch; the other arguments are those of `search`.

    Processes that torchrun started train it together. Raises InputError before a folder is made; else as the loop and `open_run` do.
    """
    with joined(config.device) as process_group:
        with process_group.leader_first("get its data and network ready"):
            data = _data(config, read)
            blueprint = plan(config, data)
            if isinstance(blueprint, DerivedBlueprint):  # the run folder keeps the skeleton that is built
                built = {name: getattr(blueprint.skeleton, name) for name in ("layers", "channels", "stem")}
                config = replace(config, skeleton=replace(config.skeleton, **built))
            # Before a folder is made, these two refuse images that are too small and a batch that is too large.
            _ = blueprint.costs
            retraining.training_batches(config, data, process_group)
        inputs = {"data set": data.fingerprint, **blueprint.origin, "search space": code}
        with open_run("retrain", config, launch, name, inputs, progress, process_group) as run:
            for remark in blueprint.remarks(config.retrain):
                run.screen.say(remark)
            with training_within_memory(config.retrain):
                trained = retraining.retrain(config, blueprint, data, run)
            report = retraining.result(trained, blueprint, config.retrain, run)
            run.write_json(RunFile.RESULT, report)
    return Retrained(trained.test, trained.best, blueprint, report, run.folder, process_group.is_main)


def plan_for(
    target: str | Genotype, space_named: Callable[[str], SearchSpace], asked: Iterable[str] = (), own_space: str = ""
) -> Plan:
    """How the network that a user names is built: a reference network, or that of a genotype.

    `space_named` gives the space of a genotype, `asked` are the keys of the skeleton that were given, and `own_space`
    is what a space of the user's was given by. Raises InputError, before any data are read, for what cannot be built
    or keys that mean nothing for it.
    """
    asked = list(asked)
    reference = None if isinstance(target, Genotype) else find(target)
    if reference is not None:
        if asked or own_space:
            useless = f"{asked[0]}=" if asked else own_space
            raise InputError(f"{reference} is a reference network, which has no use for {useless}; leave it out.")
        return lambda config, data: ReferenceBlueprint(reference, data.image, data.classes)

    genotype, where = (target, "the genotype") if isinstance(target, Genotype) else named(target, REFERENCE)
    space = space_named(genotype.space)
    validate(genotype, space, where)

    def derived(config: Experiment, data: DataSet) -> Blueprint:
        priced = None if asked else genotype
        skeleton, instead_of = skeleton_to_build(priced, config.skeleton, data)
        return DerivedBlueprint(genotype, space, skeleton, instead_of)

    return derived


def provenance(config: Experiment, settings: SearchConfig) -> dict[str, Any]:
    """Where a genotype comes from, and how its costs are counted."""
    return {
        **deployment_facts(settings.precision, read_hardware(settings.hardware)),
        "config_sha256": resolve.config_digest(config),
        "strategy": config.search.strategy,
        "seed": config.seed,
        "rapdarts": rapdarts.__version__,
        "torch": torch.__version__,
    }


def source(file: str) -> str:
    """What a file of the user's says: the run remembers it, and notices a change."""
    return Path(file).read_text(encoding="utf-8", errors="replace") if os.path.isfile(file) else ""


def _searched(settings: SearchConfig, space: SearchSpace) -> SearchSpace:
    """The space with the primitives that are asked for. Raises InputError where the stages do not fit it."""
    if settings.primitives:
        space = space.only(settings.primitives)
    searching.check_stages(settings, space)
    return space


def _data(config: Experiment, read: Read | None) -> DataSet:
    """The data on the device of the experiment."""
    device = training_device(config.device, config.threads)
    return load_dataset(config.data, device, config.seed) if read is None else read(device)


def _inputs(config: Experiment, data: DataSet, code: str) -> dict[str, str]:
    """What else a search depends on."""
    tables = {"hardware table": source(config.search.hardware), "latency table": source(config.search.latency)}
    return {"data set": data.fingerprint, "search space": code, **tables}

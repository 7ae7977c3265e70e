"""Functions that run a search, a random baseline, a ranking or a retraining, from settings to a finished run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rapdarts.architecture.genotype import validate
from rapdarts.architecture.reading import read_genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import Experiment, Launch, SearchConfig, budget_limits
from rapdarts.config.hardware import is_built_in
from rapdarts.config.resources import within
from rapdarts.cost.latency import LatencyTable
from rapdarts.data.dataset import DataSet, Reader, load_dataset
from rapdarts.deploy import skeletons
from rapdarts.deploy.blueprint import Blueprint, DerivedBlueprint, ReferenceBlueprint
from rapdarts.deploy.lookup import Found, find_network, own_space
from rapdarts.deploy.space_lookup import Space, source_of, text_of
from rapdarts.files.run_files import RunFile
from rapdarts.interruptions import during
from rapdarts.loops import retrain as retraining
from rapdarts.loops import search as searching
from rapdarts.loops import signs
from rapdarts.loops.baseline_settings import as_searched
from rapdarts.loops.batch_sizes import within_images
from rapdarts.loops.latency_first import lacks_table, latency_of_run
from rapdarts.loops.memory import training_within_memory, within_memory
from rapdarts.loops.random_baseline import draw, random_baseline
from rapdarts.loops.rank import RankingEntry, batches_of_ranking, rank, short_recipe
from rapdarts.loops.ranking_settings import resources_shown
from rapdarts.loops.results import RandomBaseline, Ranked, Retrained, Searched
from rapdarts.loops.search_batches import SearchBatches
from rapdarts.loops.search_record import cost_report, provenance
from rapdarts.networks.batched.verified import kernels_for
from rapdarts.strategy.rule import check_skip_paths, derivable
from rapdarts.training.device import training_device
from rapdarts.training.distributed import joined
from rapdarts.training.intervals import wilson
from rapdarts.training.log import Screen
from rapdarts.training.session import open_run, reserved_by_first


def run_search(
    config: Experiment,
    space: SearchSpace,
    launch: Launch,
    name: str,
    given: Space = None,
    read: Reader | None = None,
    screen: Screen | None = None,
    measured: LatencyTable | None = None,
) -> Searched:
    """Search `space` and return the result.

    `given` is the user's own space, or None for a space of the package; a resumed run checks that it is unchanged. `name`
    becomes part of the name of a new run folder. `read` loads the data (default: the data of the experiment). `measured` is
    a latency table that was measured for this search, for settings that need a table but do not name one.
    Raises InputError before a run folder is created, and afterwards the errors of `search` and `open_run`.
    """
    space = searched_space(config.search, space)
    data = data_of(config, read)
    [batches] = within_images(data, lambda: SearchBatches.of(data, config))  # raises before a run folder is created
    limits, screen = budget_limits(config.search.budget), screen or Screen()
    about = said_before(data, [f"looking for genotypes with {within(limits)}"] if limits else [], config, screen)
    latency = measured or latency_of_run(config, space, data, launch, screen)
    auto, table = config.skeleton.channels == 0, searching.priced(config, space, data, latency)
    config = replace(config, skeleton=replace(config.skeleton, channels=table.skeleton.channels))
    inputs = inputs_of(config, data, given, latency)
    kernels = kernels_for(config.search, data.train.labels.device)  # raises before a run folder is created
    with open_run("search", config, launch, name, inputs, screen, about=about) as run:
        for remark in kernels.remarks:
            run.screen.say(remark)
        if auto:
            run.screen.say(
                f"skeleton.channels={table.skeleton.channels}: the widest network whose average cell fits the budgets"
            )
        for kept, text in ((RunFile.HARDWARE, inputs["hardware table"]), (RunFile.LATENCY, inputs["latency table"])):
            if text:
                run.write(kept, text)
        with within_memory(config, space, data, table, run):
            derivation = searching.search(config, space, data, run, table, provenance(config, config.search))
        report = cost_report(derivation, table, config.search, run)
        report["warnings"] = signs.of_search(config.search, space, data, run.records(), batches.steps)
        run.write_result(report)
    return Searched(derivation, report, run.folder, own_space(given))


def run_random_baseline(
    config: Experiment,
    space: SearchSpace,
    launch: Launch,
    name: str,
    given: Space = None,
    read: Reader | None = None,
    screen: Screen | None = None,
) -> RandomBaseline:
    """Draw random genotypes of `space` and train them; the arguments and errors are those of `run_search`."""
    asked = config.search.random.like
    like = find_network(asked, networks=False) if asked else None
    genotype = None
    if like is not None:
        config, genotype = as_searched(config, like), like.the_genotype(given)
        validate(genotype, space, f"search.random.like: {like.where}")
    space = searched_space(config.search, space)
    data = data_of(config, read)
    # Raises before a run folder is created.
    [(batches, _)] = within_images(data, lambda: retraining.training_batches(config, data))
    screen = screen or Screen()
    about = said_before(data, [], config, screen)
    latency = latency_of_run(config, space, data, launch, screen, genotype)
    drawn = draw(config, space, data, genotype, latency)
    inputs = inputs_of(config, data, given, latency) | {"random.like": "" if genotype is None else genotype.to_json()}
    with open_run("random", config, launch, name, inputs, screen, about=about) as run:
        if latency is not None:
            run.write(RunFile.LATENCY, latency.to_json())
        with training_within_memory(config.retrain):
            result = random_baseline(config, drawn, data, run)
        reached = max(one["test_accuracy"] or 0.0 for one in result["networks"])
        best, steps = wilson(reached, len(data.test)), batches.steps * config.retrain.epochs
        result["warnings"] = signs.of_trainings(config.retrain, data, run.records(), best, steps)
        run.write_result(result)
    return RandomBaseline(result, run.folder)


def run_ranking(
    config: Experiment,
    entries: Sequence[RankingEntry],
    data: DataSet,
    launch: Launch,
    name: str,
    given: Space = None,
    screen: Screen | None = None,
) -> Ranked:
    """Train `entries` briefly and rank them; the other arguments are those of `run_search`."""
    skeleton = skeletons.of_experiment(config.skeleton, data.image, data.classes)
    config = replace(config, rank=replace(config.rank, epochs=short_recipe(config).retrain.epochs))
    # These two lines raise for images that are too small and for too large a batch, before a run folder is created.
    _ = DerivedBlueprint(entries[0].genotype, entries[0].space, skeleton).costs
    [(batches, _)] = within_images(data, lambda: batches_of_ranking(data, config))
    inputs = {"data set": data.fingerprint, "genotypes": "\n".join(one.genotype.line for one in entries)}
    inputs |= {"search space": source_of(given)}
    with open_run("rank", config, launch, name, inputs, screen, about=data.lines) as run:
        with training_within_memory(config.retrain):
            result = rank(config, entries, skeleton, data, run)
        best, steps = result["networks"][0]["interval"], batches.steps * config.rank.epochs
        result["warnings"] = signs.of_trainings(config.retrain, data, run.records(), best, steps)
        run.write_result(result)
    shown = resources_shown(config, list(result["networks"][0]["costs"]))
    return Ranked(read_genotype(run.folder / RunFile.BEST_GENOTYPE), result, run.folder, shown, own_space(given))


def run_retraining(
    config: Experiment,
    found: Found,
    space: SearchSpace | None,
    priced: bool,
    launch: Launch,
    name: str,
    given: Space = None,
    read: Reader | None = None,
    screen: Screen | None = None,
) -> Retrained:
    """Train the network `found` from scratch; `space` is None for a reference network.

    With `priced`, a genotype is built at the skeleton for which its costs were counted, if that fits the images. Processes started
    by torchrun train the network together. The other arguments are those of `run_search`. Raises InputError before a run
    folder is created, and afterwards the errors of `retrain` and `open_run`.
    """
    with (
        joined(config.device) as process_group,
        reserved_by_first(process_group, "retrain", launch, name, config) as place,
    ):
        with process_group.leader_first("prepare its data and network"):
            data = data_of(config, read)
            blueprint = _to_train(config, found, space, priced, data)
            if isinstance(blueprint, DerivedBlueprint):
                config = replace(config, skeleton=skeletons.placed(config.skeleton, blueprint.skeleton))
            # These two lines raise for images that are too small and for too large a batch, before a run folder is created.
            _ = blueprint.costs
            [(batches, _)] = within_images(data, lambda: retraining.training_batches(config, data, process_group))
        inputs = {"data set": data.fingerprint, **blueprint.origin, "search space": source_of(given)}
        with open_run("retrain", config, place, name, inputs, screen, process_group, data.lines) as run:
            for remark in blueprint.remarks(config.retrain):
                run.screen.say(remark)
            with training_within_memory(config.retrain):
                trained = retraining.retrain(config, blueprint, data, run)
                retraining.write_network(run, "", trained, blueprint, data)
            report = retraining.result(trained, blueprint, config.retrain, run)
            if process_group.is_main:
                report["warnings"] = signs.of_retraining(
                    config.retrain, data, run.records(), trained.test, batches.steps
                )
            run.write_result(report)
    return Retrained(trained.test, trained.best, blueprint, report, run.folder, process_group.is_main, own_space(given))


def _to_train(config: Experiment, found: Found, space: SearchSpace | None, priced: bool, data: DataSet) -> Blueprint:
    """Return the network to train on a data set."""
    if space is None:
        return ReferenceBlueprint(found.reference, data.image, data.classes)
    genotype = replace(found.the_genotype(), space=space.name)
    skeleton, instead_of = skeletons.to_build(genotype if priced else None, config.skeleton, data)
    return DerivedBlueprint(genotype, space, skeleton, instead_of)


def searched_space(settings: SearchConfig, space: SearchSpace) -> SearchSpace:
    """Return the space with the primitives and the conditions on derivation from `settings`.

    Raises InputError if the stages do not fit the space.
    """
    if settings.primitives:
        space = space.only(settings.primitives)
    check_skip_paths(settings, space)
    space = derivable(settings, space)
    searching.check_stages(settings, space)
    return space


@during("reading the data")
def data_of(config: Experiment, read: Reader | None = None) -> DataSet:
    """Load the data onto the device of the experiment, with `read` if given."""
    device = training_device(config.device, config.threads)
    return load_dataset(config.data, device, config.seed) if read is None else read(device)


def said_before(data: DataSet, lines: Sequence[str], config: Experiment, screen: Screen) -> Sequence[str]:
    """Print the lines about the data and then `lines`, before the budgets are checked or latency is measured.

    Returns the lines about the data that are still to be printed when the run folder is created; a run within another run has
    none.
    """
    if data.described or (not lines and not lacks_table(config.search)):
        return data.lines
    for line in (*data.lines, *lines):
        screen.say(line)
    return ()


def inputs_of(config: Experiment, data: DataSet, given: Space, latency: LatencyTable | None) -> dict[str, str]:
    """Return, by name, the inputs that a search depends on in addition to its configuration."""
    times = text_of(config.search.latency) if latency is None else latency.to_json()
    hardware = "" if is_built_in(config.search.hardware) else text_of(config.search.hardware)
    tables = {"hardware table": hardware, "latency table": times}
    return {"data set": data.fingerprint, "search space": source_of(given), **tables}

"""Runs: searches, random baselines, rankings, retrainings, and a table of finished runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.api.own_space import with_own_resources
from rapdarts.api.process import unchanged_process
from rapdarts.config.experiment import Experiment
from rapdarts.config.given import AnyPath, Settings, check_genotype_keys, find_experiment, launch_of, pairs_of
from rapdarts.config.resolve import check_one_width, keys_given_in
from rapdarts.deploy import lookup
from rapdarts.deploy.lookup import Network
from rapdarts.deploy.space_lookup import Space, find_space
from rapdarts.errors import InputError
from rapdarts.files import atomic
from rapdarts.training.claim import reserved

if TYPE_CHECKING:
    from rapdarts.architecture.space import SearchSpace
    from rapdarts.loops.results import RandomBaseline, Ranked, Retrained, Searched
    from rapdarts.reports.run_table import Report


@unchanged_process
@with_own_resources
def search(
    experiment: AnyPath | Experiment | Settings = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> Searched:
    """Search for a cell, as `rapdarts search` does. Return its genotype, the other candidates, and their costs.

    `experiment` is the name of a shipped experiment, a YAML file, an `Experiment`, or a mapping of
    keys that override the defaults (those of P-DARTS for CIFAR-10). `settings` and then `keys` override the experiment:
    `{"cost.macs": 0.2}`, `{"search": {"epochs": 5}}` or `epochs=5`.

    `data` and `test` are pairs (images, labels) or map-style data sets (rapdarts.data.in_memory lists the types that they
    may hold); without them, the data of the experiment are read. If `data` is given without `test`, a third of it is held
    out for testing. Every search and retraining holds out the same third, and a search never uses it. `space` is a name,
    a file or a `SearchSpace`.

    `run` is the run folder; if it is empty, a new folder is created under runs/. With `resume`, the run in the folder is
    resumed, and no experiment is needed. Progress is shown on stderr. In the main thread, a signal, including Ctrl-C,
    saves the run and raises Preempted. The state of torch's random generators and its number of threads are restored at
    the end. Raises RapdartsError.
    """
    given = find_experiment("search", experiment, settings, keys, run, resume, in_memory=data is not None)
    if given.config.search.strategy == "random":
        raise InputError(
            "search.strategy=random trains many genotypes and does not search for one; call rapdarts.random_baseline instead."
        )
    check_one_width(given.config)
    with reserved("search", given.launch, given.called, given.config) as place:
        own, config = searched(given.config, space)
        from rapdarts.loops import launch
        from rapdarts.loops.in_programs import as_it_was, reader_of
        from rapdarts.training.log import Screen

        read = reader_of(config, data, test)
        with as_it_was():
            return launch.run_search(config, own, place, given.called, space, read, Screen(silent=not progress))


@unchanged_process
@with_own_resources
def random_baseline(
    experiment: AnyPath | Experiment | Settings = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> RandomBaseline:
    """Draw random genotypes of a given cost and train each of them, as `rapdarts search strategy=random` does. Return their accuracies.

    The arguments are those of `search`. The keys `random.count`, `random.macs` and `random.like` set the number of
    genotypes and their cost. Raises RapdartsError.
    """
    keys = {**keys, "search.strategy": "random"}
    given = find_experiment("search", experiment, settings, keys, run, resume, in_memory=data is not None)
    with reserved("random", given.launch, given.called, given.config) as place:
        own, config = searched(given.config, space)
        from rapdarts.loops import launch
        from rapdarts.loops.in_programs import as_it_was, reader_of
        from rapdarts.training.log import Screen

        read = reader_of(config, data, test)
        with as_it_was():
            return launch.run_random_baseline(
                config, own, place, given.called, space, read, Screen(silent=not progress)
            )


@unchanged_process
@with_own_resources
def rank(
    targets: Network | Sequence[Network],
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> Ranked:
    """Briefly train the best candidates of finished searches and rank them on held-out training images, as `rapdarts rank` does.

    `targets` is a target or a sequence of targets: the folder or result of a search, or a genotype in any form that
    `read` accepts. At least one of them must be a search; the experiment of the first search is used. The other
    arguments are those of `search`. Raises RapdartsError.
    """
    several = targets if isinstance(targets, list | tuple) else [targets]
    words, space = [lookup.word_of(one) for one in several], lookup.space_of(space, *several)
    pairs = [*pairs_of(settings or {}), *pairs_of(keys)]
    from rapdarts.loops.ranking_settings import experiment_of_ranking, searches

    runs = searches(words)
    config, names_hardware = experiment_of_ranking(runs[0], pairs)
    if data is not None:
        config = replace(config, data=replace(config.data, name="memory", path=""))
    name = runs[0].absolute().name
    with reserved("rank", launch_of("rank", pairs, run, resume), name, config) as place:
        from rapdarts.loops import launch, ranking_entries
        from rapdarts.loops.in_programs import as_it_was, reader_of
        from rapdarts.training.log import Screen

        with as_it_was():
            images = launch.data_of(config, reader_of(config, data, test))
            entries = ranking_entries.entries_of(words, config, images, space, names_hardware)
            return launch.run_ranking(config, entries, images, place, name, space, Screen(silent=not progress))


@unchanged_process
@with_own_resources
def retrain(
    network: Network,
    experiment: AnyPath | Experiment | Settings = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> Retrained:
    """Train a network from scratch, as `rapdarts retrain` does. Return the network and its accuracy on the test images.

    `network` is a genotype in any form that `read` accepts, the name of a reference network, or the result or folder of
    a run. `experiment` defaults to the experiment of the run, except for a ranking, which trains its networks only
    briefly. `space` defaults to the space of the genotype. The other arguments are those of `search`. Raises RapdartsError, for
    example if the experiment's data differ from the run's and `data.name` does not confirm the change, or for keys that choose a
    genotype, such as a budget.
    """
    space, found = lookup.space_of(space, network), lookup.find_network(lookup.word_of(network))
    given = find_experiment(
        "retrain", experiment, settings, keys, run, resume, origin=found.folder, in_memory=data is not None
    )
    check_genotype_keys(given.pairs)
    config, asked = given.config, keys_given_in("skeleton", given.pairs, "retrain")
    with reserved("retrain", given.launch, given.called, config) as place:
        found, own_space = lookup.network_to_train(found, space, asked)
        if own_space is not None and space is not None:
            config = replace(config, search=replace(config.search, space=own_space.name))
        from rapdarts.loops import launch
        from rapdarts.loops.in_programs import as_it_was, reader_of
        from rapdarts.training.log import Screen

        read = reader_of(config, data, test)
        with as_it_was():
            return launch.run_retraining(
                config, found, own_space, not asked, place, given.called, space, read, Screen(silent=not progress)
            )


@unchanged_process
def report(runs: Network | Sequence[Network], out: AnyPath = "") -> Report:
    """Tabulate finished runs in Markdown, as `rapdarts report` does. `out` is the file to write. Raises InputError."""
    from rapdarts.reports.run_table import Report, run_table

    file = atomic.file_to_write(out) if os.fspath(out) else None
    several = runs if isinstance(runs, list | tuple) else [runs]
    text, left_out = run_table([Path(lookup.word_of(one)) for one in several])
    if file is not None:
        atomic.write_atomically(file, text)
    return Report(text, left_out)


def searched(config: Experiment, space: Space) -> tuple[SearchSpace, Experiment]:
    """Return the space to search, and the experiment with `search.space` set to the name of this space."""
    own = find_space(config.search.space if space is None else space)
    return own, replace(config, search=replace(config.search, space=own.name))

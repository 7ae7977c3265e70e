"""Entries of a ranking: the best genotypes of finished searches, and other genotypes that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rapdarts.architecture.genotype import Genotype, buildable
from rapdarts.architecture.space import Skeleton
from rapdarts.config import resolve
from rapdarts.config.command_options import DeriveConfig
from rapdarts.config.experiment import Experiment
from rapdarts.cost.count import deployment_facts
from rapdarts.cost.prices import read_hardware
from rapdarts.data.dataset import DataSet
from rapdarts.deploy.lookup import find_network
from rapdarts.deploy.space_lookup import Space, space_for
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile, part_of
from rapdarts.loops.finished_search import finished_search, settings_of_run
from rapdarts.loops.rank import RankingEntry, choose_entries
from rapdarts.loops.ranking_settings import searches
from rapdarts.strategy.discretize import score
from rapdarts.strategy.replicas import mean_weights
from rapdarts.training.checkpoint import origin_of


def entries_of(
    targets: Sequence[str | Genotype], config: Experiment, data: DataSet, space: Space, own_hardware: bool
) -> list[RankingEntry]:
    """Return the entries of a ranking: all named genotypes and the best genotypes of the searches, each once.

    All costs are counted as in the first search, but for the hardware of `config` if `own_hardware` is set.
    """
    runs = searches(targets)
    found: list[RankingEntry] = []
    for target in targets:
        if not isinstance(target, Genotype) and part_of(Path(target), "search") in runs:
            found += _of_search(part_of(Path(target), "search"), config, data, space)
        else:
            found.append(_named(target, space))
    options = DeriveConfig(hardware=config.search.hardware if own_hardware else "")
    settings = settings_of_run(config, options, runs[0])
    facts = deployment_facts(settings.precision, read_hardware(settings.hardware))
    return [one.with_facts(facts) for one in choose_entries(found, config.rank.count)]


def _of_search(folder: Path, config: Experiment, data: DataSet, space: Space) -> list[RankingEntry]:
    """Return entries for the genotype that a search derived and for the other best genotypes (rule `exact`) within the search's budgets.

    Raises InputError for a search on different data.
    """
    search = finished_search(folder / RunFile.ALPHAS, True, DeriveConfig(), space)
    _refuse_other_data(folder, search.skeleton, config, data)
    own = search.best(1).genotype
    best = search.best(max(2, config.rank.count)).candidates
    full, own_score = search.full, score(search.left, mean_weights(search.weights), own)
    derived = RankingEntry(own, full, (f"{folder} (derived)",), own_score, own=True)
    others = [RankingEntry(one.genotype, full, (str(folder),), one.score) for one in best]
    return [derived, *(one for one in others if one.cells != derived.cells)]


def _named(target: str | Genotype, space: Space) -> RankingEntry:
    """Return the entry of a genotype that the user names."""
    found = find_network(target, networks=False)
    genotype = found.the_genotype(space)
    own = space_for(genotype, space)
    built = replace(buildable(genotype, own, found.where), space=own.name)
    return RankingEntry(built, own, (found.where if isinstance(target, Genotype) else target,))


def _refuse_other_data(folder: Path, skeleton: Skeleton, config: Experiment, data: DataSet) -> None:
    """Raise InputError if a search, whose skeleton is `skeleton`, did not use the data of the ranking."""
    searched = resolve.experiment_of_run(folder)
    pairs = [(f"data.{name}", getattr(searched.data, name), getattr(config.data, name)) for name in ("name", "size")]
    pairs += [("images", skeleton.image, data.image), ("classes", skeleton.classes, data.classes)]
    # With data.fraction below 1, the images depend on the seed; with equal seeds, or full training sets, they must be equal.
    share = [(one.data.fraction, one.seed if one.data.fraction < 1 else 0) for one in (searched, config)]
    fingerprint = origin_of(folder / RunFile.CHECKPOINT).get("data set", "")
    if fingerprint and share[0] == share[1]:
        pairs.append(("fingerprint", fingerprint[:12], data.fingerprint[:12]))
    for name, theirs, ours in pairs:
        if theirs != ours:
            raise InputError(
                f"{shorten(str(folder))} did not use the data of this ranking ({name} {theirs}, not {ours});"
                " only runs on the same data can be ranked together."
            )

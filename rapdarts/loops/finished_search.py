"""A finished search, read from its folder: its mixing weights, settings and prices. Several can be combined into one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config import resolve
from rapdarts.config.command_options import DeriveConfig
from rapdarts.config.experiment import Experiment, SearchConfig
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.latency import LatencyTable
from rapdarts.cost.prices import prices
from rapdarts.deploy import skeletons
from rapdarts.deploy.space_lookup import Space, find_space, named_space, shipped_spaces
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile
from rapdarts.loops.search_record import provenance
from rapdarts.strategy.alphas import read_alphas, space_of_alphas
from rapdarts.strategy.derive import Derivation, derive, derive_jointly, where_infeasible
from rapdarts.strategy.foreign_alphas import fitting, is_foreign, read_arrays
from rapdarts.strategy.relaxation import mixing_weights
from rapdarts.strategy.replicas import mean_weights, on_common_candidates, replica_seeds
from rapdarts.strategy.rule import Rule, derivable, rule_of
from rapdarts.training.checkpoint import origin_of

OF_CONFIGURATION = ("config_sha256", "strategy", "seed", "seeds")
"""Facts about the configuration of a search that are unknown if another program ran the search."""


@dataclass(frozen=True)
class FinishedSearch:
    """Result of one finished search, or of several combined.

    `full` is the space that was searched, `left` the same space with the remaining candidates, and `weights` the mixing
    weights of each replica (kinds, edges, primitives). `settings` are the settings of the derivation, and `skeleton` is the
    skeleton for which costs are counted. `fingerprint` identifies the images; it is empty if the checkpoint is missing.
    `source` is the file name of a search by another program, and empty for a search by rapdarts. `latency` is a table
    that was measured because the settings do not name one.
    """

    config: Experiment
    settings: SearchConfig
    full: SearchSpace
    left: SearchSpace
    skeleton: Skeleton
    weights: list[np.ndarray]
    seeds: list[int]
    fingerprint: str = ""
    source: str = ""
    latency: LatencyTable | None = None

    @property
    def rule(self) -> Rule:
        """The rule that derives a genotype."""
        return rule_of(self.settings, self.full)

    @cached_property
    def table(self) -> PriceTable:
        """The price table for the skeleton."""
        return prices(self.settings, self.full, self.skeleton, measured=self.latency)

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance of a derived genotype."""
        facts = provenance(self.config, self.settings)
        if self.source:
            kept = {name: fact for name, fact in facts.items() if name not in OF_CONFIGURATION}
            return kept | {"alphas": self.source}
        return facts if len(self.seeds) == 1 else facts | {"seeds": self.seeds}

    def derive(self, count: int = 1) -> Derivation:
        """Derive the `count` best genotypes. Raises InputError if the budgets cannot be met."""
        with where_infeasible(self.full, self.left, self.table, self.rule):
            return derive_jointly(
                self.left, self.weights, self.table, self.rule, self.provenance, count, self.settings.epochs
            )

    def best(self, count: int) -> Derivation:
        """Derive the `count` best genotypes without computing the agreement of replicas. Raises the errors of `derive`."""
        with where_infeasible(self.full, self.left, self.table, self.rule):
            return derive(self.left, mean_weights(self.weights), self.table, self.rule, self.provenance, count)


def finished_search(file: Path, is_run: bool, options: DeriveConfig, space: Space) -> FinishedSearch:
    """Read the alphas.json of a search and the settings next to it, with the changes in `options`.

    `is_run` is True if the user passed the run folder, which must then have a configuration. The file may also hold arrays
    that another program wrote for `space`. Raises InputError.
    """
    if is_foreign(file) and not is_run:
        return _of_arrays(file, options, space)
    config = resolve.experiment_of_alphas(file, needed=is_run)
    settings = settings_of_run(config, options, file.parent)
    full = find_space(space, space_of_alphas(file))
    full = derivable(settings, full.only(settings.primitives) if settings.primitives else full)
    left, priced, architectures = read_alphas(file, full)
    if (options.layers or options.channels) and not options.latency and settings.budget.latency is None:
        settings = replace(settings, latency="")  # latency was measured at the run's skeleton only
    skeleton = skeletons.changed(priced, options.layers, options.channels)
    weights = [mixing_weights(one) for one in architectures]
    seeds = replica_seeds(config.seed, len(weights))
    fingerprint = origin_of(file.parent / RunFile.CHECKPOINT).get("data set", "")
    return FinishedSearch(config, settings, full, left, skeleton, weights, seeds, fingerprint)


def _of_arrays(file: Path, options: DeriveConfig, space: Space) -> FinishedSearch:
    """Return the search of another program, read from a file with its architecture parameters. Raises InputError."""
    if not file.is_file():
        raise InputError(f"there is no file {file}; check its path.")
    if space is None:
        words = fitting(file, {name: named_space(name) for name in shipped_spaces()})
        which = f"add {words}, which fits its arrays" if words else "add space=NAME or --space FILE"
        raise InputError(f"{file} does not name its search space; {which}.")
    own = find_space(space)
    config = Experiment()
    config = replace(config, search=replace(config.search, space=own.name))
    settings = settings_of_run(config, options, None)
    full = derivable(settings, own)
    skeleton = skeletons.changed(skeletons.of_space(full), options.layers, options.channels)
    weights = [mixing_weights(read_arrays(file, full))]
    return FinishedSearch(config, settings, full, full, skeleton, weights, [config.seed], source=file.name)


def together(searches: Sequence[FinishedSearch], words: Sequence[str]) -> FinishedSearch:
    """Combine several searches into one with all their replicas; `words` are the user's names for them.

    Raises InputError if their spaces, data or skeletons differ, or if a search is given twice.
    """
    first = searches[0]
    for word, other in zip(words[1:], searches[1:], strict=True):
        ours, theirs = _facts(first), _facts(other)
        for name, value in ours.items():
            if theirs[name] != value:
                raise InputError(
                    f"{shorten(word)} has {name} {theirs[name]}, but {shorten(words[0])} has {value}; only runs with the"
                    " same space, data set and skeleton can be averaged."
                )
        # With data.fraction below 1, the images depend on the seed; full training sets must be equal.
        known = first.fingerprint and other.fingerprint and first.config.data.fraction == 1
        if known and first.fingerprint != other.fingerprint:
            raise InputError(
                f"{shorten(word)} and {shorten(words[0])} used different images (fingerprints {other.fingerprint[:12]}"
                f" and {first.fingerprint[:12]}); only runs on the same data can be averaged."
            )
    learned = [(one.left, weights) for one in searches for weights in one.weights]
    for (one, weights), (another, others) in itertools.combinations(learned, 2):
        if one.candidates == another.candidates and np.array_equal(weights, others):
            raise InputError(
                "two of these searches have identical mixing weights; pass each search only once, and search with different seeds."
            )
    left, filled = on_common_candidates(*zip(*learned, strict=True))
    return replace(first, left=left, weights=filled, seeds=[seed for one in searches for seed in one.seeds])


def _facts(search: FinishedSearch) -> dict[str, Any]:
    """Return the settings that averaged searches must share, by name."""
    data, skeleton = search.config.data, search.skeleton
    return {
        "search.space": search.full.name,
        "search.primitives": list(search.config.search.primitives) or "all of the space",
        "data.name": data.name,
        "data.size": data.size,
        "data.fraction": data.fraction,
        "skeleton.layers": skeleton.layers,
        "skeleton.channels": skeleton.channels,
        "skeleton.stem": skeleton.stem,
        "image size": "x".join(map(str, skeleton.image)),
        "classes": skeleton.classes,
    }


def settings_of_run(config: Experiment, options: DeriveConfig, folder: Path | None) -> SearchConfig:
    """Return the settings of a search with the changes in `options`.

    Each budget can be changed on its own. Hardware and latency tables are read from the run folder, if there is one, unless
    other tables are given.
    """
    own = config.search
    tables = {"hardware": RunFile.HARDWARE, "latency": RunFile.LATENCY}
    files = {name: folder / file for name, file in tables.items()} if folder else {}
    kept = {name: str(files[name]) if os.path.isfile(files.get(name, "")) else getattr(own, name) for name in tables}
    given = {name: getattr(options, name) or kept[name] for name in tables}
    return replace(
        own,
        rule=options.rule or own.rule,
        max_skips=own.max_skips if options.max_skips < 0 else options.max_skips,
        skip_paths=options.skip_paths or own.skip_paths,
        spend=own.spend if options.spend < 0 else options.spend,
        precision=options.precision or own.precision,
        hardware=given["hardware"],
        latency="" if given["latency"] == "none" else given["latency"],
        budget=options.budget.over(own.budget),
    )

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
from rapdarts.deploy.space_lookup import Space, find_space
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile
from rapdarts.loops.search_record import provenance
from rapdarts.strategy.alphas import read_alphas, space_of_alphas
from rapdarts.strategy.derive import Derivation, derive, derive_jointly, where_infeasible
from rapdarts.strategy.relaxation import mixing_weights
from rapdarts.strategy.replicas import mean_weights, on_common_candidates, replica_seeds
from rapdarts.strategy.rule import Rule, derivable, rule_of
from rapdarts.training.checkpoint import origin_of


@dataclass(frozen=True)
class FinishedSearch:
    """Result of one finished search, or of several combined.

    `full` is the space that was searched, `left` the same space with the remaining candidates, and `weights` the mixing
    weights of each replica (kinds, edges, primitives). `settings` are those of the derivation, and `skeleton` is the one
    that prices refer to. `fingerprint` identifies the images; it is empty if the checkpoint is missing. `latency` is a
    table that was measured because the settings name none.
    """

    config: Experiment
    settings: SearchConfig
    full: SearchSpace
    left: SearchSpace
    skeleton: Skeleton
    weights: list[np.ndarray]
    seeds: list[int]
    fingerprint: str = ""
    latency: LatencyTable | None = None

    @property
    def rule(self) -> Rule:
        """The rule that derives a genotype."""
        return rule_of(self.settings, self.full)

    @cached_property
    def table(self) -> PriceTable:
        """The prices at the skeleton."""
        return prices(self.settings, self.full, self.skeleton, measured=self.latency)

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance of a derived genotype."""
        facts = provenance(self.config, self.settings)
        return facts if len(self.seeds) == 1 else facts | {"seeds": self.seeds}

    def derive(self, count: int = 1) -> Derivation:
        """Derive the `count` best genotypes. Raises InputError if the budgets cannot be met."""
        with where_infeasible(self.full, self.left, self.table, self.rule):
            return derive_jointly(
                self.left, self.weights, self.table, self.rule, self.provenance, count, self.settings.epochs
            )

    def best(self, count: int) -> Derivation:
        """Derive the `count` best genotypes without the agreement of replicas. Raises InputError as `derive` does."""
        with where_infeasible(self.full, self.left, self.table, self.rule):
            return derive(self.left, mean_weights(self.weights), self.table, self.rule, self.provenance, count)


def finished_search(file: Path, is_run: bool, options: DeriveConfig, space: Space) -> FinishedSearch:
    """Read the alphas.json of a search and the settings next to it, with the changes in `options`.

    `is_run` tells whether the user named the run folder, which must then have a configuration. Raises InputError.
    """
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


def together(searches: Sequence[FinishedSearch], words: Sequence[str]) -> FinishedSearch:
    """Combine several searches into one with all their replicas; `words` are the user's names for them.

    Raises InputError unless all have the same space, data and skeleton, and no search is given twice.
    """
    first = searches[0]
    for word, other in zip(words[1:], searches[1:], strict=True):
        ours, theirs = _facts(first), _facts(other)
        for name, value in ours.items():
            if theirs[name] != value:
                raise InputError(
                    f"{shorten(word)} has {name} {theirs[name]}, {shorten(words[0])} has {value}; only runs with the"
                    " same space, data set and skeleton can be averaged."
                )
        # With data.fraction below 1 the images depend on the seed; full training sets must be equal.
        known = first.fingerprint and other.fingerprint and first.config.data.fraction == 1
        if known and first.fingerprint != other.fingerprint:
            raise InputError(
                f"{shorten(word)} and {shorten(words[0])} searched on different images (fingerprints {other.fingerprint[:12]}"
                f" and {first.fingerprint[:12]}); only runs on the same data can be averaged."
            )
    learned = [(one.left, weights) for one in searches for weights in one.weights]
    for (one, weights), (another, others) in itertools.combinations(learned, 2):
        if one.candidates == another.candidates and np.array_equal(weights, others):
            raise InputError(
                "two of these searches have identical mixing weights; name each search once, and search with different seeds."
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


def settings_of_run(config: Experiment, options: DeriveConfig, folder: Path) -> SearchConfig:
    """Return the settings of a search with the changes in `options`.

    Each budget can be changed on its own. Hardware and latency tables are those in the run folder, unless others are given.
    """
    own = config.search
    tables = {"hardware": folder / RunFile.HARDWARE, "latency": folder / RunFile.LATENCY}
    kept = {name: str(path) if os.path.isfile(path) else getattr(own, name) for name, path in tables.items()}
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

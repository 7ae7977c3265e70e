"""Another genotype from a finished search: its architecture parameters, its settings and tables, and what a user changes of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rapdarts.config import resolve
from rapdarts.config.command_options import DeriveConfig
from rapdarts.config.experiment import Experiment, SearchConfig, budget_limits
from rapdarts.config.resources import within
from rapdarts.cost.prices import prices
from rapdarts.deploy import skeletons
from rapdarts.deploy.space_lookup import Space, find_space
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.launch import provenance
from rapdarts.strategy.budgets import skip_cap
from rapdarts.strategy.derive import (
    Derivation,
    derive,
    mixing_weights,
    read_alphas,
    space_of_alphas,
    where_infeasible,
)


def derive_again(
    file: Path, is_run: bool, options: DeriveConfig, space: Space, say: Callable[[str], object]
) -> Derivation:
    """Derive a genotype from the alphas.json that a search wrote, with what the options change.

    `is_run` says whether its run folder was named, whose configuration is then needed. Raises InputError.
    """
    config = resolve.experiment_of_alphas(file, needed=is_run)
    full = find_space(space, space_of_alphas(file))
    narrowed, priced, architecture = read_alphas(file, full)
    skeleton = skeletons.changed(priced, options.layers, options.channels)
    settings = settings_of_run(config, options, file.parent)
    limits = budget_limits(settings.budget)
    if limits and options.rule not in ("", "exact"):
        lift = " ".join(f"budget.{name}=none" for name in limits)
        raise InputError(f"rule={options.rule} knows no budgets; leave it out, or lift the budgets with {lift}.")
    if (options.layers or options.channels) and not options.latency and "latency" not in limits:
        settings = replace(settings, latency="")  # measured at the run's skeleton only
    if limits:
        say(f"looking for genotypes with {within(limits)}")
    table = prices(settings, full, skeleton)
    with where_infeasible(full, narrowed, table, limits, skip_cap(settings)):
        return derive(
            narrowed,
            mixing_weights(architecture),
            table,
            settings.rule,
            settings.max_skips,
            provenance(config, settings),
            limits,
            options.count,
        )


def settings_of_run(config: Experiment, options: DeriveConfig, folder: Path) -> SearchConfig:
    """Return the settings of a search with what a derivation changes: budgets one by one; tables as the run folder keeps them."""
    own = config.search
    tables = {"hardware": folder / RunFile.HARDWARE, "latency": folder / RunFile.LATENCY}
    kept = {name: str(path) if os.path.isfile(path) else getattr(own, name) for name, path in tables.items()}
    given = {name: getattr(options, name) or kept[name] for name in tables}
    return replace(
        own,
        rule=options.rule or own.rule,
        max_skips=own.max_skips if options.max_skips < 0 else options.max_skips,
        precision=options.precision or own.precision,
        hardware=given["hardware"],
        latency="" if given["latency"] == "none" else given["latency"],
        budget=options.budget.over(own.budget),
    )

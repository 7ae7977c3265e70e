"""Settings of a random baseline, taken from a search if `search.random.like` names one."""

from __future__ import annotations

import os
from dataclasses import replace

from rapdarts.config import resolve
from rapdarts.config.command_options import DeriveConfig
from rapdarts.config.experiment import Experiment, SearchConfig, budget_limits
from rapdarts.deploy.lookup import Found
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile
from rapdarts.loops.finished_search import settings_of_run
from rapdarts.strategy.rule import rule_name

KEPT = ("primitives", "rule", "max_skips", "derive_none", "skip_paths", "spend", "precision")
"""Settings that determine which cells a search can find; a baseline takes them from `search.random.like` and cannot change them."""


def as_searched(config: Experiment, like: Found) -> Experiment:
    """Return the experiment of a baseline with the settings of the search `like` that determine which cells it can find.

    These are the space and primitives, the cap on skips, the budgets, `spend`, and the settings for counting costs. If `like`
    is not a search, returns `config` unchanged. Raises InputError if the space, or a budget or KEPT setting given for the
    baseline, differs from that of the search.
    """
    folder = like.folder
    if folder is None or not os.path.isfile(folder / RunFile.ALPHAS):
        return config
    own = settings_of_run(resolve.experiment_of_run(folder), DeriveConfig(), folder)
    asked, kept = budget_limits(config.search.budget), budget_limits(own.budget)
    if own.space != config.search.space:
        raise InputError(
            f"search.random.like={shorten(str(folder))} searched the space {own.space}, not {config.search.space};"
            f" set space={own.space}."
        )
    if asked and asked != kept:
        raise InputError(f"search.random.like={shorten(str(folder))} already sets the budgets; remove search.budget.")
    defaults = SearchConfig()
    for name in KEPT:
        given = getattr(config.search, name)
        if given not in (getattr(defaults, name), getattr(own, name)):
            raise InputError(f"search.random.like={shorten(str(folder))} already sets search.{name}; remove it.")
    search = replace(own, strategy="random", rule=rule_name(own), random=config.search.random)
    config = replace(config, search=search)
    resolve.check_experiment(config)
    return config

"""Derivation of another genotype from finished searches, optionally with changed settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rapdarts.config.command_options import DeriveConfig
from rapdarts.config.key_values import differences
from rapdarts.config.resources import within
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.finished_search import finished_search, together
from rapdarts.loops.latency_first import measured_first
from rapdarts.strategy.derive import Derivation
from rapdarts.strategy.rule import check_skip_paths
from rapdarts.training.log import Screen


def derive_again(targets: Sequence[Path], options: DeriveConfig, space: Space, screen: Screen) -> Derivation:
    """Derive a genotype from the mixing weights of one search, or from the mean of several, with the changes in `options`.

    `targets` are run folders or their alphas.json files; the settings are those of the first. If there is a budget on
    latency but no table, a table is measured first. Raises InputError.
    """
    searches = [
        finished_search(target / RunFile.ALPHAS if target.is_dir() else target, target.is_dir(), options, space)
        for target in targets
    ]
    search = together(searches, [str(target) for target in targets]) if len(searches) > 1 else searches[0]
    for target, other in zip(targets[1:], searches[1:], strict=True):
        if changed := differences(searches[0].config.search, other.config.search):
            screen.say(f"the settings of {targets[0]} are used; those of {target} differ: {', '.join(changed)}")
    limits = search.rule.limits
    if limits and options.rule == "pdarts":
        none = " ".join(f"budget.{name}=none" for name in limits)
        raise InputError(
            f"rule={options.rule} does not support budgets; leave out rule, or remove the budgets with {none}."
        )
    if options.skip_paths:
        check_skip_paths(search.settings, search.full)
    if limits:
        screen.say(f"looking for genotypes with {within(limits)}")
    if "latency" in limits and not search.settings.latency:
        search = replace(search, latency=measured_first(search.full, search.skeleton, search.config.device, screen))
    return search.derive(options.count)

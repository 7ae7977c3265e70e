"""Another genotype from finished searches: what they learned, their settings and tables, and what a user changes of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rapdarts.config.command_options import DeriveConfig
from rapdarts.config.experiment import Experiment
from rapdarts.config.key_values import get, keys
from rapdarts.config.resources import within
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile
from rapdarts.loops.finished_search import finished_search, together
from rapdarts.strategy.derive import Derivation
from rapdarts.strategy.rule import check_skip_paths


def derive_again(
    targets: Sequence[Path], options: DeriveConfig, space: Space, say: Callable[[str], object]
) -> Derivation:
    """Derive a genotype from what one search learned, or from the mean of several, with what the options change.

    `targets` are run folders, or the alphas.json that they hold; the settings are those of the first. Raises InputError.
    """
    searches = [
        finished_search(target / RunFile.ALPHAS if target.is_dir() else target, target.is_dir(), options, space)
        for target in targets
    ]
    search = together(searches, [str(target) for target in targets]) if len(searches) > 1 else searches[0]
    for target, other in zip(targets[1:], searches[1:], strict=True):
        if different := differences(searches[0].config, other.config):
            say(f"{target} was searched with {different} than {targets[0]}, whose settings derive")
    limits = search.rule.limits
    if limits and options.rule == "pdarts":
        lift = " ".join(f"budget.{name}=none" for name in limits)
        raise InputError(f"rule={options.rule} knows no budgets; leave it out, or lift the budgets with {lift}.")
    if options.skip_paths:
        check_skip_paths(search.settings, search.full)
    if limits:
        say(f"looking for genotypes with {within(limits)}")
    return search.derive(options.count)


def differences(first: Experiment, other: Experiment) -> str:
    """Return the settings of two searches that differ, in words; nothing where none do."""
    names = [key.name for key in keys(Experiment) if key.name.startswith("search.")]
    changed = [name for name in names if get(first, name) != get(other, name)]
    return f"other values of {', '.join(changed)}" if changed else ""

"""Settings of a ranking: the experiment of its first search with a short recipe. This module does not import torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rapdarts.architecture.genotype import Genotype
from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment, budget_limits
from rapdarts.config.key_values import get, keys
from rapdarts.config.presets import RECIPES
from rapdarts.config.resolve import Pairs, keys_given_in
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile, part_of

COUNTS = ("search.precision", "search.hardware")
"""Keys of a search that control the counting of costs; they also apply to a ranking."""

SHOWN = ("macs", "params")
"""Costs that a ranking always shows, before those with a price or a budget."""


def experiment_of_ranking(folder: Path, pairs: Pairs) -> tuple[Experiment, bool]:
    """Return the experiment of the search in a folder, changed by a short recipe and then by `pairs`, and a flag.

    The flag tells whether `pairs` set the hardware. Raises InputError for a key that does not apply to a ranking.
    """
    names = keys_given_in("search", pairs, "rank")
    check_keys(dict(pairs), names)
    presets = short_presets(resolve.experiment_of_run(folder))
    config = resolve.resolve_experiment(str(folder / RunFile.CONFIG), [*presets, *pairs], "rank")
    return config, "search.hardware" in names.values()


def searches(targets: Sequence[str | Genotype]) -> list[Path]:
    """Return the targets that are folders of finished searches. Raises InputError if there are none."""
    folders = [part_of(Path(one), "search") for one in targets if not isinstance(one, Genotype)]
    runs = [folder for folder in folders if os.path.isfile(folder / RunFile.ALPHAS)]
    if not targets:
        raise InputError("rapdarts rank needs the folder of a finished search; pass at least one.")
    if not runs:
        words = [one for one in targets if not isinstance(one, Genotype)]
        folder = next((word for word in words if os.path.isdir(word)), words[0] if words else "a genotype")
        raise InputError(
            f"{shorten(folder)} is not the folder of a finished search (no {RunFile.ALPHAS}); pass at least one such"
            " folder, because rapdarts rank uses its data and recipe."
        )
    return runs


def check_keys(given: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raise InputError for a key of the search that does not apply to a ranking; `names` maps the `given` keys to full names."""
    for key, name in names.items():
        if name.startswith("search.budget."):
            raise InputError(
                f"rapdarts rank uses each search's own budgets and does not accept {key}=; derive another genotype"
                f" (rapdarts derive RUN {key}={given[key]} out=FILE; in Python, rapdarts.derive) and pass it in addition to the runs."
            )
    idle = [f"{key}=" for key, name in names.items() if name not in COUNTS]
    if idle:
        raise InputError(f"rapdarts rank does not search; leave out {', '.join(idle)}.")


def short_presets(own: Experiment) -> list[tuple[str, Any]]:
    """Return the settings that a ranking changes in its experiment: the recipe `fast`, unless the search's recipe is at least as short.

    A recipe may also set the skeleton and the crops, but a ranking keeps those of the search.
    """
    if own.retrain.epochs <= RECIPES["fast"]["retrain.epochs"]:
        return []
    kept = [key.name for key in keys(Experiment) if key.name.startswith(("skeleton.", "data."))]
    return [("retrain.recipe", "fast"), *((name, get(own, name)) for name in kept)]


def resources_shown(config: Experiment, counted: Sequence[str]) -> list[str]:
    """Return the resources to show: MACs and parameters, then those with a price or a budget."""
    priced = {name for name, price in vars(config.search.cost).items() if price}
    priced |= budget_limits(config.search.budget).keys()
    return [*SHOWN, *(name for name in counted if name in priced - {*SHOWN})]

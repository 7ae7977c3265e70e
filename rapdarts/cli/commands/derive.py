"""TODO."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from rapdarts.cli.arguments import Call
from rapdarts.cli.naming import costs_line, space_asked
from rapdarts.cli.output import answer, say, write
from rapdarts.config import experiment as configuration
from rapdarts.config import knobs, resolve
from rapdarts.config.commands import DeriveConfig
from rapdarts.config.experiment import Experiment, SearchConfig
from rapdarts.config.units import within
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile


def derive(call: Call) -> None:
    call.expect(1)
    target = Path(call.target("the folder of a finished search, or its alphas.json"))
    options = knobs.parse_settings(DeriveConfig, call.pairs)
    from rapdarts.cost.prices import prices
    from rapdarts.loops.launch import provenance
    from rapdarts.strategy.budgets import skip_cap
    from rapdarts.strategy.derive import derive as derive_genotype
    from rapdarts.strategy.derive import mixing_weights, read_alphas, space_of_alphas, where_infeasible

    is_run = os.path.isdir(target)
    if not is_run and not os.path.isfile(target):
        what = shorten(str(target))
        raise InputError(f"there is no {what}; give the folder of a finished search, or its alphas.json.")
    file = target / RunFile.ALPHAS if is_run else target
    config = resolve.experiment_of_alphas(file, needed=is_run)
    full = space_asked(space_of_alphas(file), call.space)
    space, skeleton, architecture = read_alphas(file, full)
    skeleton = replace(
        skeleton, layers=options.layers or skeleton.layers, channels=options.channels or skeleton.channels
    )
    settings = derived_from(config, options, file.parent)
    limits = configuration.budget_limits(settings.budget)
    if limits and options.rule not in ("", "exact"):
        lift = " ".join(f"budget.{name}=none" for name in limits)
        raise InputError(f"rule={options.rule} knows no budgets; leave it out, or lift the budgets with {lift}.")
    if (options.layers or options.channels) and not options.latency and "latency" not in limits:
        settings = replace(settings, latency="")  # measured at the run's skeleton only
    if limits:
        say(f"looking for genotypes with {within(limits)}")
    table = prices(settings, full, skeleton)
    with where_infeasible(full, space, table, limits, skip_cap(settings)):
        derivation = derive_genotype(
            space,
            mixing_weights(architecture),
            table,
            settings.rule,
            settings.max_skips,
            provenance(config, settings),
            limits,
            options.count,
        )
    lines = [f"rule: {derivation.rule}", derivation.genotype.line, costs_line(derivation.genotype.costs)]
    if options.count > 1:
        lines[1] = f"1. score {derivation.candidates[0].score:.4f}: {lines[1]}"
    for number, other in enumerate(derivation.candidates[1 : options.count], 2):
        lines.append(f"{number}. score {other.score:.4f}: {other.genotype.line}\n   {costs_line(other.genotype.costs)}")
    if options.out:
        write(options.out, derivation.genotype.to_json())
        lines.append(f"written to {options.out}")
    answer(call, _best_first(derivation.candidates_json()), "\n".join(lines))


def derived_from(config: Experiment, options: DeriveConfig, folder: Path) -> SearchConfig:
    """The settings of a search with what a derivation changes: budgets one by one; tables as the run folder keeps them."""
    from rapdarts.loops.launch import HARDWARE_KEPT, LATENCY_KEPT

    own = config.search
    tables = {"hardware": folder / HARDWARE_KEPT, "latency": folder / LATENCY_KEPT}
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


def _best_first(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The derived candidate, then the others by their scores; without one (a weight of 0), last."""
    return sorted(candidates, key=lambda one: (not one["chosen"], one["score"] is None, -(one["score"] or 0)))

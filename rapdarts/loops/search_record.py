"""The record of a search: the facts and pictures of an epoch, and the report of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rapdarts.config.experiment import SearchConfig
from rapdarts.config.resources import RESOURCES
from rapdarts.cost.count import count_derived
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import Penalty
from rapdarts.cost.prices import counters
from rapdarts.strategy.derive import Derivation
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.run import Run

SHOWN = ("train_loss", "train_accuracy", "search_loss", "search_accuracy")
"""Facts of an epoch that are printed while the search runs, before the costs; metrics.jsonl has all of them."""


def cost_report(derivation: Derivation, table: PriceTable, settings: SearchConfig, run: Run) -> dict[str, Any]:
    """Return the outcome of a search as plain values, for result.json.

    Its costs are those expected of the mixture, those of the genotype, and those counted in the genotype's network.
    """
    space = table.space
    genotype, last = derivation.genotype, run.records()[-1]
    resources = counters(settings)
    return {
        "rule": derivation.rule,
        "genotype": genotype.line,
        "expected": {name: last[f"expected_{name}"] for name in RESOURCES if f"expected_{name}" in last},
        "priced": dict(genotype.costs),
        "counted": count_derived(genotype, space, derivation.skeleton, resources),
        "budgets": dict(derivation.budgets),
        "used": derivation.used,
        "notes": list(table.notes),
        "train_accuracy": last["train_accuracy"],
        "search_loss": last["search_loss"],
        "seconds": run.seconds(),
    }


def shown(limits: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of the facts to print: losses and accuracies, and the costs of the resources with a budget, or else the MACs."""
    facts = ("expected", "realised", *(["multiplier"] if limits else []))
    return (*SHOWN, *(f"{fact}_{name}" for name in limits or ("macs",) for fact in facts))


def cost_facts(
    architecture: Architecture, penalty: Penalty, realised: Mapping[str, float], run: Run
) -> dict[str, float]:
    """Return the costs of an epoch for its record.

    These are the expected costs of the mixture, the `realised` costs of its genotype, the multipliers, and the ratio of
    the price's gradient norm to that of the task.
    """
    with torch.no_grad():
        expected = penalty.expected(architecture()).tolist()
    facts = {f"expected_{name}": cost for name, cost in zip(penalty.resources, expected, strict=True)}
    facts |= {f"realised_{name}": cost for name, cost in realised.items()}
    facts |= {f"multiplier_{name}": multiplier for name, multiplier in penalty.multipliers.items()}
    means = run.meter.means()
    if means.get("task_gradient"):
        facts["gradient_ratio"] = means["price_gradient"] / means["task_gradient"]
    return facts


def heat_map(weights: Tensor) -> Any:
    """Return mixing weights (kinds, edges, primitives) as a picture (h, w, 3) uint8, black to yellow.

    A row is an edge (normal cells above reduction cells), a column a primitive.
    """
    level = weights.detach().float().cpu().flatten(0, 1)
    level = level / level.max()
    colours = torch.stack([(2 * level).clamp(0, 1), (2 * level - 0.6).clamp(0, 1), 0.3 * (1 - level)], -1)
    return (255 * colours).to(torch.uint8).repeat_interleave(16, 0).repeat_interleave(24, 1).numpy()

"""TODO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rapdarts.config.experiment import SearchConfig
from rapdarts.config.units import RESOURCES
from rapdarts.cost.count import count_derived
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.penalty import Penalty
from rapdarts.cost.prices import counters
from rapdarts.strategy.derive import Derivation
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.run import Run

SHOWN = ("train_loss", "train_accuracy", "search_loss", "search_accuracy")
"""What of an epoch's record is said while the search runs, before the costs; metrics.jsonl has all of it."""


def cost_report(derivation: Derivation, table: PriceTable, settings: SearchConfig, run: Run) -> dict[str, Any]:
    """What a search found, as plain values: the expected cost of the mixture, that of the genotype, and the network's counted cost."""
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
    """What of an epoch's record is said: how well it goes, and what the resources with a budget cost, or else the MACs."""
    facts = ("expected", "realised", *(["multiplier"] if limits else []))
    return (*SHOWN, *(f"{fact}_{name}" for name in limits or ("macs",) for fact in facts))


def cost_facts(
    architecture: Architecture, penalty: Penalty, realised: Mapping[str, float], run: Run
) -> dict[str, float]:
    """For the log: expected costs of the mixture, realised costs of its genotype, multipliers, and how hard the price pulls."""
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
    """The mixing weights as a picture (h, w, 3) uint8: a row an edge (normal above reduction), a column a primitive, black to yellow."""
    share = weights.detach().float().cpu().flatten(0, 1)
    share = share / share.max()
    colours = torch.stack([(2 * share).clamp(0, 1), (2 * share - 0.6).clamp(0, 1), 0.3 * (1 - share)], -1)
    return (255 * colours).to(torch.uint8).repeat_interleave(16, 0).repeat_interleave(24, 1).numpy()

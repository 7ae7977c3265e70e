"""The record of a search: the values and images of each epoch, and the report on the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rapdarts.architecture.space import SearchSpace
from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment, SearchConfig
from rapdarts.config.resources import RESOURCES
from rapdarts.cost.count import count_derived, deployment_facts
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.own_resources import own_counters
from rapdarts.cost.penalty import Penalty
from rapdarts.cost.prices import counters, read_hardware
from rapdarts.strategy.agreement import entropy, margin
from rapdarts.strategy.derive import Derivation
from rapdarts.strategy.relaxation import Architecture, mixing_weights
from rapdarts.strategy.replicas import replica_seeds
from rapdarts.training.meter import Sum
from rapdarts.training.run import Run
from rapdarts.version import __version__

SHOWN = ("train_loss", "train_accuracy", "search_loss", "search_accuracy")
"""Values of an epoch that are printed during the search, before the costs; metrics.jsonl has all values."""


def cost_report(derivation: Derivation, table: PriceTable, settings: SearchConfig, run: Run) -> dict[str, Any]:
    """Return the outcome of a search as plain values, for result.json.

    It includes the expected costs of the mixture, the costs of the genotype from the price table, and the costs counted in the
    genotype's network.
    """
    space = table.space
    genotype, last = derivation.genotype, last_epoch(run.records())
    resources = {**counters(settings), **own_counters(space)}
    names = [*RESOURCES, *space.resources]
    return {
        "rule": derivation.rule,
        "genotype": genotype.line,
        "expected": {name: last[f"expected_{name}"] for name in names if f"expected_{name}" in last},
        "priced": dict(genotype.costs),
        "counted": count_derived(genotype, space, derivation.skeleton, resources),
        "budgets": dict(derivation.budgets),
        "used": derivation.used,
        "certainty": {
            "entropy": derivation.entropy,
            "margin": derivation.margin,
            "agreement": derivation.agreement.facts() if derivation.agreement else None,
        },
        "notes": [*filter(None, [derivation.remark, certainty_in_words(derivation)]), *table.notes],
        "train_accuracy": last.get("train_accuracy"),
        "search_loss": last.get("search_loss"),
        "seconds": run.seconds(),
    }


def certainty_in_words(derivation: Derivation, effort: float = 0.0) -> str:
    """Return a sentence on how likely another search is to make the same choices; `effort` is that of `rapdarts find`, if it searches."""
    if derivation.agreement:
        return derivation.agreement.words(derivation.epochs, effort)
    return (
        f"the entropy of the mixing weights is {100 * derivation.entropy:.1f} % of the entropy of equal weights."
        " A single search cannot show whether another one would make the same choices; use"
        f" {'find' if effort else 'search'}.replicas=3 to find out"
    )


def last_epoch(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the record of the last epoch, or the mean of the last records of several replicas, which may stop at different epochs.

    A record lacks the means of an epoch in which every update was skipped.
    """
    last = [*{one.get("replica"): one for one in records}.values()]
    values: dict[str, list[Any]] = {}
    for record in last:
        for name, value in record.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) if len(found) > 1 else found[0] for name, found in values.items()}


def provenance(config: Experiment, settings: SearchConfig) -> dict[str, Any]:
    """Return the provenance of a genotype, including the settings for counting its costs."""
    return {
        **deployment_facts(settings.precision, read_hardware(settings.hardware)),
        "config_sha256": resolve.config_digest(config),
        "strategy": config.search.strategy,
        "seed": config.seed,
        **({"seeds": replica_seeds(config.seed, settings.replicas)} if settings.replicas > 1 else {}),
        "rapdarts": __version__,
        "torch": torch.__version__,
    }


def shown(limits: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of the values to print: losses, accuracies, and costs in the resources with a budget (default: MACs)."""
    facts = ("expected", "realised", *(["multiplier"] if limits else []))
    return (*SHOWN, *(f"{fact}_{name}" for name in limits or ("macs",) for fact in facts))


def cost_facts(
    architecture: Architecture, penalty: Penalty, realised: Mapping[str, float], run: Run
) -> dict[str, float]:
    """Return the costs of an epoch for its record.

    These are the expected costs of the mixture, the `realised` costs of its genotype, the multipliers, and the ratio of the
    price's gradient norm to that of the task loss.
    """
    with torch.no_grad():
        expected = penalty.expected(architecture.expected()).tolist()
    facts = {f"expected_{name}": cost for name, cost in zip(penalty.resources, expected, strict=True)}
    facts |= {f"realised_{name}": cost for name, cost in realised.items()}
    facts |= {f"multiplier_{name}": multiplier for name, multiplier in penalty.multipliers.items()}
    means = run.meter.means()
    if means.get("task_gradient"):
        facts["gradient_ratio"] = means["price_gradient"] / means["task_gradient"]
    return facts


def certainty(space: SearchSpace, architecture: Architecture, initial: Tensor) -> dict[str, float]:
    """Return the entropy and the margin of the mixing weights, and how far alpha is from `initial`, for the record of an epoch.

    These are the root mean square of alpha around the mean of each edge, and the number of edges whose largest alpha among
    the candidates is another one. Both alphas are (kinds, edges, primitives).
    """
    weights, alpha = mixing_weights(architecture), architecture.alpha.detach()
    mask = architecture.mask & (architecture.mask.sum(-1, keepdim=True) > 1)
    means = alpha.where(mask, 0).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1)
    deviations = (alpha - means)[mask]
    before, now = (values.where(mask, -torch.inf).argmax(-1) for values in (initial, alpha))
    return {
        "entropy": entropy(space, weights),
        "margin": margin(space, weights),
        "alpha_rms": deviations.square().mean().sqrt().item() if len(deviations) else 0.0,
        "winners_changed": int((before != now).sum()),
    }


def observed(half: str, loss: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Sum]:
    """Return the loss and accuracy of a batch from one half, as sums over its images.

    `loss` is a scalar, `logits` are (n, classes), `labels` are (n,).
    """
    correct = (logits.argmax(1) == labels).sum()
    return {f"{half}_loss": (loss.detach() * len(labels), len(labels)), f"{half}_accuracy": (correct, len(labels))}


def norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the joint Euclidean norm, a scalar, of tensors of any shape."""
    return torch.stack([gradient.norm() for gradient in gradients]).norm()


def heat_map(weights: Tensor) -> Any:
    """Return mixing weights (kinds, edges, primitives) as an image (h, w, 3) of uint8, from black to yellow.

    Each row is an edge (normal cells above reduction cells), each column a primitive.
    """
    level = weights.detach().float().cpu().flatten(0, 1)
    level = level / level.max()
    colours = torch.stack([(2 * level).clamp(0, 1), (2 * level - 0.6).clamp(0, 1), 0.3 * (1 - level)], -1)
    return (255 * colours).to(torch.uint8).repeat_interleave(16, 0).repeat_interleave(24, 1).numpy()

"""Part `agreement`: check that both supernets compute the same on a device, before anything is timed on it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.optimizer import autocast, to_device
from tests.benchmarks.turns import say, table

LAYERS, CHANNELS, IMAGE, CLASSES, BATCH = 3, 16, (3, 16, 16), 10, 16
SPACES = ("darts", "filters")
KINDS = {"float64": (torch.float64, "none"), "float32": (torch.float32, "none"), "bf16": (torch.float32, "bf16")}
"""Precisions: the type of weights and images, and the search's `amp`. In float64, which our kernels do not support, torch's kernels run."""

EXACT = 1e-10
"""Largest relative difference allowed in float64."""

TIMES = 3
"""In lower precision, the batched supernet may differ from float64 this many times as much as the plain one: it sums in another order."""

SLACK = {"logits": 1e-5, "gradients": 0.05}
"""Smallest tolerance in lower precision: rounding may change the sign of a ReLU's input, and therefore gradients."""

FLOOR = 1e-3
"""The difference of a gradient is divided by its norm, or by this share of the largest norm, since a norm may be almost zero."""


def measure(device: torch.device) -> dict[str, Any]:
    """Return the relative differences of both supernets on `device` from the plain one in float64 on the CPU, and whether both agree."""
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        spaces = {space: _space(space, device) for space in SPACES}
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
    return {"spaces": spaces, "agrees": all(row["agrees"] for kinds in spaces.values() for row in kinds.values())}


def _space(name: str, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    space = named_space(name)
    plain = Supernet(space, Skeleton(LAYERS, CHANNELS, IMAGE, CLASSES))
    batched = BatchedSupernet(plain)
    alpha, images = Architecture(space, 0.5), torch.randn(BATCH, *IMAGE)
    exact = results(deepcopy(plain).double(), alpha, images.double())
    kinds = {}
    for kind, (dtype, amp) in KINDS.items():
        say(f"agreement: {name}, {kind}")
        given = images.to(device, dtype)
        rows = {
            "plain": differences(results(to_device(deepcopy(plain), device).to(dtype), alpha, given, amp), exact),
            "batched": differences(results(to_device(deepcopy(batched), device).to(dtype), alpha, given, amp), exact),
        }
        kinds[kind] = {**rows, "agrees": agree(**rows, exactly=dtype is torch.float64)}
    return kinds


def agree(plain: Mapping[str, float], batched: Mapping[str, float], exactly: bool) -> bool:
    """Return whether the batched supernet is as close to float64 as its precision allows; NaN never agrees."""
    return all(
        batched[name] <= (EXACT if exactly else max(TIMES * plain[name], SLACK.get(name, SLACK["gradients"])))
        for name in plain
    )


def results(
    supernet: Supernet | BatchedSupernet, alpha: Architecture, images: Tensor, amp: str = "none"
) -> dict[str, Tensor]:
    """Return the logits, and the gradients of a loss for alpha, the images and every weight, under the plain supernet's names."""
    architecture = deepcopy(alpha).to(images.device, images.dtype)
    x = images.detach().requires_grad_()
    labels = torch.arange(len(x), device=x.device) % CLASSES
    with autocast(amp, x):
        logits = supernet.train()(x, architecture())
        loss = cross_entropy(logits, labels)
    named = {name: weight for name, weight in supernet.named_parameters() if weight.requires_grad}
    of_alpha, of_images, *others = torch.autograd.grad(
        loss, [next(architecture.parameters()), x, *named.values()], allow_unused=True
    )
    weights = under_plain_names(supernet, dict(zip(named, others, strict=True)))
    return {"logits": logits.detach(), "alpha": of_alpha, "images": of_images, **weights}


def under_plain_names(
    supernet: Supernet | BatchedSupernet, gradients: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Return the gradients of a supernet's weights under their names in the plain supernet, or zeros for weights without a gradient.

    For a batched supernet, its unchanged batch statistics are included.
    """
    holder = deepcopy(supernet)
    with torch.no_grad():
        for name, weight in holder.named_parameters():
            weight.zero_()
            if (gradient := gradients.get(name)) is not None:
                weight.copy_(gradient)
    if isinstance(holder, Supernet):
        return {name: weight.detach() for name, weight in holder.named_parameters()}
    return holder.plain_state()


def differences(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> dict[str, float]:
    """Return relative differences from `exact`: of the logits, and of the gradients for alpha, images, all weights and the worst weight."""
    pairs = {name: (found[name].double().cpu(), value.double().cpu()) for name, value in exact.items()}
    off = {name: (ours - theirs).norm() for name, (ours, theirs) in pairs.items()}
    norms = {name: theirs.norm() for name, (_, theirs) in pairs.items()}
    named = ("logits", "alpha", "images")
    weights = [name for name in exact if name not in named]
    both = torch.stack([torch.stack([off[name], norms[name]]) for name in weights])  # (weights, 2)
    floor = FLOOR * both[:, 1].max()
    return {
        **{name: float(off[name] / norms[name]) for name in named},
        "weights": float(both[:, 0].norm() / both[:, 1].norm()),
        "worst weight": float((both[:, 0] / both[:, 1].clamp_min(floor)).max()),
    }


def report(figures: Mapping[str, Any]) -> str:
    """Return the relative differences as a table."""
    spaces = figures["spaces"]
    names = list(next(iter(next(iter(spaces.values())).values()))["plain"])
    lines = [["relative difference from the plain supernet in float64 on the CPU", *names, ""]]
    for space, kinds in spaces.items():
        for kind, rows in kinds.items():
            for build in ("plain", "batched"):
                said = "" if build == "plain" else "agrees" if rows["agrees"] else "DISAGREES"
                lines.append([f"{space}, {kind}, {build}", *(f"{rows[build][name]:.1e}" for name in names), said])
    return table(lines)

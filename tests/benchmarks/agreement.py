"""Part `agreement`: whether both supernets compute the same on the device at hand, before anything is timed there."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rapdarts.networks.batched import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.space import Skeleton, named_space
from rapdarts.strategy.architecture import Architecture
from rapdarts.training.descent import place
from tests.benchmarks.turns import say, table

LAYERS, CHANNELS, IMAGE, CLASSES, BATCH = 3, 16, (3, 16, 16), 10, 16
KINDS = {"float64": torch.float64, "float32": torch.float32}
"""Arithmetic of the batched supernet; the plain one always computes in float64, on the CPU."""


def measure(device: torch.device) -> dict[str, Any]:
    """Relative differences of loss and gradients (alpha, images, all weights), batched on `device` from plain in float64 on the CPU."""
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return {
            space: {kind: _differences(space, KINDS[kind], device) for kind in KINDS} for space in ("darts", "filters")
        }
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32


def _differences(name: str, kind: torch.dtype, device: torch.device) -> dict[str, float]:
    say(f"agreement: {name}, {kind}")
    torch.manual_seed(0)
    space = named_space(name)
    plain = Supernet(space, Skeleton(LAYERS, CHANNELS, IMAGE, CLASSES))
    batched = place(BatchedSupernet(plain), device).to(kind)
    architecture, images = Architecture(space, 0.5), torch.randn(BATCH, *IMAGE, dtype=torch.float64)
    exact = _results(plain.double(), architecture, images)
    found = _results(batched, architecture, images.to(device, kind))
    return {what: float((found[what].cpu() - exact[what]).norm() / exact[what].norm()) for what in exact}


def _results(supernet: Any, alpha: Architecture, images: Tensor) -> dict[str, Tensor]:
    """Loss and gradients, in float64; those of the weights, which one supernet stacks and the other does not, as their joint norm."""
    architecture = deepcopy(alpha).to(images.device, images.dtype)
    x = images.detach().requires_grad_()
    labels = torch.arange(len(x), device=x.device) % CLASSES
    loss = cross_entropy(supernet.train()(x, architecture()), labels)
    of_alpha, of_images, *weights = torch.autograd.grad(
        loss, [next(architecture.parameters()), x, *supernet.parameters()], allow_unused=True
    )
    norm = torch.stack([g.double().norm() for g in weights if g is not None]).norm()
    named = {"loss": loss, "alpha": of_alpha, "images": of_images, "weights": norm}
    return {what: value.detach().double() for what, value in named.items()}


def report(figures: Mapping[str, Any]) -> str:
    """Relative differences as a table."""
    names = list(next(iter(next(iter(figures.values())).values())))
    lines = [["relative difference from plain in float64 on the CPU", *names]]
    for space, kinds in figures.items():
        lines += [[f"{space}, {kind}", *(f"{found[name]:.1e}" for name in names)] for kind, found in kinds.items()]
    return table(lines)

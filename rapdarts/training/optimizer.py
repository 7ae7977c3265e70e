"""Optimisers: SGD, its learning rate, and one step along gradients that were computed before; the network on its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def to_device(network: Network, device: torch.device) -> Network:
    """Move a network to its device, with channels-last weights: the faster order on CPUs and tensor cores."""
    network.to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Save nothing for the gradients of the network's weights in what is computed inside."""
    trainable = [weight for weight in network.parameters() if weight.requires_grad]
    try:
        for weight in trainable:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


def autocast(amp: str, images: Tensor) -> AbstractContextManager[None]:
    """Return the autocast of a network: bfloat16 where it is safe, if `amp` is bf16. Alpha, losses and prices are not cast."""
    if amp == "none":
        return nullcontext()
    # A weight is used once in a pass, so there is nothing to gain from keeping what was cast.
    return torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False)


def sgd_for(
    network: nn.Module, lr: float, momentum: float, weight_decay: float, nesterov: bool = False
) -> torch.optim.Optimizer:
    """Return SGD with momentum over a network's named weights, so that a resume can match each momentum to its weight."""
    named = network.named_parameters()
    return torch.optim.SGD(named, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate, in a tensor on the device, which a replayed CUDA graph reads again."""
    for group in optimizer.param_groups:
        weight = group["params"][0]
        if not isinstance(group["lr"], Tensor) or group["lr"].device != weight.device:
            group["lr"] = torch.zeros((), device=weight.device)
        group["lr"].fill_(lr)


def optimizer_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], clip: float
) -> None:
    """Clip the gradients to a joint norm of `clip` (0: not at all) and take one step."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if clip > 0:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad()

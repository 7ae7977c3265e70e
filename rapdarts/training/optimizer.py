"""Optimisation: SGD, its learning rate, a step along given gradients, mixed precision, and moving a network to its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from rapdarts.training.guard import Verdict

Network = TypeVar("Network", bound=nn.Module)


def to_device(network: Network, device: torch.device) -> Network:
    """Move a network to a device, with channels-last weights, the faster memory format on CPUs and tensor cores."""
    network.to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Freeze the weights of a network in the body of the `with` statement, so that nothing is saved for their gradients."""
    trainable = [weight for weight in network.parameters() if weight.requires_grad]
    try:
        for weight in trainable:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


def autocast(amp: str, images: Tensor) -> AbstractContextManager[None]:
    """Return the autocast context for a network and its images (b, c, h, w): bfloat16 where it is safe, if `amp` is bf16.

    Use it for the network only: alpha, losses and prices are not cast.
    """
    if amp == "none":
        return nullcontext()
    # A weight is used once per pass, so caching its cast saves nothing.
    return torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False)


def sgd_for(
    network: nn.Module, lr: float, momentum: float, weight_decay: float, nesterov: bool = False
) -> torch.optim.Optimizer:
    """Return SGD with momentum over a network's named weights; a resumed run matches each momentum to its weight by name."""
    named = network.named_parameters()
    return torch.optim.SGD(named, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate in a tensor on the device, which a CUDA graph reads at every replay."""
    for group in optimizer.param_groups:
        weight = group["params"][0]
        if not isinstance(group["lr"], Tensor) or group["lr"].device != weight.device:
            group["lr"] = torch.zeros((), device=weight.device)
        group["lr"].fill_(lr)


def optimizer_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    clip: float,
    verdict: Verdict,
) -> None:
    """Clip the gradients to a joint norm of `clip` (0: no clipping) and take one step, unless the verdict is to skip it.

    Each gradient has the shape of its parameter, or is None. The optimiser must be a fused one, which decides on the device.
    """
    # If fused SGD skips the first step of a weight, it leaves its momentum uninitialised. With zeros, that step is the same.
    given = optimizer.defaults
    momentum = isinstance(optimizer, torch.optim.SGD) and given["fused"] and given["momentum"] > 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
        if momentum and gradient is not None and optimizer.state[parameter].get("momentum_buffer") is None:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    if clip > 0:
        nn.utils.clip_grads_with_norm_(parameters, clip, verdict.norm)
    optimizer.found_inf = (~verdict.kept).float()  # type: ignore[attr-defined]  # the way of torch's gradient scaler
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]
    optimizer.zero_grad()

"""The second-order gradient of the search loss with respect to alpha, through one virtual step of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Loss = Callable[[Weights], Tensor]
"""A loss as a function of the supernet's weights by name; alpha enters through the closure."""


def unrolled_gradient(
    train_loss: Loss,
    search_loss: Loss,
    weights: Weights,
    alpha: Sequence[Tensor],
    lr: float | Tensor,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    velocity: Weights | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Return search_loss(w', alpha) and its gradients with respect to alpha.

    Here, w' = w - lr * (momentum * v + d train_loss/d w + weight_decay * w). This is Eq. 7 of Liu et al. 2019; the
    second-order product is the central difference of their Eq. 8, with epsilon = 0.01 / norm. The loss is a scalar; the
    gradients have the shapes of `alpha`, tensors of any shape. `velocity` holds the momentum buffers v by name, with the
    shapes of the weights; missing buffers count as zero. The arguments are not modified.

    Every evaluation of the training loss uses the same random numbers from torch's generators. With different dropout
    masks, the two sides of the difference would differ by far more than epsilon.
    """
    names = list(weights)
    devices = sorted({w.get_device() for w in weights.values() if w.is_cuda})
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    step = torch.autograd.grad(train_loss(weights), [weights[name] for name in names], allow_unused=True)
    moved: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, gradient in zip(names, step, strict=True):
            w = weights[name]
            direction = weight_decay * w if gradient is None else gradient + weight_decay * w
            if velocity is not None and name in velocity:
                direction = direction + momentum * velocity[name]
            moved[name] = (w - lr * direction).requires_grad_()

    loss = search_loss(moved)
    gradients = torch.autograd.grad(loss, [*alpha, *moved.values()], allow_unused=True)
    direct = [torch.zeros_like(a) if g is None else g for a, g in zip(alpha, gradients, strict=False)]
    vector = {name: g for name, g in zip(names, gradients[len(alpha) :], strict=True) if g is not None}

    norm = torch.sqrt(torch.stack([v.double().square().sum() for v in vector.values()]).sum())
    epsilon = 0.01 / norm.clamp_min(1e-12)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            near = {
                name: (w + sign * epsilon * vector[name] if name in vector else w).requires_grad_()
                for name, w in ((name, weights[name].detach()) for name in names)
            }
        with torch.random.fork_rng(devices):
            torch.set_rng_state(states[0])
            for device, state in zip(devices, states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            sides.append(torch.autograd.grad(train_loss(near), alpha))
    return loss.detach(), [
        g - lr * (plus - minus) / (2 * epsilon) for g, plus, minus in zip(direct, *sides, strict=True)
    ]

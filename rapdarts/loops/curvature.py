"""The curvature of the search loss in alpha, by which a search may stop early."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call

from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.early_stop import dominant_eigenvalue
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.class_weights import mean_loss
from rapdarts.training.optimizer import frozen


def curvature(
    supernet: Supernet | BatchedSupernet,
    architecture: Architecture,
    batch: tuple[Tensor, Tensor],
    seed: int,
    balance: Tensor | None = None,
) -> float:
    """Return the dominant eigenvalue of the Hessian of the search loss in alpha, at the expected mixing weights.

    `batch` holds images (n, c, h, w) and labels (n,) of the search half; `seed` determines the dropout masks, which are the
    same in all evaluations, and the start of the power iteration. The supernet's running statistics do not change.
    """
    (images, labels), fixed = batch, architecture.expected().detach()
    buffers = {name: buffer.clone() for name, buffer in supernet.named_buffers()}

    def gradient(alpha: Tensor) -> Tensor:
        alpha = alpha.detach().requires_grad_()
        torch.manual_seed(seed)
        mixing = replace(fixed, weights=architecture.expected(alpha).weights)
        with frozen(supernet):
            logits = functional_call(supernet, buffers, (images, mixing))
            (slope,) = torch.autograd.grad(mean_loss(logits, labels, balance), [alpha])
        return slope

    alpha = architecture.alpha.detach()
    start = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(seed)).to(alpha)
    return dominant_eigenvalue(gradient, alpha, start * architecture.mask)

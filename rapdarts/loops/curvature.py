"""The curvature of the search loss with respect to alpha, which is used for early stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.early_stop import largest_eigenvalue
from rapdarts.strategy.relaxation import Architecture
from rapdarts.training.class_weights import mean_loss
from rapdarts.training.optimizer import frozen


def curvature(
    supernet: Supernet,
    architecture: Architecture,
    batch: tuple[Tensor, Tensor],
    balance: Tensor | None = None,
    pause: Callable[[], object] = lambda: None,
) -> float:
    """Return the largest eigenvalue of the Hessian of the search loss with respect to alpha, at the expected mixing weights.

    `batch` holds images (n, c, h, w) and labels (n,) of the search half. `pause` is called between the products
    with the Hessian. Updates the running statistics of the supernet.
    """
    images, labels = batch
    alpha = architecture.alpha.detach().clone().requires_grad_()
    mixing = replace(architecture.expected().detach(), weights=architecture.expected(alpha).weights)
    with frozen(supernet):
        loss = mean_loss(supernet(images, mixing), labels, balance)
        (slope,) = torch.autograd.grad(loss, alpha, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        pause()
        return torch.autograd.grad(slope, alpha, vector, retain_graph=True)[0]

    start = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(0)).to(alpha)
    return largest_eigenvalue(product, start * architecture.mask)


def plain_copy(
    supernet: Supernet | BatchedSupernet, space: SearchSpace, skeleton: Skeleton, partial: int = 1
) -> Supernet:
    """Return a plain supernet with the weights of `supernet`, but without dropout.

    It is needed for second derivatives, because the operations of the batched supernet have first derivatives only.
    """
    state = supernet.plain_state() if isinstance(supernet, BatchedSupernet) else supernet.state_dict()
    plain = Supernet(space, skeleton, partial).to(next(supernet.parameters()))
    plain.load_state_dict(state, strict=False)
    return plain

"""Architecture parameters, and the mixing weights that a relaxation computes from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rapdarts.architecture.space import Mixing, SearchSpace
from rapdarts.config.relaxation import RelaxationConfig
from rapdarts.strategy.relaxations.base import Relaxation
from rapdarts.strategy.relaxations.softmax import Softmax


class Architecture(nn.Module):
    """Architecture parameters alpha (kinds, edges, primitives), shared by all cells of a kind.

    Calling the module returns the mixing weights of a training step, which the `relaxation` (default: softmax) may draw at
    random; `expected` returns deterministic mixing weights. Closed candidates have entries in alpha, but weight 0 and no gradient.
    With `edge_normalization`, there are also parameters beta (kinds, edges). A softmax of beta over the edges into a node gives
    the weights of these edges (Xu et al. 2020, section 3.3). The initial alpha and beta are normally distributed with mean 0 and
    standard deviation `deviation`.
    """

    mask: Tensor

    def __init__(
        self,
        space: SearchSpace,
        deviation: float = 1e-3,
        edge_normalization: bool = False,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__()
        mask = torch.as_tensor(space.mask)
        self.alpha = nn.Parameter(deviation * torch.randn(mask.shape))
        self.beta: nn.Parameter | None = None
        if edge_normalization:
            self.beta = nn.Parameter(deviation * torch.randn(mask.shape[:2]))
        self.register_buffer("mask", mask, persistent=False)
        self.into = [space.inputs + node for node in range(space.nodes)]  # number of edges into each node
        self.relaxation = relaxation or Softmax(RelaxationConfig())

    def forward(self) -> Mixing:
        return Mixing(self.relaxation(self.alpha, self.mask), self._edges())

    def expected(self, alpha: Tensor | None = None) -> Mixing:
        """Return the deterministic mixing weights of `alpha` (default: the parameters), for prices, pruning, derivation and logs."""
        alpha = self.alpha if alpha is None else alpha
        return Mixing(self.relaxation.expected(alpha, self.mask), self._edges())

    def regularized(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return `gradients`, one for each parameter, with the gradient of the regulariser added if the relaxation has one."""
        loss = self.relaxation.regularizer(self.alpha, self.mask)
        if loss is None:
            return gradients
        (own,) = torch.autograd.grad(loss, [self.alpha])
        return [gradients[0] + own, *gradients[1:]]

    def _edges(self) -> Tensor | None:
        """Return the edge weights (kinds, edges), or None without edge normalisation."""
        if self.beta is None:
            return None
        return torch.cat([torch.softmax(beta, -1) for beta in self.beta.split(self.into, -1)], -1)


def mixing_weights(architecture: Architecture) -> np.ndarray:
    """Return the expected mixing weights times the edge weights, as an array (kinds, edges, primitives) of float64."""
    with torch.no_grad():
        return np.asarray(architecture.expected().joint.double().cpu().numpy())

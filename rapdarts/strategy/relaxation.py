"""Architecture parameters, and their mixing weights by a relaxation."""

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

    Calling it gives the mixing weights of a training step, which a `relaxation` (default: softmax) may draw at random;
    `expected` gives deterministic ones. Closed candidates have entries in alpha, but no weight and no gradient. With
    `edge_normalization`, there are also parameters beta (kinds, edges); their softmax over the edges into a node weights these
    edges (Xu et al. 2020, section 3.3). Both are initialised with normally distributed numbers of standard deviation `deviation`.
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
        """Return the mixing weights that price, pruning, derivation and record use; `alpha` replaces the parameters."""
        alpha = self.alpha if alpha is None else alpha
        return Mixing(self.relaxation.expected(alpha, self.mask), self._edges())

    def regularized(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return gradients, one for each parameter, plus those of the relaxation's regulariser, if it has one."""
        loss = self.relaxation.regularizer(self.alpha, self.mask)
        if loss is None:
            return gradients
        (own,) = torch.autograd.grad(loss, [self.alpha])
        return [gradients[0] + own, *gradients[1:]]

    def _edges(self) -> Tensor | None:
        """Return the edge weights (kinds, edges), if there are any."""
        if self.beta is None:
            return None
        return torch.cat([torch.softmax(beta, -1) for beta in self.beta.split(self.into, -1)], -1)


def mixing_weights(architecture: Architecture) -> np.ndarray:
    """Return the expected mixing weights times the edge weights, as an array (kinds, edges, primitives) of float64."""
    with torch.no_grad():
        return np.asarray(architecture.expected().joint.double().cpu().numpy())

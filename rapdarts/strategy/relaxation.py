"""Architecture parameters and their relaxation to mixing weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rapdarts.architecture.space import Mixing, SearchSpace


class Architecture(nn.Module):
    """Architecture parameters alpha (kinds, edges, primitives), shared by all cells of a kind.

    The mixing weights are the softmax of alpha over the open candidates of an edge (Liu et al. 2019, Eq. 2). Closed
    candidates have entries in alpha, but no weight and no gradient. With `edge_normalization`, there are also parameters
    beta (kinds, edges); their softmax over the edges into a node weights these edges (Xu et al. 2020, section 3.3). Both are
    initialised with normally distributed numbers of standard deviation `deviation`.
    """

    mask: Tensor

    def __init__(self, space: SearchSpace, deviation: float = 1e-3, edge_normalization: bool = False) -> None:
        super().__init__()
        mask = torch.as_tensor(space.mask)
        self.alpha = nn.Parameter(deviation * torch.randn(mask.shape))
        self.beta: nn.Parameter | None = None
        if edge_normalization:
            self.beta = nn.Parameter(deviation * torch.randn(mask.shape[:2]))
        self.register_buffer("mask", mask, persistent=False)
        self.into = [space.inputs + node for node in range(space.nodes)]  # number of edges into each node

    def forward(self) -> Mixing:
        weights = torch.softmax(self.alpha.masked_fill(~self.mask, -torch.inf), -1)
        if self.beta is None:
            return Mixing(weights)
        return Mixing(weights, torch.cat([torch.softmax(beta, -1) for beta in self.beta.split(self.into, -1)], -1))


def mixing_weights(architecture: Architecture) -> np.ndarray:
    """Return the mixing weights times the edge weights of an architecture, as an array (kinds, edges, primitives) of float64."""
    with torch.no_grad():
        return np.asarray(architecture().joint.double().cpu().numpy())

"""Architecture parameters: what is learned of the choice, and how it becomes mixing weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rapdarts.architecture.space import Mixing, SearchSpace


class Architecture(nn.Module):
    """alpha (kinds, edges, primitives), shared by all cells of a kind; the mixing weights are its softmax over an edge's open candidates.

    (Liu et al. 2019, Eq. 2.) Entries of closed candidates exist but have no weight and no gradient. With
    `edge_normalization` there is also beta (kinds, edges), whose softmax over the edges into a node weighs these (Xu et
    al. 2020, section 3.3). Both begin as `deviation` times normal numbers.
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
        self.into = [space.inputs + node for node in range(space.nodes)]  # how many edges go into each node

    def forward(self) -> Mixing:
        weights = torch.softmax(self.alpha.masked_fill(~self.mask, -torch.inf), -1)
        if self.beta is None:
            return Mixing(weights)
        return Mixing(weights, torch.cat([torch.softmax(beta, -1) for beta in self.beta.split(self.into, -1)], -1))


def mixing_weights(architecture: Architecture) -> np.ndarray:
    """Return the mixing weights of an architecture, edge weights multiplied in, as a plain array (kinds, edges, primitives), float64."""
    with torch.no_grad():
        return np.asarray(architecture().joint.double().cpu().numpy())

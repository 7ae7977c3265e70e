"""Architecture parameters: what is learned of the choice, and how it becomes mixing weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rapdarts.space import Mixing, SearchSpace


class Architecture(nn.Module):
    """alpha (kinds, edges, primitives), shared by all cells of a kind; the mixing weights are its softmax over an edge's open candidates.

    (Liu et al. 2019, Eq. 2.) Entries of closed candidates exist but have no weight and no gradient.
    """

    mask: Tensor

    def __init__(self, space: SearchSpace, deviation: float = 1e-3) -> None:
        super().__init__()
        mask = torch.as_tensor(space.mask)
        self.alpha = nn.Parameter(deviation * torch.randn(mask.shape))
        self.register_buffer("mask", mask, persistent=False)

    def forward(self) -> Mixing:
        return Mixing(torch.softmax(self.alpha.masked_fill(~self.mask, -torch.inf), -1))

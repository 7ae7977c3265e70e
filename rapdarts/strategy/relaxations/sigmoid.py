"""The relaxation of FairDARTS, in which candidates do not compete."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.strategy.relaxations.base import Relaxation


class Sigmoid(Relaxation):
    """Independent gates sigmoid(alpha) of shape (kinds, edges, primitives) (FairDARTS: Chu et al. 2020).

    The zero-one loss of the paper, -zero_one * mean((sigmoid(alpha) - 1/2)^2) over the open candidates, moves the gates to 0 or 1.
    The gates of an edge need not sum to 1, because prices and derivation only compare the gates of a node with each other.
    The expected cost assumes that the edges of a node are drawn in proportion to the sums of their gates, and the primitive of an
    edge in proportion to its gate. It therefore does not change if all gates into a node shrink by the same factor.
    """

    name = "sigmoid"
    edge_weights = False
    is_softmax = False

    def expected(self, alpha: Tensor, mask: Tensor) -> Tensor:
        return torch.sigmoid(alpha) * mask

    def regularizer(self, alpha: Tensor, mask: Tensor) -> Tensor | None:
        if self.settings.zero_one == 0:
            return None
        distances = (torch.sigmoid(alpha) - 0.5).square() * mask
        return -self.settings.zero_one * distances.sum() / mask.sum()

"""The relaxation of FairDARTS: candidates do not compete."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.strategy.relaxations.base import Relaxation


class Sigmoid(Relaxation):
    """An independent gate sigmoid(alpha) for each of (kinds, edges, primitives) (FairDARTS: Chu et al. 2020).

    Their zero-one loss, -zero_one * mean((sigmoid(alpha) - 1/2)^2) over the open candidates, moves the gates to 0 or 1.
    The gates of an edge do not sum to 1, and need not: price and derivation compare the gates of a node with each other.
    E[cost] draws a node's edges with probabilities proportional to the sums of their gates, and the primitive of an edge in
    proportion to its gate, so it does not change if all gates into a node shrink by the same factor.
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

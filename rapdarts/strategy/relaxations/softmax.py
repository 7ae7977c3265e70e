"""The relaxation of DARTS."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.strategy.relaxations.base import Relaxation


class Softmax(Relaxation):
    """The softmax of alpha (kinds, edges, primitives) over the open candidates of an edge (Liu et al. 2019, Eq. 2)."""

    name = "softmax"

    def expected(self, alpha: Tensor, mask: Tensor) -> Tensor:
        return torch.softmax(alpha.masked_fill(~mask, -torch.inf), -1)

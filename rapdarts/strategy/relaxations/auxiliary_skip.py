"""The auxiliary skip of DARTS-."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.strategy.relaxations.base import Extended, Relaxation


class AuxiliarySkip(Extended):
    """A relaxation with an auxiliary skip, which has a weight that falls linearly to 0 (DARTS-: Chu et al. 2021).

    A mixed operation computes weight * x + sum_o m_o * o(x), with mixing weights m (kinds, edges, primitives). The auxiliary
    skip stabilises the training, so that the skip candidate does not have to. It is part of training steps only, not of the
    expected weights. Because the skip candidate computes the auxiliary skip, the latter exists only on edges where this
    candidate is open, and shares its skip dropout and, at stride 2, its weights.
    """

    weight: Tensor
    is_skip: Tensor

    def __init__(self, inner: Relaxation, is_skip: Tensor) -> None:
        """Wrap `inner`; `is_skip` (primitives,) is 1 for the skip and 0 for all others."""
        super().__init__(inner)
        self.register_buffer("weight", torch.tensor(self.settings.auxiliary_skip), persistent=False)
        self.register_buffer("is_skip", is_skip, persistent=False)

    def forward(self, alpha: Tensor, mask: Tensor) -> Tensor:
        weights: Tensor = self.inner(alpha, mask)
        return weights + self.weight * self.is_skip * mask

    def begin(self, progress: float) -> None:
        super().begin(progress)
        self.weight.fill_(self.settings.auxiliary_skip * (1 - progress))

"""The regulariser of beta-DARTS."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.strategy.relaxations.base import Extended, Relaxation


class BetaDecay(Extended):
    """A relaxation with the Beta-Decay regulariser (beta-DARTS: Ye et al. 2022).

    It adds weight * mean over edges of log(sum over the open candidates of exp(alpha)) to the loss for alpha, where alpha
    is (kinds, edges, primitives). The weight rises linearly from 0. The gradient is weight / edges * softmax(alpha): the stronger
    a candidate, the more its alpha decays.
    """

    weight: Tensor

    def __init__(self, inner: Relaxation) -> None:
        super().__init__(inner)
        self.register_buffer("weight", torch.tensor(0.0), persistent=False)

    def regularizer(self, alpha: Tensor, mask: Tensor) -> Tensor | None:
        decay = self.weight * torch.logsumexp(alpha.masked_fill(~mask, -torch.inf), -1).mean()
        own = self.inner.regularizer(alpha, mask)
        return decay if own is None else decay + own

    def begin(self, progress: float) -> None:
        super().begin(progress)
        self.weight.fill_(self.settings.beta_decay * progress)

"""The relaxation of GDAS and SNAS, which draws one candidate per edge."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.config.relaxation import RelaxationConfig
from rapdarts.strategy.relaxations.base import Relaxation


class Gumbel(Relaxation):
    """The Gumbel-softmax: softmax((alpha + g) / T) with Gumbel noise g, both (kinds, edges, primitives), and a temperature T.

    With `hard`, the candidate with the largest alpha + g has weight 1 and the others 0, and the gradient is that
    of the softmax (GDAS: Dong and Yang 2019). Without `hard`, the softmax itself is the sample (SNAS: Xie et al. 2019). The
    temperature falls linearly during a stage, as in GDAS. Candidate o has the largest alpha + g with probability
    softmax(alpha)_o (Gumbel 1954), so the expected weights are the softmax of alpha at every temperature.
    """

    name = "gumbel"
    temperature: Tensor

    def __init__(self, settings: RelaxationConfig) -> None:
        super().__init__(settings)
        self.register_buffer("temperature", torch.tensor(settings.temperature[0]), persistent=False)

    def expected(self, alpha: Tensor, mask: Tensor) -> Tensor:
        return torch.softmax(alpha.masked_fill(~mask, -torch.inf), -1)

    def forward(self, alpha: Tensor, mask: Tensor) -> Tensor:
        exponential = torch.empty_like(alpha).exponential_().clamp_min(torch.finfo(alpha.dtype).tiny)
        logits = (alpha - exponential.log()) / self.temperature
        soft = torch.softmax(logits.masked_fill(~mask, -torch.inf), -1)
        if not self.settings.hard:
            return soft
        hard = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard + (soft - soft.detach())  # the difference is exactly 0, so the weights are exactly 0 and 1

    def begin(self, progress: float) -> None:
        first, last = self.settings.temperature
        self.temperature.fill_(first + (last - first) * progress)

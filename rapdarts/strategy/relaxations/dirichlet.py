"""The relaxation of DrNAS, which draws mixing weights from a Dirichlet distribution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Gamma

from rapdarts.strategy.relaxations.base import Relaxation

SMALLEST = 1e-3
"""Smallest concentration, reached at alpha = -6.9; it keeps weights and gradients finite."""


class Dirichlet(Relaxation):
    """Mixing weights drawn from Dirichlet(elu(alpha) + 1), with pathwise gradients (DrNAS: Chen et al. 2021).

    Each edge has its own distribution; alpha is (kinds, edges, primitives).

    The expected weights are the mean of the distribution, c / sum(c) with the concentrations c = elu(alpha) + 1. By default,
    DrNAS penalises the L2 distance of alpha from 0, which is the uniform distribution. The weight decay of alpha
    (`search.alpha_weight_decay`) has the same gradient, so there is no separate regulariser.
    """

    name = "dirichlet"
    is_softmax = False

    def expected(self, alpha: Tensor, mask: Tensor) -> Tensor:
        concentration = _concentration(alpha) * mask
        return concentration / concentration.sum(-1, keepdim=True)

    def forward(self, alpha: Tensor, mask: Tensor) -> Tensor:
        """Return normalised gamma variates, drawn as logarithms because small variates would underflow in float32.

        If G is a gamma variate of shape c + 1 and U is uniform, G * U^(1/c) is a gamma variate of shape c (Marsaglia and
        Tsang 2000, section 6).
        """
        shape = _concentration(alpha.masked_fill(~mask, 0.0))  # a closed alpha must not change later random numbers
        above = Gamma(shape + 1, torch.ones_like(shape), validate_args=False).rsample()
        logarithms = above.log() + torch.log1p(-torch.rand_like(shape)) / shape
        return torch.softmax(logarithms.masked_fill(~mask, -torch.inf), -1)


def _concentration(alpha: Tensor) -> Tensor:
    """Return elu(alpha) + 1, without the rounding error of the sum for negative alphas."""
    return torch.where(alpha > 0, alpha + 1, alpha.clamp_max(0).exp()).clamp_min(SMALLEST)

"""Mixing weights for tests, from given or random alpha."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.architecture.space import Mixing, SearchSpace


def mixing_at(alpha: Tensor) -> Mixing:
    return Mixing(torch.softmax(alpha, -1))


def random_alpha(space: SearchSpace, deviation: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return deviation * torch.randn(space.mask.shape, generator=generator, dtype=torch.float64)

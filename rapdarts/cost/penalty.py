"""How costs enter the loss of the architecture: dimensionless coefficients on expected costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rapdarts.cost.expected import PriceTable
from rapdarts.space import Mixing


def uniform(mask: np.ndarray) -> Mixing:
    """Equal weights on the open candidates of every edge; `mask` is (kinds, edges, primitives)."""
    return Mixing(torch.as_tensor(mask / mask.sum(-1, keepdims=True)))


class Penalty:
    """Sum over resources of coefficient x E[cost] / reference, where the reference is E[cost] at uniform mixing over the full space.

    So a coefficient of 1 weighs the whole cost of the uniform mixture like one nat of cross-entropy, in any unit
    and at any skeleton.
    """

    def __init__(self, table: PriceTable, coefficients: Mapping[str, float]) -> None:
        self.table = table
        self.reference = table.expected(uniform(table.space.mask))
        self.coefficients = torch.tensor([coefficients.get(name, 0.0) for name in table.resources], dtype=torch.float64)

    def __call__(self, mixing: Mixing) -> Tensor:
        """The penalty of a mixing, a scalar in nats; float64."""
        device = mixing.weights.device
        cost = self.table.expected(mixing) / self.reference.to(device)
        return (self.coefficients.to(device) * cost).sum()

"""Penalty on expected costs in the loss of the architecture parameters: fixed coefficients and automatically adjusted multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rapdarts.architecture.space import Mixing
from rapdarts.cost.expected import ExpectedCost, PriceTable


def uniform_mixing(mask: np.ndarray) -> Mixing:
    """Return a mixing with equal weights on the primitives that `mask` (kinds, edges, primitives) allows on each edge."""
    return Mixing(torch.as_tensor(mask / mask.sum(-1, keepdims=True)))


class Penalty:
    """Penalty on the costs of a mixing: the sum over resources of (coefficient + multiplier) x E[cost] / reference.

    The reference is E[cost] of the uniform mixing over the full space. With a coefficient of 1, the penalty on the uniform mixing
    is therefore one nat, like a cross-entropy of 1, regardless of unit and skeleton. A resource with a budget has a multiplier of
    at least 0. It grows by dual ascent (Boyd and Vandenberghe, "Convex Optimization", 2004, section 5.5) while a network costs
    more than the budget, and shrinks by a factor while the network costs less.
    """

    def __init__(
        self,
        table: PriceTable,
        coefficients: Mapping[str, float],
        budgets: Mapping[str, float] | None = None,
        rate: float = 0.5,
        device: torch.device | str = "cpu",
    ) -> None:
        self.budgets, self.rate = dict(budgets or {}), rate
        self.multipliers = dict.fromkeys(self.budgets, 0.0)
        self.expected = ExpectedCost(table, torch.device(device), peak=coefficients.get("peak_memory", 0) > 0)
        self.resources = self.expected.resources
        self.reference = self.expected(Mixing(uniform_mixing(table.space.mask).weights.to(device)))
        self.weights = torch.zeros_like(self.reference)
        self._coefficients = [coefficients.get(name, 0.0) for name in self.resources]
        self._weigh()

    def __call__(self, mixing: Mixing) -> Tensor:
        """Return the penalty of a mixing in nats, a scalar float64."""
        return self.weights @ self.expected(mixing)

    def adjust(self, costs: Mapping[str, float]) -> None:
        """Adjust the multipliers to a network's costs.

        If a cost is above its budget, the multiplier grows by rate x (cost / budget - 1). Otherwise, it is multiplied by
        (cost / budget)^4, so it soon vanishes once the network fits the budget. docs/evidence.md compares other rules.
        """
        for name, budget in self.budgets.items():
            share = costs[name] / budget
            if share < 1:
                self.multipliers[name] *= share**4
            else:
                self.multipliers[name] += self.rate * (share - 1)
        self._weigh()

    def state_dict(self) -> dict[str, Any]:
        return {"multipliers": dict(self.multipliers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.multipliers = dict(state["multipliers"])
        self._weigh()

    def _weigh(self) -> None:
        """Set the weight of each resource on the device to (coefficient + multiplier) / reference, in nats per unit of the resource."""
        total = [
            coefficient + self.multipliers.get(name, 0.0)
            for name, coefficient in zip(self.resources, self._coefficients, strict=True)
        ]
        # Updated in place, because the CUDA graph of a step reads this tensor.
        self.weights.copy_(torch.tensor(total, dtype=torch.float64).to(self.reference.device) / self.reference)

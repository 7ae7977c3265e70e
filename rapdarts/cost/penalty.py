"""How costs enter the loss of the architecture: dimensionless coefficients on expected costs, some of which are adjusted automatically."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rapdarts.architecture.space import Mixing
from rapdarts.cost.expected import ExpectedCost, PriceTable


def uniform_mixing(mask: np.ndarray) -> Mixing:
    """Return equal weights on the open candidates of every edge; `mask` is (kinds, edges, primitives)."""
    return Mixing(torch.as_tensor(mask / mask.sum(-1, keepdims=True)))


class Penalty:
    """The part of the loss due to the costs of a mixing: sum over resources of (coefficient + multiplier) x E[cost] / reference.

    The reference is E[cost] at uniform mixing over the full space, so that a coefficient of 1 weighs the whole cost
    of the uniform mixture like one nat of cross-entropy, in any unit and at any skeleton. A resource with a budget has
    a multiplier, which rises while a network costs more than its budget and falls while it costs less: dual ascent
    (Boyd and Vandenberghe, "Convex Optimization", 2004, section 5.5), never below 0.
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
        """Return the penalty of a mixing, a scalar in nats; float64."""
        return self.weights @ self.expected(mixing)

    def ascend(self, costs: Mapping[str, float]) -> None:
        """Take one step of every multiplier, by how far a network's costs are above or below their budgets."""
        for name, budget in self.budgets.items():
            self.multipliers[name] = max(0.0, self.multipliers[name] + self.rate * (costs[name] / budget - 1))
        self._weigh()

    def state_dict(self) -> dict[str, Any]:
        return {"multipliers": dict(self.multipliers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.multipliers = dict(state["multipliers"])
        self._weigh()

    def _weigh(self) -> None:
        """Write coefficients and multipliers, divided by the references, to the device: nats for a unit of each resource."""
        total = [
            coefficient + self.multipliers.get(name, 0.0)
            for name, coefficient in zip(self.resources, self._coefficients, strict=True)
        ]
        # In place: the CUDA graph of a step reads this tensor.
        self.weights.copy_(torch.tensor(total, dtype=torch.float64).to(self.reference.device) / self.reference)

"""The penalty on expected costs in the architecture's loss: fixed coefficients, and multipliers that are adjusted automatically."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rapdarts.architecture.space import Mixing
from rapdarts.cost.expected import ExpectedCost, PriceTable


def uniform_mixing(mask: np.ndarray) -> Mixing:
    """Return equal weights on the open candidates of every edge, (kinds, edges, primitives) like `mask`."""
    return Mixing(torch.as_tensor(mask / mask.sum(-1, keepdims=True)))


class Penalty:
    """The part of the loss due to the costs of a mixing: sum over resources of (coefficient + multiplier) x E[cost] / reference.

    The reference is E[cost] at uniform mixing over the full space. A coefficient of 1 therefore gives the
    whole cost of the uniform mixture the weight of one nat of cross-entropy, whatever the unit and the skeleton. A resource with a budget
    has a multiplier of at least 0, which rises while a network costs more than the budget, by dual ascent (Boyd and
    Vandenberghe, "Convex Optimization", 2004, section 5.5), and shrinks by a factor while it costs less.
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

    def adjust(self, costs: Mapping[str, float]) -> None:
        """Adjust the multipliers to a network's costs.

        Above a budget, add rate x (cost / budget - 1). Below it, multiply by (cost / budget)^4, so that the
        multiplier soon vanishes once the network fits; docs/evidence.md compares other rules.
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
        """Write (coefficient + multiplier) / reference of each resource to the device, in nats per unit of the resource."""
        total = [
            coefficient + self.multipliers.get(name, 0.0)
            for name, coefficient in zip(self.resources, self._coefficients, strict=True)
        ]
        # Updated in place, because the CUDA graph of a step reads this tensor.
        self.weights.copy_(torch.tensor(total, dtype=torch.float64).to(self.reference.device) / self.reference)

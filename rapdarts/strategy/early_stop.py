"""Early stopping of a search by the curvature of its loss in alpha."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

ITERATIONS = 20
"""Number of steps of the power iteration."""


def dominant_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """Return the eigenvalue of largest magnitude of a symmetric matrix, by power iteration.

    `product` multiplies the matrix by a vector, a tensor of the shape of `start`.
    """
    vector, value = start / start.norm(), torch.zeros(())
    for _ in range(ITERATIONS):
        image = product(vector)
        value = (vector * image).sum()
        vector = image / image.norm().clamp_min(1e-12)
    return value.item()


class EarlyStop:
    """Stop of a stage before its alphas collapse (RobustDARTS: Zela et al. 2020, section 4).

    With m(i) the mean of the dominant eigenvalue over the last `window` epochs, the search stops after epoch i if
    m(i - window) / m(i) < `ratio`, and returns the alphas of epoch i - window.
    """

    def __init__(self, ratio: float, window: int) -> None:
        self.ratio, self.window = ratio, window
        self.values: list[float] = []
        self.states: list[dict[str, Tensor]] = []
        self.stopped = False

    def observe(self, value: float, architecture: torch.nn.Module) -> bool:
        """Return whether to stop after an epoch with this eigenvalue; if so, restore the parameters to return."""
        self.values.append(value)
        copied = {name: parameter.clone() for name, parameter in architecture.state_dict().items()}
        self.states = [*self.states, copied][-self.window - 1 :]
        if len(self.values) < 2 * self.window:
            return False
        before, now = (np.mean(part) for part in np.split(np.array(self.values[-2 * self.window :]), 2))
        self.stopped = bool(before < self.ratio * now)
        if self.stopped:
            architecture.load_state_dict(self.states[0])
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values), "states": list(self.states), "stopped": self.stopped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.states, self.stopped = list(state["values"]), list(state["states"]), state["stopped"]

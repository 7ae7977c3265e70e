"""Early stopping of a search, based on the curvature of its loss with respect to alpha."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

FEW, ACCURACY = 8, 1e-3
"""Largest size of a matrix that is built and diagonalised, and relative accuracy of the eigenvalue for larger matrices."""


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """Return the largest eigenvalue of a symmetric matrix, by the method of Lanczos (1950), starting from the vector `start`.

    `product` multiplies the matrix by a vector, given as a tensor with the shape of `start`. Power iteration is not used,
    because it finds the eigenvalue with the largest magnitude, which may be negative.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    def by_vector(vector: np.ndarray) -> np.ndarray:
        image = product(torch.from_numpy(vector.reshape(start.shape)).to(start))
        return np.asarray(image.detach().double().cpu().numpy().ravel())

    size = start.numel()
    if size <= FEW:
        return float(np.linalg.eigvalsh(np.stack([by_vector(row) for row in np.eye(size)]))[-1])
    operator = LinearOperator((size, size), matvec=by_vector, dtype=np.float64)
    first = start.detach().double().cpu().numpy().ravel()
    return float(eigsh(operator, k=1, which="LA", v0=first, tol=ACCURACY, return_eigenvectors=False)[0])


class EarlyStop:
    """Early stopping of a stage before its alphas collapse (RobustDARTS: Zela et al. 2020, section 4).

    Let m(i) be the mean of the largest eigenvalue over the `window` epochs up to epoch i. The stage stops after epoch i if
    m(i - window) / m(i) < `ratio` and m(i) > 0, and returns the alphas of epoch i - window.
    """

    def __init__(self, ratio: float, window: int) -> None:
        self.ratio, self.window = ratio, window
        self.values: list[float] = []
        self.states: list[dict[str, Tensor]] = []
        self.stopped = False

    def observe(self, value: float, architecture: torch.nn.Module) -> bool:
        """Record the eigenvalue of an epoch and return whether to stop; if so, restore the parameters of `window` epochs earlier."""
        self.values.append(value)
        copied = {name: parameter.clone() for name, parameter in architecture.state_dict().items()}
        self.states = [*self.states, copied][-self.window - 1 :]
        if len(self.values) < 2 * self.window:
            return False
        before, now = (np.mean(part) for part in np.split(np.array(self.values[-2 * self.window :]), 2))
        self.stopped = bool(now > 0 and before < self.ratio * now)
        if self.stopped:
            architecture.load_state_dict(self.states[0])
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values), "states": list(self.states), "stopped": self.stopped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values, self.states, self.stopped = list(state["values"]), list(state["states"]), state["stopped"]

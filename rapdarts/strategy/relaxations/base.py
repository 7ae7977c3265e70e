"""Base classes of all relaxations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from rapdarts.config.relaxation import RelaxationConfig


class Relaxation(nn.Module, ABC):
    """A map from architecture parameters alpha to the mixing weights of candidates, both (kinds, edges, primitives).

    A training step calls the module, which may draw random numbers from torch's generator; the training loop seeds it before
    every step. Prices, pruning, derivation and logs use `expected`, which is deterministic. `mask` has the same shape as alpha
    and is True for open candidates; closed candidates have weight 0 and no gradient. A relaxation has no parameters and no saved
    state. Values that change during a stage are in buffers on the device, so that a replayed CUDA graph reads their new values.
    """

    name: str
    """Value of `search.relaxation`."""

    edge_weights: bool = True
    """True if edge weights (PC-DARTS) may multiply the mixing weights."""

    is_softmax: bool = True
    """True if the expected weights are the softmax of alpha."""

    def __init__(self, settings: RelaxationConfig) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def expected(self, alpha: Tensor, mask: Tensor) -> Tensor:
        """Return the expected mixing weights, at least 0, and finite for every finite alpha."""

    def forward(self, alpha: Tensor, mask: Tensor) -> Tensor:
        """Return the mixing weights of a training step; by default, the expected ones."""
        return self.expected(alpha, mask)

    def regularizer(self, alpha: Tensor, mask: Tensor) -> Tensor | None:
        """Return a scalar in nats to add to the loss for alpha; None if there is no regulariser."""
        return None

    def begin(self, progress: float) -> None:
        """Prepare for an epoch; `progress` is 0 in the first epoch of a stage and 1 in the last one."""


class Extended(Relaxation):
    """Abstract base class that extends the relaxation `inner`. Alpha and weights are (kinds, edges, primitives)."""

    def __init__(self, inner: Relaxation) -> None:
        super().__init__(inner.settings)
        self.inner, self.name = inner, inner.name
        self.edge_weights, self.is_softmax = inner.edge_weights, inner.is_softmax

    def expected(self, alpha: Tensor, mask: Tensor) -> Tensor:
        return self.inner.expected(alpha, mask)

    def forward(self, alpha: Tensor, mask: Tensor) -> Tensor:
        weights: Tensor = self.inner(alpha, mask)
        return weights

    def regularizer(self, alpha: Tensor, mask: Tensor) -> Tensor | None:
        return self.inner.regularizer(alpha, mask)

    def begin(self, progress: float) -> None:
        self.inner.begin(progress)

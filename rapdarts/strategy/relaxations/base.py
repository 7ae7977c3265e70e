"""The contract of all relaxations."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from rapdarts.config.relaxation import RelaxationConfig


class Relaxation(nn.Module, ABC):
    """A map from architecture parameters alpha to the mixing weights of candidates, both (kinds, edges, primitives).

    It has two faces. A training step calls the module, which may draw from torch's generator: the training loop seeds it
    before every step. Price, pruning, derivation and record use `expected`, which is deterministic. `mask`, of the same shape,
    is True for open candidates; closed ones have weight 0 and no gradient. A relaxation has no parameters and no saved state.
    Whatever changes during a stage is in a buffer on the device, which a replayed CUDA graph reads.
    """

    name: str
    """Value of `search.relaxation`."""

    edge_weights: bool = True
    """True if edge weights (PC-DARTS) may multiply these weights."""

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
        """Return a term of the loss for alpha, a scalar in nats; None if there is no such term."""
        return None

    def begin(self, progress: float) -> None:
        """Prepare for an epoch; `progress` is 0 in the first epoch of a stage and 1 in the last one."""


class Extended(Relaxation):
    """A relaxation `inner` with an addition to one of its faces; abstract. Alpha and weights are (kinds, edges, primitives)."""

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

"""Exponential moving average of a network's weights, which averages out the noise of the last steps (Polyak and Juditsky 1992)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """A copy of a network that moves towards the network after every step.

    Step t multiplies the weights of the copy by min(decay, (1 + t) / (10 + t)), because a fixed decay would retain the random
    initial weights for too long. Batch norm statistics are already averages, and are copied unchanged.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.network = deepcopy(network).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros((), device=next(network.parameters()).device))
        both = self.network, network
        self.weights: list[list[Tensor]] = [[*one.parameters()] for one in both]
        # Statistics and counters are separate, because _foreach_copy_ copies tensors at once only if all have the same dtype.
        self.statistics = [[buffer for buffer in one.buffers() if buffer.is_floating_point()] for one in both]
        self.counters = [[buffer for buffer in one.buffers() if not buffer.is_floating_point()] for one in both]

    @torch.no_grad()
    def update(self, kept: Tensor) -> None:
        """Update the averages after a training step, if it was `kept` (a boolean scalar). Does not synchronise with the device."""
        self.updates += kept
        keep = ((1 + self.updates) / (10 + self.updates)).clamp(max=self.decay)
        keep = torch.where(kept, keep, 1.0)
        averages, weights = self.weights
        torch._foreach_mul_(averages, keep)
        torch._foreach_add_(averages, torch._foreach_mul(weights, 1 - keep))
        for copy, original in (self.statistics, self.counters):
            if copy:
                torch._foreach_copy_(copy, original)

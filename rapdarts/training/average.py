"""A moving average of a network's weights: it forgets the noise of the last steps (Polyak and Juditsky 1992)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """A network that follows another: after every step of that one, its numbers move towards the other's.

    They keep a share of min(decay, (1 + t) / (10 + t)) at step t: a fixed decay would hold on to the first, random weights
    for the length of its memory. The statistics of batch norms are averaged like weights (docs/decisions.md).
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros((), device=next(network.parameters()).device))
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self.averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self.copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes note of the other's step. Nothing in it waits for the device."""
        self.updates += 1
        keep = ((1 + self.updates) / (10 + self.updates)).clamp(max=self.decay)
        mine, others = ([pair[i] for pair in self.averaged] for i in (0, 1))
        torch._foreach_mul_(mine, keep)
        torch._foreach_add_(mine, torch._foreach_mul(others, 1 - keep))
        for own, other in self.copied:
            own.copy_(other)

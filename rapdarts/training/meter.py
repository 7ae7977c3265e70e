"""Means of losses and accuracies over an epoch, computed without synchronising with the device in every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Sum = tuple[Tensor, int | Tensor]
"""A sum over images or steps (a scalar on the device), and the number of images or steps, which may be on the device too."""


class Meter:
    """Sums of quantities over an epoch, kept on the device until the means are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int | Tensor] = {}

    def add(self, name: str, total: Tensor, count: int | Tensor) -> None:
        """Add a sum (a scalar tensor) over `count` images or steps. Does not synchronise with the device."""
        total = total.detach().to(torch.float64, copy=True)  # the next step may overwrite it
        self.sums[name] = self.sums[name].to(total.device) + total if name in self.sums else total
        self.counts[name] = self.counts.get(name, 0) + count

    def add_all(self, sums: Mapping[str, Sum]) -> None:
        for name, (total, count) in sums.items():
            self.add(name, total, count)

    def means(self) -> dict[str, float]:
        """Return the means by name, without the means over nothing, which arise if every update of an epoch is skipped."""
        counts = self._plain_counts()
        return {name: total.item() / counts[name] for name, total in self.sums.items() if counts[name]}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: total.cpu() for name, total in self.sums.items()}, "counts": self._plain_counts()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])

    def _plain_counts(self) -> dict[str, int]:
        return {name: int(count) for name, count in self.counts.items()}

"""The guard of a training: an update whose loss, cost or gradients are not finite is skipped and leaves no trace.

Everything is decided on the device, without synchronising with it, so that a CUDA graph can record the decision. A forward
pass alone changes the running statistics of batch norms, so they are copied before it, and put back if the update is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.training.meter import Sum

MOST_IN_A_ROW = 3
"""Number of skipped updates of one kind in a row that ends a training.

A single bad batch does no harm. If the weights themselves are the cause, no later update can be taken either.
"""

INTERVAL = 50
"""Number of steps between two checks of the guard of a training on a GPU, since a check synchronises with the device."""

READABLE = ("cpu",)
"""Devices whose verdict can be read without waiting, so that nothing has to be copied for an update that is kept."""

CHECKED = ("the loss", "the cost", "the gradient", "a statistic of a batch norm")


@dataclass(frozen=True)
class Verdict:
    """The decision on an update: `kept` is a boolean scalar on the device. `norm` is the joint norm of the gradients, a scalar."""

    kept: Tensor
    norm: Tensor

    def sums(self, facts: Mapping[str, Sum]) -> dict[str, Sum]:
        """Return the `facts` of an update for the record of the epoch; they are sums over nothing if it is skipped."""
        return {name: (torch.where(self.kept, total, 0), self.kept * count) for name, (total, count) in facts.items()}


class Guard:
    """The guard of a network's training, in which every step makes the named kinds of `updates`.

    In each update, call `begin` before the forward pass and `check` after the backward pass, and pass the verdict to
    `optimizer_step`. After MOST_IN_A_ROW skipped updates of a kind, all later ones are skipped too, until the run checks the
    guard and stops. Buffers that no checkpoint saves are not put back.
    """

    def __init__(self, network: nn.Module, updates: Sequence[str] = ("weights",)) -> None:
        saved = {id(value) for value in network.state_dict(keep_vars=True).values()}
        buffers = [buffer for buffer in network.buffers() if id(buffer) in saved]  # without a module's extra state
        kinds = dict.fromkeys(buffer.dtype for buffer in buffers)
        self.copies = [_Copies([buffer for buffer in buffers if buffer.dtype == kind]) for kind in kinds]
        device = next(network.parameters()).device
        self.updates, self.interval = tuple(updates), INTERVAL if device.type == "cuda" else 1
        # These tensors keep their addresses, because the CUDA graph of a step writes into them.
        self.skipped = torch.zeros(len(updates), dtype=torch.int64, device=device)  # in this epoch
        self.in_a_row = torch.zeros_like(self.skipped)
        self.causes = torch.zeros(len(updates), len(CHECKED), dtype=torch.bool, device=device)  # of the last ones
        self.nothing = torch.zeros((), dtype=torch.float64, device=device)
        self.announced: set[str] = set()

    # --- in a step -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Copy the buffers, before the forward pass of an update."""
        for copies in self.copies:
            copies.take()

    @torch.no_grad()
    def check(
        self, update: str, gradients: Sequence[Tensor | None], loss: Tensor, cost: Tensor | None = None
    ) -> Verdict:
        """Return whether to keep an update, and put the buffers back otherwise. Does not synchronise with the device.

        An update is kept if its loss, its cost (both scalars), the joint norm of its gradients (of any shape) and the new
        buffers are finite.
        """
        norm = nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
        statistics = [copies.total() for copies in self.copies]
        numbers = [loss, self.nothing if cost is None else cost, norm, sum(statistics, self.nothing)]
        bad = ~torch.stack([number.detach().to(torch.float64) for number in numbers]).isfinite()
        number = self.updates.index(update)
        in_a_row, skipped, causes = self.in_a_row[number], self.skipped[number], self.causes[number]

        skip, over = bad.any(), (self.in_a_row >= MOST_IN_A_ROW).any()
        kept = ~(skip | over)
        in_a_row.copy_(torch.where(over, in_a_row, (in_a_row + 1) * skip))
        skipped.add_(skip & ~over)
        causes.copy_(torch.where(skip & ~over, bad, causes))
        if kept.device.type not in READABLE or not kept:
            for copies in self.copies:
                copies.settle(kept)
        return Verdict(kept, norm)

    # --- between two steps ---------------------------------------------------------------------------------------

    def news(self) -> tuple[list[str], bool]:
        """Return a sentence for each kind of update that was skipped for the first time in an epoch, and whether to stop."""
        counts = torch.stack([self.skipped, self.in_a_row]).tolist()
        new = [
            (update, number)
            for number, update in enumerate(self.updates)
            if counts[0][number] and update not in self.announced
        ]
        self.announced |= {update for update, _ in new}
        sentences = [f"an update of the {update} is skipped, because {self._cause(number)}" for update, number in new]
        return sentences, max(counts[1]) >= MOST_IN_A_ROW

    @property
    def reason(self) -> str:
        """The reason to stop, as a clause."""
        number = int(self.in_a_row.argmax())
        return f"{MOST_IN_A_ROW} updates of the {self.updates[number]} in a row were skipped, because {self._cause(number)}"

    def _cause(self, number: int) -> str:
        causes = [name for name, bad in zip(CHECKED, self.causes[number].tolist(), strict=True) if bad]
        return f"{' and '.join(causes)} {'are' if len(causes) > 1 else 'is'} not finite"

    def end_epoch(self) -> int:
        """Return the number of updates that were skipped in the epoch, and count from 0 again."""
        skipped = int(self.skipped.sum())
        self.skipped.zero_()
        self.announced.clear()
        return skipped

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "causes": self.causes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; an empty one is that of a checkpoint from before there was a guard.

        The count in a row continues, so that a bad update that follows a preemption counts as it would without one. A count
        that ended the run is only in checkpoints of older versions. It begins again, because a resumed run tries again.
        """
        for name, value in self.state_dict().items():
            value.copy_(state.get(name, torch.zeros_like(value)))
        self.in_a_row.mul_(self.in_a_row < MOST_IN_A_ROW)


class _Copies:
    """The buffers of one data type, with copies of their values. A few operations on one long tensor copy all of them."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self.flat = [_flat(buffer.detach()) for buffer in buffers]
        self.sizes = [len(one) for one in self.flat]

    def take(self) -> None:
        self.before = torch.cat(self.flat)

    def total(self) -> Tensor:
        """Return the sum of the current values, a scalar; it is finite only if every value is."""
        self.after = torch.cat(self.flat)
        return self.after.sum()

    def settle(self, kept: Tensor) -> None:
        """Put the copies back if `kept` is false."""
        torch._foreach_copy_(self.flat, torch.where(kept, self.after, self.before).split(self.sizes))


def _flat(buffer: Tensor) -> Tensor:
    """Return a view (n,) of a buffer, whose dimensions may be in any order in memory."""
    return buffer.view(-1) if buffer.is_contiguous() else buffer.as_strided((buffer.numel(),), (1,))

"""The guard: which tensors it puts back, and which counts it restores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.training.guard import Guard


class Counting(nn.Module):
    """A batch norm with one saved and one unsaved buffer, and an extra state that is no buffer."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.norm, self.extra = nn.BatchNorm1d(2), extra
        self.register_buffer("unsaved", torch.zeros(()), persistent=False)

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def check_puts_back(network: Counting) -> None:
    guard, before = Guard(network), [buffer.clone() for buffer in network.norm.buffers()]
    for number, kept in ((1.0, True), (float("nan"), False)):
        guard.begin()
        network.norm(torch.randn(4, 2))
        network.unsaved.add_(1)
        assert bool(guard.check("weights", [torch.ones(2)], torch.tensor(number)).kept) == kept
        after = [buffer.clone() for buffer in network.norm.buffers()]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)) != kept
        before = after
    assert network.unsaved == 2 and guard.skipped.tolist() == [1]


def test_the_extra_state_of_a_module_is_no_buffer() -> None:
    """It may be of any type; a tensor is not put back either, because the module may return a copy."""
    for extra in ({"calls": 3}, "text", 7, Tensor([1.0])):
        check_puts_back(Counting(extra))


def test_a_count_that_ended_a_run_begins_again() -> None:
    """Only checkpoints of older versions hold one."""
    guard = Guard(Counting(0), ("alphas", "weights"))
    guard.load_state_dict({"in_a_row": torch.tensor([3, 2]), "skipped": torch.tensor([4, 2])})
    assert guard.in_a_row.tolist() == [0, 2] and guard.skipped.tolist() == [4, 2]
    assert guard.news()[1] is False
    guard.load_state_dict({})
    assert guard.in_a_row.tolist() == guard.skipped.tolist() == [0, 0]

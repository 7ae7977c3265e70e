"""The state that a training step changes: copied, restored, and compared after two ways of taking the same step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.training.guard import Guard

TOLERANCE = 0.05
"""Largest difference between two changes, relative to the change itself (Euclidean norm).

Two runs of a step may round differently, and a rounding error may move a value to the other side of a ReLU. A step that
reads a wrong address, wrong random numbers or an old learning rate differs by more.
"""

ROUNDING = 1e-6
"""Largest difference relative to the values themselves; the change of a large float32 value cannot be more exact."""


class StepState:
    """Copies of all tensors of `learners` (any shapes), and of torch's random state for `device`.

    Learners are modules, optimisers, guards and single tensors; others are skipped, because they hold no tensors that a step changes.
    """

    def __init__(self, learners: Iterable[object], device: torch.device) -> None:
        self.device, self.named = device, [*_tensors(learners)]
        self.copies = [tensor.detach().clone() for _, tensor in self.named]
        self.random = torch.get_rng_state()
        self.gpu_random = torch.cuda.get_rng_state(device) if torch.cuda.is_available() else None

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the state back into the tensors and the random number generators."""
        for (_, tensor), copy in zip(self.named, self.copies, strict=True):
            tensor.copy_(copy)
        torch.set_rng_state(self.random)
        if self.gpu_random is not None:
            torch.cuda.set_rng_state(self.gpu_random, self.device)


def difference(before: StepState, first: StepState, second: StepState, results: tuple[Any, Any]) -> str:
    """Return what differs between two ways of taking a step from the state `before`, or an empty string.

    `results` holds the values that both returned. Tensors with the same name are compared together, because the gradient of
    a single one may consist of rounding errors only.
    """
    groups: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for (name, _), *copies in zip(first.named, before.copies, first.copies, second.copies, strict=True):
        groups.setdefault(name, []).append((copies[0], copies[1], copies[2]))
    pairs = zip(_leaves(results[0]), _leaves(results[1]), strict=True)
    groups |= {f"result{name}": [(torch.zeros_like(x), x, y)] for (name, x), (_, y) in pairs}
    return next((name for name, tensors in groups.items() if not _agree(tensors)), "")


def _agree(tensors: list[tuple[Tensor, Tensor, Tensor]]) -> bool:
    """Return whether tensors (any shapes) changed alike; each triple holds the old values and both new ones."""
    squares = torch.zeros(3, dtype=torch.float64, device=tensors[0][0].device)
    for old, one, other in tensors:
        if not old.is_floating_point():
            if not torch.equal(one, other):
                return False
            continue
        old, one, other = old.double(), one.double(), other.double()
        same = (one == other) | (one.isnan() & other.isnan())
        apart = torch.where(same, 0.0, one - other)
        squares += torch.stack([x.square().sum() for x in (apart, one - old, old)])
    error, change, size = squares.sqrt().tolist()
    return error == 0 or error <= TOLERANCE * change + ROUNDING * size  # False if `error` is NaN


def _tensors(learners: Iterable[object]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of learners with the last part of their names."""
    for number, learner in enumerate(learners):
        if isinstance(learner, Tensor):
            yield f"tensor {number}", learner
        elif isinstance(learner, nn.Module):
            for name, tensor in (*learner.named_parameters(), *learner.named_buffers()):
                yield f"{type(learner).__name__} {name.rpartition('.')[2]}", tensor
        elif isinstance(learner, Guard):
            yield from ((f"guard {name}", value) for name, value in learner.state_dict().items())
        elif isinstance(learner, torch.optim.Optimizer):
            for entries in learner.state.values():
                for name, value in entries.items():
                    if isinstance(value, Tensor):
                        yield f"{type(learner).__name__} {name}", value


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested mappings and sequences, each with the keys and indices that lead to it."""
    if isinstance(value, Tensor):
        yield name, value.detach()
        return
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for key, item in items:
        yield from _leaves(item, f"{name}/{key}")

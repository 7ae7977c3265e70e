"""A step that is recorded once and then played back: on a GPU, thousands of launches become one (a CUDA graph)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

Facts = TypeVar("Facts")

EAGER = 3
"""How often a step runs as it is before it is recorded: optimisers, and libraries that choose kernels, settle in these."""


class Recorded:
    """`step` as it is on a CPU; on a GPU, played back from its fourth call on.

    Where it cannot be recorded, it goes on as it is and says so.

    `step(*tensors, *settings)` may read and write any tensor that stays where it is in memory; it may not ask the
    device for a number, and what it does may depend on nothing but the shapes of `tensors` and the hashable
    `settings`: each combination is recorded by itself. Random numbers follow torch's generator at every call. What it
    returns is overwritten by the next call.
    """

    def __init__(self, step: Callable[..., Facts], device: torch.device, say: Callable[[str], object] = print) -> None:
        self.step, self.device, self.say = step, device, say
        self.graphs: dict[Hashable, tuple[Any, list[Tensor], Any]] = {}
        self.calls: dict[Hashable, int] = {}
        self.pool: Any = None
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *given: Any) -> Any:
        if self.stream is None:
            return self.step(*given)
        tensors = [value for value in given if isinstance(value, Tensor)]
        settings = given[len(tensors) :]
        key = (*(value.shape for value in tensors), *settings)
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] <= EAGER:
            return self._aside(tensors, settings)
        if key not in self.graphs:
            try:
                self.graphs[key] = self._record(tensors, settings)
            except RuntimeError as error:  # a primitive of a user's own may well ask the device for a number
                self.stream = None
                self.graphs.clear()  # and with them the memory of what was recorded before
                self.pool = None
                self.say(f"steps are not recorded, and run one operation after the other: {str(error).splitlines()[0]}")
                return self.step(*given)
        graph, inputs, facts = self.graphs[key]
        for mine, value in zip(inputs, tensors, strict=True):
            mine.copy_(value)
        graph.replay()
        return facts

    def _aside(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> Any:
        """One call on a stream of its own, as a recording asks of what runs before it."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            facts = self.step(*tensors, *settings)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return facts

    def _record(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> tuple[Any, list[Tensor], Any]:
        """Writes a call down without carrying it out; all recordings share one pool of memory, as they never overlap."""
        inputs = [value.clone() for value in tensors]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            facts = self.step(*inputs, *settings)
        self.pool = graph.pool()
        return graph, inputs, facts

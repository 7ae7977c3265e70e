"""A step that is recorded once and then played back: on a GPU, thousands of launches become one (a CUDA graph)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

Facts = TypeVar("Facts")

EAGER = 3
"""How often a step runs as it is before it is recorded: optimisers, and libraries that choose kernels, settle in these."""

WAITED = "called a synchronizing CUDA operation"
"""What torch warns of where it is asked to, and something waits for the device."""


class GraphedStep:
    """`step` as it is on a CPU; on a GPU, played back from its fourth call on.

    Where it cannot be recorded, it goes on as it is and says so. A step that waits for the device is not tried: torch
    does not recover from a recording that broke off, its random numbers least of all.

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
        if self.calls[key] < EAGER:
            return self._aside(tensors, settings)
        if self.calls[key] == EAGER:
            facts, waits = self._watched(tensors, settings)
            if waits:  # a primitive of a user's own may well ask the device for a number
                self._give_up("something in them waits for the device")
            return facts
        if key not in self.graphs:
            try:
                self.graphs[key] = self._record(tensors, settings)
            except RuntimeError as error:
                self._give_up(str(error).splitlines()[0])
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

    def _watched(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> tuple[Any, bool]:
        """The same; and whether something in it waited. It is warned of, not refused: a step is taken whole."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", WAITED)
            warnings.filterwarnings(
                "ignore", "Synchronization debug mode is a prototype"
            )  # what it sees is enough here
            torch.cuda.set_sync_debug_mode("warn")
            try:
                facts = self._aside(tensors, settings)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        others = [warning for warning in caught if WAITED not in str(warning.message)]
        for warning in others:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return facts, len(others) < len(caught)

    def _give_up(self, why: str) -> None:
        self.stream = None
        self.graphs.clear()  # and with them the memory of what was recorded before
        self.pool = None
        self.say(f"steps are not recorded, and run one operation after the other: {why}")

    def _record(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> tuple[Any, list[Tensor], Any]:
        """Writes a call down without carrying it out; all recordings share one pool of memory, as they never overlap."""
        inputs = [value.clone() for value in tensors]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            facts = self.step(*inputs, *settings)
        self.pool = graph.pool()
        return graph, inputs, facts

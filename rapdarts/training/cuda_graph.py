"""Training steps as CUDA graphs: captured once and then replayed, so that thousands of kernel launches become one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

Facts = TypeVar("Facts")

EAGER = 3
"""Eager calls before a step is captured: optimisers make their state in them, and libraries choose their kernels."""

WAITED = "called a synchronizing CUDA operation"
"""The beginning of torch's warning, in its synchronisation debug mode, that something waits for the device."""


class GraphedStep:
    """A step that on a GPU is captured as a CUDA graph and replayed from its fourth call on; on a CPU it is `step` itself.

    A step that cannot be captured stays eager, which is reported. The capture of a step that waits for the device is not
    tried: torch does not recover from a capture that failed, its random numbers least of all.

    `step(*tensors, *settings)` may read and write any tensor that stays where it is in memory; it may not ask the
    device for a number, and what it does may depend on nothing but the shapes of `tensors` and the hashable
    `settings`: each combination is captured by itself. Random numbers follow torch's generator at every call. What it
    returns is overwritten by the next call.
    """

    def __init__(self, step: Callable[..., Facts], device: torch.device, say: Callable[[str], object] = print) -> None:
        self.step, self.device, self.say = step, device, say
        self.graphs: dict[Hashable, tuple[Any, list[Tensor], Any]] = {}
        self.calls: dict[Hashable, int] = {}
        self.pool: Any = None
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *args: Any) -> Any:
        if self.stream is None:
            return self.step(*args)
        tensors = [value for value in args if isinstance(value, Tensor)]
        settings = args[len(tensors) :]
        key = (*(value.shape for value in tensors), *settings)
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] < EAGER:
            return self._on_side_stream(tensors, settings)
        if self.calls[key] == EAGER:
            facts, waits = self._eager_and_watched(tensors, settings)
            if waits:  # a primitive of a user's own may well ask the device for a number
                self._give_up("something in them waits for the device")
            return facts
        if key not in self.graphs:
            try:
                self.graphs[key] = self._capture(tensors, settings)
            except RuntimeError as error:
                self._give_up(str(error).splitlines()[0])
                return self.step(*args)
        graph, inputs, facts = self.graphs[key]
        for static, value in zip(inputs, tensors, strict=True):
            static.copy_(value)
        graph.replay()
        return facts

    def _on_side_stream(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> Any:
        """Call the step on a stream of its own, as a capture requires of the calls before it."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            facts = self.step(*tensors, *settings)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return facts

    def _eager_and_watched(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> tuple[Any, bool]:
        """Do the same, and return also whether something in the step waited for the device. Torch only warns, so the step is complete."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", WAITED)
            # What this mode notices is enough here.
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                facts = self._on_side_stream(tensors, settings)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        others = [warning for warning in caught if WAITED not in str(warning.message)]
        for warning in others:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return facts, len(others) < len(caught)

    def _give_up(self, why: str) -> None:
        self.stream = None
        self.graphs.clear()  # and with them the memory of what was captured before
        self.pool = None
        self.say(f"steps are not recorded, and run one operation after the other: {why}")

    def _capture(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> tuple[Any, list[Tensor], Any]:
        """Capture a call without carrying it out; all graphs share one pool of memory, as they never run at once."""
        inputs = [value.clone() for value in tensors]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            facts = self.step(*inputs, *settings)
        self.pool = graph.pool()
        return graph, inputs, facts

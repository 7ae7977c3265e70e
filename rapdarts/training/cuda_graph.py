"""Training steps as CUDA graphs: captured once, then replayed, so that one launch replaces thousands of kernel launches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from rapdarts.training.step_state import StepState, difference

Facts = TypeVar("Facts")

EAGER = 3
"""Number of eager calls before the capture of a step, during which optimisers create their state and libraries choose kernels."""

WAITED = "called a synchronizing CUDA operation"
"""Beginning of the warning that torch's synchronisation debug mode raises if an operation synchronises with the device."""


Graph = tuple[Any, list[Tensor], Any]
"""A captured graph, the tensors that it reads its inputs from, and the values that it returns."""


class GraphedStep:
    """A training step that is captured as a CUDA graph and replayed from its fourth call on; on a CPU, `step` itself.

    A step that cannot be captured stays eager, and this is reported. A step that waits for the device is never captured,
    because torch (its random number generator in particular) does not recover from a failed capture. The first replay of a
    graph is compared with the eager step, taken from the same state with the same batch and random numbers; if they differ,
    the eager step counts, and steps stay eager.

    `step(*tensors, *settings)` may read and write any tensor that keeps its memory address. It must not read values back
    from the device, and its operations may depend only on the shapes of `tensors` and on the hashable `settings`: each
    combination has its own graph. Every call draws new random numbers from torch's generator. The returned tensors are
    overwritten by the next call. `learners` are the modules, optimisers and tensors that the step changes.
    """

    def __init__(
        self,
        step: Callable[..., Facts],
        device: torch.device,
        say: Callable[[str], object] = print,
        learners: Iterable[object] = (),
    ) -> None:
        self.step, self.device, self.say, self.learners = step, device, say, tuple(learners)
        self.graphs: dict[Hashable, Graph] = {}
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
            if waits:  # a user's own primitive may read a value back from the device
                self._give_up("an operation synchronises with the device")
            return facts
        if key not in self.graphs:
            return self._first_replay(key, tensors, settings)
        return _replay(self.graphs[key], tensors)

    def _first_replay(self, key: Hashable, tensors: list[Tensor], settings: tuple[Any, ...]) -> Any:
        """Take the step eagerly, capture it, and take it again as a replay; the replay counts if it does the same."""
        before = StepState(self.learners, self.device)
        facts = self._on_side_stream(tensors, settings)
        after = StepState(self.learners, self.device)
        try:
            graph = self._capture(tensors, settings)
        except RuntimeError as error:
            self._give_up(str(error).splitlines()[0])
            return facts
        before.restore()
        replayed = _replay(graph, tensors)
        differs = difference(before, after, StepState(self.learners, self.device), (facts, replayed))
        if differs:
            after.restore()
            self._give_up(f"the first replay differs from the step ({differs})")
            return facts
        self.graphs[key] = graph
        return replayed

    def _on_side_stream(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> Any:
        """Call the step on a separate stream, as required before a capture."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            facts = self.step(*tensors, *settings)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return facts

    def _eager_and_watched(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> tuple[Any, bool]:
        """Call the step as `_on_side_stream` does; also return whether it waited for the device, according to torch's warnings."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", WAITED)
            # Torch warns that this mode misses some operations; those it detects are enough here.
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
        self.graphs.clear()  # frees the memory of earlier captures
        self.pool = None
        self.say(f"training steps run eagerly instead of as CUDA graphs: {why}")

    def _capture(self, tensors: list[Tensor], settings: tuple[Any, ...]) -> Graph:
        """Capture a call without executing it; all graphs share one memory pool, because they never run at the same time."""
        inputs = [value.clone() for value in tensors]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            facts = self.step(*inputs, *settings)
        self.pool = graph.pool()
        return graph, inputs, facts


def _replay(captured: Graph, tensors: list[Tensor]) -> Any:
    graph, inputs, facts = captured
    for static, value in zip(inputs, tensors, strict=True):
        static.copy_(value)
    graph.replay()
    return facts

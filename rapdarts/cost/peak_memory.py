"""Peak memory: the maximum total size of the activations that a network must hold at once."""

from __future__ import annotations

from itertools import accumulate

from torch import nn

from rapdarts.config.shapes import Inputs
from rapdarts.cost.recorder import Trace
from rapdarts.cost.trace import trace

BYTES_PER_ACTIVATION = 4
"""Size of an activation in fp32."""


def peak_memory(network: nn.Module, image: Inputs) -> int:
    """Return the peak size in bytes of the activations held during the forward pass of one image.

    Operations run in the network's own order. Activations are fp32; weights are not included. An activation lives from
    the operation that writes it to the last one that reads it, so the running operation holds both its input and its
    output. Batch norm and pointwise functions of one tensor work in place. Sums and other pointwise functions of several
    tensors overwrite an input that no later operation reads. The parts of a concatenation are written directly into its
    buffer, unless they already belong to another concatenation. Padding creates a second activation.
    """
    return BYTES_PER_ACTIVATION * max(live(trace(network, image)), default=0)


def live(run: Trace) -> list[int]:
    """Return the number of elements of all activations held during each operation."""
    memory = _Memory(run)
    for step, op in enumerate(run.ops):
        memory.take(step, op.overwrites, (op.writes, *op.also))
        if op.name == "cat":
            memory.store([tensor for tensor, elements in op.reads if elements == run.sizes[tensor]], op.writes)
    return memory.held()


class _Memory:
    """Places of activations in memory. An activation has its own place, or the place of an activation that it overwrites."""

    def __init__(self, run: Trace) -> None:
        self.run = run
        self.last = {run.output: len(run.ops) - 1}  # the last operation that reads an activation
        for step, op in enumerate(run.ops):
            self.last |= {tensor: max(step, self.last.get(tensor, 0)) for tensor, _ in op.reads}
        self.place: dict[int, int] = {}  # for activations that overwrite another one
        self.born = dict.fromkeys(range(run.inputs), 0)
        self.dies = {place: self.last.get(place, 0) for place in self.born}
        self.own = dict(run.sizes)  # elements of a place, without those of the places stored in it
        self.inside: dict[int, int] = {}  # from a place to the concatenation that it is stored in
        self.parts: dict[int, list[int]] = {}  # from a concatenation to the places stored in it

    def take(self, step: int, overwritable: tuple[int, ...], written: tuple[int, ...]) -> None:
        """Assign places to the activations that an operation writes; if possible, the first one reuses a place that is no longer read."""
        free = next((tensor for tensor in overwritable if self._is_free(self.place.get(tensor, tensor), step)), None)
        for tensor in written:
            if free is not None and tensor == written[0]:
                self.place[tensor] = self.place.get(free, free)
            place = self.place.get(tensor, tensor)
            self.born.setdefault(place, step)
            self.dies[place] = max(self.dies.get(place, step), self.last.get(tensor, step))

    def store(self, tensors: list[int], concatenation: int) -> None:
        """Store whole activations directly in a concatenation, unless they are already stored in another one."""
        for tensor in tensors:
            place = self.place.get(tensor, tensor)
            if place not in self.inside and place >= self.run.inputs:
                self.inside[place] = concatenation
                self.parts.setdefault(concatenation, []).append(place)
                self.own[concatenation] -= self.run.sizes[tensor]

    def _is_free(self, place: int, step: int) -> bool:
        """Return whether no operation after `step` reads a place, the concatenation around it, or the places stored in it."""
        around = place
        while around in self.inside and self.dies[around] <= step:
            around = self.inside[around]
        return self.dies[around] <= step and all(self._is_dead(part, step) for part in self.parts.get(place, ()))

    def _is_dead(self, place: int, step: int) -> bool:
        return self.dies[place] <= step and all(self._is_dead(part, step) for part in self.parts.get(place, ()))

    def held(self) -> list[int]:
        """Return the number of elements in all places in use during each operation."""
        change = [0] * (len(self.run.ops) + 1)
        # A concatenation is processed before its parts, which live as long as it does.
        for place in sorted(self.born, key=self.born.__getitem__, reverse=True):
            self.dies[place] = max(self.dies[place], self.dies.get(self.inside.get(place, place), 0))
            change[self.born[place]] += self.own[place]
            change[self.dies[place] + 1] -= self.own[place]
        return list(accumulate(change))[:-1]

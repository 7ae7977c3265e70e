"""Peak memory: the most bytes of activations that a network must hold at once."""

from __future__ import annotations

from itertools import accumulate

from torch import nn

from rapdarts.cost.recorder import Trace
from rapdarts.cost.trace import Image, trace

BYTES_PER_ACTIVATION = 4
"""Activations are counted in fp32."""


def peak_memory(network: nn.Module, image: Image) -> int:
    """Return the most bytes of activations held during the forward pass of one image.

    Operations run in the network's own order. Activations are fp32; weights are not included. An activation lives from
    the operation that writes it to the last one that reads it, so the running operation holds both its input and its
    output. Batch norm and pointwise functions of one tensor work in place. The parts of a concatenation are written
    directly into its buffer, unless they already belong to another concatenation. Padding creates a second activation.
    """
    return BYTES_PER_ACTIVATION * max(live(trace(network, image)), default=0)


def live(run: Trace) -> list[int]:
    """Return the number of elements of all activations held during each operation."""
    born, last = {0: 0}, {0: 0, run.output: len(run.ops) - 1}
    taken: dict[int, int] = {}  # from an activation to the concatenation that it is stored in
    own = dict(run.sizes)  # elements that an activation adds to those of the activations stored in it
    for step, op in enumerate(run.ops):
        born.setdefault(op.writes, step)
        for tensor, elements in op.reads:
            last[tensor] = max(step, last.get(tensor, 0))
            if op.name == "cat" and tensor not in taken and tensor != 0 and elements == run.sizes[tensor]:
                taken[tensor] = op.writes
                own[op.writes] -= elements
    change = [0] * (len(run.ops) + 1)
    # A concatenation is processed before its parts, which live as long as it does.
    for tensor in sorted(born, key=born.__getitem__, reverse=True):
        last[tensor] = max(last.get(tensor, born[tensor]), last.get(taken.get(tensor, tensor), 0))
        change[born[tensor]] += own[tensor]
        change[last[tensor] + 1] -= own[tensor]
    return list(accumulate(change))[:-1]

"""Peak memory: the most activations that a network must hold at once."""

from __future__ import annotations

from itertools import accumulate

from torch import nn

from rapdarts.cost.trace import Image, Trace, trace

BYTES_PER_ACTIVATION = 4
"""Activations are fp32."""


def peak_memory(network: nn.Module, image: Image) -> int:
    """Bytes of activations at the worst moment of one image's forward pass, in the order in which the network runs.

    fp32, weights excluded. An activation lives from the operation that writes it to the last that reads it; input and
    output of the running operation are both there. Batch norm and functions of one tensor work in place, and what is
    concatenated was written into its place at once, unless it stands in another concatenation already. Padding makes
    a second activation.
    """
    return BYTES_PER_ACTIVATION * max(live(trace(network, image)), default=0)


def live(run: Trace) -> list[int]:
    """Elements of the activations that are held at each operation."""
    born, last = {0: 0}, {0: 0, run.output: len(run.ops) - 1}
    taken: dict[int, int] = {}  # the concatenation in which an activation has its place
    own = dict(run.sizes)  # elements that an activation adds to those it holds already
    for step, op in enumerate(run.ops):
        born.setdefault(op.writes, step)
        for tensor, elements in op.reads:
            last[tensor] = max(step, last.get(tensor, 0))
            if op.name == "cat" and tensor not in taken and tensor != 0 and elements == run.sizes[tensor]:
                taken[tensor] = op.writes
                own[op.writes] -= elements
    change = [0] * (len(run.ops) + 1)
    # A concatenation before its parts, which live as long.
    for tensor in sorted(born, key=born.__getitem__, reverse=True):
        last[tensor] = max(last.get(tensor, born[tensor]), last.get(taken.get(tensor, tensor), 0))
        change[born[tensor]] += own[tensor]
        change[last[tensor] + 1] -= own[tensor]
    return list(accumulate(change))[:-1]

"""Size of a network's weights in an 8-bit ONNX file written by rapdarts export."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from rapdarts.config.shapes import Inputs
from rapdarts.cost.recorder import Op
from rapdarts.cost.trace import trace

WEIGHT, BIAS = 1, 4
"""Bytes per weight and per bias; biases are added to 32-bit sums of products."""


def bytes_in_int8_file(network: nn.Module, image: Inputs) -> int:
    """Return the size in bytes of a network's weights in its 8-bit file, without their scales.

    Weights take 8 bits, and biases take 32 bits. A batch norm after a convolution is folded into the biases of that
    convolution. Any other batch norm is stored as 8-bit factors and 32-bit biases.
    """
    left = dict(network.named_parameters())
    writers: dict[int, Op] = {}  # the last operation that changed an activation
    total = 0
    for op in trace(network, image).ops:
        mine = {name: left.pop(name) for name in op.parameters if name in left}
        before = writers.get(op.reads[0][0]) if op.reads else None
        if op.kind == "norm" and before is not None and before.kind == "conv":
            total += 0 if _biases(network, before) else BIAS * op.shape[1]
        elif op.kind == "norm":
            total += (WEIGHT + BIAS) * op.shape[1] if mine else 0
        else:
            total += _bytes(mine.values())
        if op.kind != "other" or not op.free:  # views change nothing
            writers[op.writes] = op
    return total + _bytes(left.values())


def _biases(network: nn.Module, conv: Op) -> bool:
    return any(network.get_parameter(name).dim() < 2 for name in conv.parameters)


def _bytes(parameters: Iterable[Tensor]) -> int:
    return sum((BIAS if parameter.dim() < 2 else WEIGHT) * parameter.numel() for parameter in parameters)

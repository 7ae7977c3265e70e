"""The constants of an ONNX graph as the file stores them: dense tensors, sparse tensors, and the values of `Constant` nodes.

Only their types and sizes are read, so values in an external file count like those in the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Constant:
    """A constant: its shape, how many numbers the file stores for it, and their size in bytes.

    A sparse tensor stores only some of its numbers; their indices count only towards `bytes`. `floating` is true for
    floating-point types.
    """

    shape: tuple[int, ...]
    numbers: int
    bytes: int
    floating: bool


def initialisers(graph: Any) -> dict[str, Constant]:
    """Return the dense and sparse initialisers of a graph by name."""
    found = {tensor.name: _dense(tensor) for tensor in graph.initializer}
    return found | {tensor.values.name: _sparse(tensor) for tensor in graph.sparse_initializer}


def value_of(node: Any) -> Constant:
    """Return the value of a `Constant` node. Raises ValueError if it has none."""
    import onnx

    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return _dense(value)
        if attribute.name == "sparse_value":
            return _sparse(value)
        if attribute.name in VALUES:
            shape = (len(value),) if attribute.name.endswith("s") else ()
            return _constant(getattr(onnx.TensorProto, VALUES[attribute.name]), shape)
    raise ValueError(f"the Constant {node.name} has no value")


VALUES = {"value_float": "FLOAT", "value_int": "INT64", "value_string": "STRING"}
VALUES |= {f"{name}s": data_type for name, data_type in VALUES.items()}
"""Attributes of a `Constant` node that hold a number, a string, or a list of either, and the data types of their tensors."""


def describe_sparse(graph: Any) -> None:
    """Replace the sparse initialisers of a graph by dense inputs, because ONNX infers no shapes from sparse tensors."""
    import onnx

    listed = {end.name for end in graph.input}
    for tensor in graph.sparse_initializer:
        if tensor.values.name not in listed:
            end = onnx.helper.make_tensor_value_info(tensor.values.name, tensor.values.data_type, tensor.dims)
            graph.input.append(end)
    del graph.sparse_initializer[:]


def _dense(tensor: Any) -> Constant:
    return _constant(tensor.data_type, tuple(tensor.dims))


def _sparse(tensor: Any) -> Constant:
    values, indices = _dense(tensor.values), _dense(tensor.indices)
    return Constant(tuple(tensor.dims), values.numbers, values.bytes + indices.bytes, values.floating)


def _constant(data_type: int, shape: tuple[int, ...]) -> Constant:
    import onnx

    numbers = math.prod(shape)
    floating = onnx.TensorProto.DataType.Name(data_type).startswith(("FLOAT", "BFLOAT", "DOUBLE"))
    return Constant(shape, numbers, math.ceil(numbers * _bits(data_type) / 8), floating)


def _bits(data_type: int) -> int:
    """Return the size of an element in bits (0 for text): the bytes of eight elements, because types below 8 bits are packed."""
    import numpy
    import onnx

    if data_type == onnx.TensorProto.STRING:
        return 0
    eight = numpy.zeros(8, onnx.helper.tensor_dtype_to_np_dtype(data_type))
    return len(onnx.numpy_helper.from_array(eight).raw_data)

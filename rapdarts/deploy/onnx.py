"""What the network in an ONNX file costs, counted in its graph by the conventions of `rapdarts cost`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rapdarts.errors import DamagedError, InputError

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operations that multiply and accumulate."""
WEIGHED = (*PRODUCTS, "BatchNormalization")
"""Operations whose constants are weights, those of a batch norm without the running statistics."""


def onnx_costs(path: Path) -> dict[str, float]:
    """`macs` of one image, `params` of convolutions, linear layers and batch norms, and their `bytes` as the file keeps them.

    A batch norm that was folded into a convolution has left it its biases. Raises InputError where a size is open,
    DamagedError for what is no ONNX file.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(path.read_bytes())
        del model.graph.value_info[:]  # of any batch
        for end in (*model.graph.input, *model.graph.output):
            end.type.tensor_type.shape.dim[0].dim_value = 1
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:  # protobuf's, onnx's and our own index have no common class
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(f"{path} is no ONNX file whose graph can be read, or is damaged ({reason}).") from None
    constants = {constant.name: constant for constant in graph.initializer}
    shapes = {name: tuple(constant.dims) for name, constant in constants.items()}
    for tensor in (*graph.input, *graph.value_info, *graph.output):
        shapes[tensor.name] = tuple(side.dim_value for side in tensor.type.tensor_type.shape.dim)
    maker = {name: node for node in graph.node for name in node.output}
    kept = {
        constant.name: constant
        for node in graph.node
        if node.op_type in WEIGHED
        for constant in _weights(node, maker, constants)
    }
    sizes = {name: math.prod(constant.dims) for name, constant in kept.items()}
    width = {name: onnx.helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize for name, constant in kept.items()}
    macs = [_macs(node, shapes) for node in graph.node if node.op_type in PRODUCTS]
    if not macs or 0 in macs:  # one whose size is open would be left out of the sum without a word
        raise InputError(f"{path} says too little of its sizes to be counted; give a file that rapdarts export wrote.")
    return {
        "macs": sum(macs),
        "params": sum(sizes.values()),
        "bytes": sum(size * width[name] for name, size in sizes.items()),
    }


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Output elements times the products behind each; 0 where a size is open."""
    left, right = (shapes.get(name, ()) for name in node.input[:2])
    outputs = math.prod(shapes.get(node.output[0], (0,)))
    if node.op_type == "Conv":
        return outputs * math.prod(right[1:]) if right else 0
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return outputs * (left[0] if transposed else left[-1]) if left else 0


def _weights(node: Any, maker: dict[str, Any], constants: dict[str, Any]) -> Iterator[Any]:
    """The constants that an operation takes, those of 8 bits from behind their scaling."""
    for name in node.input[:3]:
        before = maker.get(name)
        if before is not None and before.op_type == "DequantizeLinear":
            name = before.input[0]
        if name in constants:
            yield constants[name]

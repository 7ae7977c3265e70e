"""Tests of the weights that an ONNX file stores: sparse ones, packed ones, those in nodes, and those in external files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_graphs import constant, counted, node, onnx, sparse


def external(name: str, *shape: int) -> Any:
    """Return an initialiser whose values are in an external file, which does not exist."""
    tensor = onnx.TensorProto(name=name, dims=shape, data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


PRODUCT = [node("MatMul", "x w")]
STORED: dict[str, tuple[list[Any], list[Any], int, int, int]] = {
    "sparse": (PRODUCT, [sparse("w", 1, 7, 40)], 24 * 45, 3, 3 * 4 + 3 * 8),
    "sparse, an index per side": (PRODUCT, [sparse("w", [0, 1], [1, 2], [4, 8])], 24 * 45, 3, 3 * 4 + 6 * 8),
    "sparse, a single value": (PRODUCT, [sparse("w", 7)], 24 * 45, 1, 4 + 8),
    "sparse, of a convolution": (
        [node("Conv", "x w b")],
        [sparse("w", 0, 99, shape=(8, 4, 3, 3)), constant("b", 8)],
        8 * 12 * 36,
        2 + 8,
        2 * 4 + 2 * 8 + 8 * 4,
    ),
    "sparse integers": (
        [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w")],
        [sparse("q", 1, 7, 40, dtype=np.int8), constant("s")],
        24 * 45,
        3,
        3 + 3 * 8,
    ),
    "sparse, in a node": (
        [node("Constant", "", "w", sparse_value=sparse("", 1, 7, 40)), node("MatMul", "x w")], [], 24 * 45, 3, 36,
    ),
    "sparse, transposed": (
        [node("Transpose", "v", "w"), node("MatMul", "x w")], [sparse("v", 1, 7, shape=(9, 5))], 24 * 45, 2, 2 * 4 + 2 * 8,
    ),
    "external": (PRODUCT, [external("w", 5, 9)], 24 * 45, 45, 180),
    "4 bits": (
        [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w")],
        [onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [5, 9], np.ones(45)), constant("s")],
        24 * 45,
        45,
        23,  # two numbers to a byte
    ),
    "numbers in nodes": (
        [
            node("Constant", "", "slope", value_float=0.5),
            node("PRelu", "x slope", "p"),
            node("Constant", "", "factor", value_float=0.5),
            node("Mul", "p factor", "m"),
            node("Constant", "", "w", value_floats=[1.0, 2.0, 3.0, 4.0, 5.0]),
            node("MatMul", "m w"),
        ],
        [],
        24 * 5,
        1 + 5,  # the factor is a number of the program
        24,
    ),
    "text": (
        [node("Constant", "", "t", value_string="a"), node("Constant", "", "u", value_strings=["a", "b"]), *PRODUCT],
        [constant("w", 5, 9), onnx.helper.make_tensor("names", onnx.TensorProto.STRING, [2], [b"cat", b"dog"])],
        24 * 45,
        45,
        180,
    ),
    "integers in nodes": (
        [
            node("Constant", "", "one", value_int=1),
            node("Gather", "x one", "g", axis=1),
            node("Constant", "", "two", value_ints=[0, 2]),
            node("Gather", "g two", "h", axis=2),
            node("MatMul", "h w"),
        ],
        [constant("w", 2, 9)],
        6 * 2 * 9,
        18,
        72,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_params_and_bytes_are_those_that_the_file_stores(name: str) -> None:
    nodes, constants, *expected = STORED[name]
    for listed in (False, True):
        found = counted(nodes, constants, listed=listed)
        assert [found.macs, found.params, found.bytes] == expected and found.not_counted == {}

"""Small ONNX graphs, for tests of counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rapdarts.deploy.onnx_costs import OnnxCosts, costs_of

onnx = pytest.importorskip("onnx")
IMAGE = (1, 4, 6, 5)


def node(operator: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    return onnx.helper.make_node(operator, inputs.split(" "), [output], name=f"the {operator}", **attributes)


def constant(name: str, *shape: int, dtype: Any = np.float32) -> Any:
    """Return an initialiser with different values in every file, so that none is removed as a copy of another."""
    values = np.random.default_rng(len(name)).integers(1, 99, shape).astype(dtype)
    return onnx.numpy_helper.from_array(values, name)


def of_sizes(name: str, *sizes: float) -> Any:
    return onnx.numpy_helper.from_array(np.array(sizes, np.float32), name)


def sparse(name: str, *places: Any, shape: tuple[int, ...] = (5, 9), dtype: Any = np.float32) -> Any:
    """Return a sparse tensor with values at the given places, which are numbers or lists of one per side."""
    values, indices = np.ones(len(places), dtype), np.array(places, np.int64)
    stored = (onnx.numpy_helper.from_array(values, name), onnx.numpy_helper.from_array(indices, f"places of {name}"))
    return onnx.helper.make_sparse_tensor(*stored, shape)


def counted(
    nodes: list[Any], constants: list[Any], shape: tuple[Any, ...] = IMAGE, domain: str = "", listed: bool = False
) -> OnnxCosts:
    """Return the costs of a graph from `x`, of the given shape, to the output `y` of its last node.

    `listed`: the sparse constants are among the inputs, too.
    """
    kinds = (onnx.TensorProto, onnx.SparseTensorProto)
    dense, few = ([one for one in constants if isinstance(one, kind)] for kind in kinds)
    ends = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    ends += [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    weights = [
        onnx.helper.make_tensor_value_info(one.values.name, one.values.data_type, one.dims) for one in few if listed
    ]
    inputs = [*ends[:1], *weights]
    graph = onnx.helper.make_graph(nodes, "graph", inputs, ends[1:], dense, sparse_initializer=few)
    imports = [onnx.helper.make_opsetid("", 23)] + ([onnx.helper.make_opsetid(domain, 1)] if domain else [])
    return costs_of(onnx.helper.make_model(graph, opset_imports=imports).SerializeToString(), "net.onnx")

"""Costs of an ONNX file, counted in its graph by the conventions of `rapdarts cost`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapdarts.deploy.onnx_constants import Constant, describe_sparse, initialisers, value_of
from rapdarts.deploy.runtimes import need
from rapdarts.errors import DamagedError, InputError
from rapdarts.files import seal
from rapdarts.files.regular import read_bytes

Shape = tuple[int, ...]

STANDARD = ("", "ai.onnx")
"""Names of the domain of ONNX's own operators."""

UNKNOWN = frozenset(
    {
        "CausalConvWithState",
        "DFT",
        "DeformConv",
        "Det",
        "GridSample",
        "If",
        "LinearAttention",
        "Loop",
        "MaxRoiPool",
        "RoiAlign",
    }
    | {"STFT", "Scan", "SequenceMap", "TfIdfVectorizer"}
)
"""Standard operators with unknown MACs, because they have no formula here or run other graphs."""

NO_WEIGHTS: dict[str, tuple[int, ...]] = {
    "Attention": (3, 4, 5),
    "BatchNormalization": (3, 4),
    "Clip": (1, 2),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "GRU": (4, 5),
    "LSTM": (4, 5, 6),
    "Pad": (1, 2, 3),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "RNN": (4, 5),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
}
"""Inputs whose constants are not weights, by operator: statistics, scales, masks, states, and numbers such as bounds."""

INTEGER_WEIGHTS = {
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "QGemm": (3, 6),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
}
"""Inputs with integer weights, by operator."""

NORMS = tuple(f"{kind}Normalization" for kind in ("Batch", "Group", "Instance", "Layer", "RMS"))
LAYERS = ("Gather", "PRelu", *NORMS)
"""Operators for which a single number is a weight, as for those with a formula. For all others, it is a plain constant."""

ELEMENTWISE = ("Add", "Cast", "DequantizeLinear", "Div", "Identity", "Mul", "QuantizeLinear", "Sub")
"""Operators that merely normalise the image when applied to it directly; their constants are then not weights."""


@dataclass
class OnnxCosts:
    """The costs counted in an ONNX file.

    `params` and `bytes` count the weights as stored in the file: only the stored values of a sparse weight, and for `bytes` also
    their indices. `macs` assumes dense weights. `scales` is the size in bytes of scales and zero points. `not_counted` maps each
    operator with unknown MACs to the names of its nodes. Neither `macs` nor `not_counted` includes element-wise
    products that other nodes sum, such as `Mul` followed by `ReduceSum`.
    """

    macs: int = 0
    params: int = 0
    bytes: int = 0
    scales: int = 0
    not_counted: dict[str, list[str]] = field(default_factory=dict)

    @property
    def amounts(self) -> dict[str, float]:
        """The costs by resource, as in `rapdarts cost`."""
        return {"macs": self.macs, "params": self.params, "bytes": self.bytes}


def onnx_costs(path: Path) -> OnnxCosts:
    """Count the costs of an ONNX file for one image.

    A batch norm folded into a convolution counts as the biases of that convolution. Raises InputError if a size is
    dynamic, and DamagedError if the file is not ONNX.
    """
    return costs_of(read_onnx(path), str(path))


def read_onnx(path: Path) -> bytes:
    """Return the content of an ONNX file. Raises InputError, and DamagedError if it does not match its seal."""
    content = read_bytes(path)
    if own := seal.seal_of_bytes(content):
        seal.check_bytes(content, own, path)
    return content


def costs_of(content: bytes, where: str) -> OnnxCosts:
    """Count the costs of an ONNX file given as bytes; `where` names the file in messages. Raises the errors of `onnx_costs`."""
    import onnx
    import onnx.inliner

    try:
        model = onnx.load_model_from_string(content)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        del model.graph.value_info[:]  # these shapes have a dynamic batch
        constants = initialisers(model.graph)
        describe_sparse(model.graph)
        _one_image(model.graph, constants)
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        counter = _Counter(graph, constants)
        for node in graph.node:
            counter.add(node)
    except InputError as error:
        raise InputError(f"the MACs of {where} cannot be counted: {error}") from None
    except Exception as error:  # errors of protobuf, onnx and our own indexing have no common class
        raise DamagedError(
            f"{where} is not an ONNX file with a readable graph, or is damaged ({_reason(error)})."
        ) from None
    return counter.result(where)


def _one_image(graph: Any, weights: Collection[str]) -> None:
    """Set the batch size to 1 in the first axis of every input that has 4 axes or a dynamic first axis.

    Weights among the inputs are left unchanged, and so are fixed first axes, which may be the length of a sequence.
    """
    for end in graph.input:
        sides = end.type.tensor_type.shape.dim
        if end.name not in weights and sides and (len(sides) == 4 or not sides[0].dim_value):
            sides[0].dim_value = 1
    for end in graph.output:
        for side in end.type.tensor_type.shape.dim[:1]:
            side.Clear()  # shape inference determines it


def onnx_shape(path: Path) -> tuple[tuple[int, int, int], int]:
    """Return the shape of the image (channels, height, width) that an ONNX file takes, and its number of classes; 0 if unknown.

    Raises InputError if the package onnx is missing, and DamagedError if the file is not ONNX.
    """
    need("onnx", "an ONNX file")
    import onnx

    content = read_bytes(path)
    try:
        graph = onnx.load_model_from_string(content).graph
        weights = initialisers(graph)
        inputs = [end for end in graph.input if end.name not in weights]
        shapes = [[side.dim_value for side in end[0].type.tensor_type.shape.dim] for end in (inputs, graph.output)]
    except Exception as error:  # as in `costs_of`
        raise DamagedError(f"{path} is not an ONNX file, or is damaged ({_reason(error)}).") from None
    if len(shapes[0]) != 4:
        raise InputError(f"{path} takes an input of {len(shapes[0])} axes, not images (n, channels, height, width).")
    return (shapes[0][1], shapes[0][2], shapes[0][3]), (shapes[1] or [0])[-1]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _Counter:
    """Counter of a graph's costs, node by node. It tracks constants from their initialisers to the operators that use them."""

    def __init__(self, graph: Any, constants: Mapping[str, Constant]) -> None:
        self.constants = dict(constants)
        self.shapes = {name: constant.shape for name, constant in constants.items()}
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                sides = (side.dim_value for side in value.type.tensor_type.shape.dim)
                self.shapes.setdefault(value.name, tuple(sides))
        self.made_of = {name: frozenset({name}) for name in constants}  # the constants that each one is computed from
        self.dequantised: set[str] = set()
        self.images = {value.name for value in graph.input if value.name not in constants}
        self.weights: set[str] = set()
        self.scales: set[str] = set()
        self.formulas = 0
        self.costs = OnnxCosts()

    def add(self, node: Any) -> None:
        """Count a node."""
        given = [name for name in node.input if name]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            self.scales |= {part for name in node.input[1:3] for part in self.made_of.get(name, ())}
        if all(name in self.made_of for name in given) and not _has_graphs(node):
            self._keep(node)
            return
        if node.op_type in ELEMENTWISE and all(name in self.images or name in self.made_of for name in given):
            self.images |= set(node.output)
            return
        for place, name in enumerate(node.input):
            if self._is_weight(node.op_type, place, name):
                self.weights |= self.made_of[name]
        formula = (FORMULAS if node.domain in STANDARD else OTHER_FORMULAS).get(node.op_type)
        if formula is not None:
            self.formulas += 1
            self.costs.macs += formula(node, self._shape)
        elif _is_unknown(node):
            self.costs.not_counted.setdefault(node.op_type, []).append(node.name)

    def _keep(self, node: Any) -> None:
        """Record that a node's outputs are constants."""
        sources = frozenset(part for name in node.input for part in self.made_of.get(name, ()))
        if node.op_type == "Constant":
            constant = value_of(node)
            self.constants[node.output[0]], self.shapes[node.output[0]] = constant, constant.shape
            sources = frozenset(node.output)
        if node.op_type == "DequantizeLinear":
            sources = self.made_of.get(node.input[0], frozenset())
            self.dequantised |= sources
        self.made_of |= dict.fromkeys(node.output, sources)

    def _is_weight(self, operator: str, place: int, name: str) -> bool:
        """Return whether an input is a weight, and not an index, a shape or another plain constant."""
        if name not in self.made_of or place in NO_WEIGHTS.get(operator, ()):
            return False
        parts = [self.constants[part] for part in self.made_of[name] - self.scales]
        if any(part in self.dequantised for part in self.made_of[name]) or place in INTEGER_WEIGHTS.get(operator, ()):
            return True
        fewest = 1 if operator in FORMULAS or operator in OTHER_FORMULAS or operator in LAYERS else 2
        return any(part.floating and math.prod(part.shape) >= fewest for part in parts)

    def _shape(self, name: str) -> Shape:
        shape = self.shapes.get(name)
        if shape is None or 0 in shape:  # 0 stands for a dynamic size, and would silently count as zero MACs
            raise InputError(f"the size of {name} is dynamic or unknown; use a file written by rapdarts export.")
        return shape

    def result(self, where: str) -> OnnxCosts:
        """Return the costs. Raises InputError if nothing could be counted."""
        if not (self.formulas or self.costs.not_counted):
            raise InputError(
                f"the MACs of {where} cannot be counted: it has no convolutions or matrix products; use a file written by rapdarts export."
            )
        weights = [self.constants[name] for name in self.weights - self.scales]
        self.costs.params = sum(weight.numbers for weight in weights)
        self.costs.bytes = sum(weight.bytes for weight in weights)
        self.costs.scales = sum(self.constants[name].bytes for name in self.scales)
        return self.costs


def _has_graphs(node: Any) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _is_unknown(node: Any) -> bool:
    import onnx

    if node.domain not in STANDARD:
        return node.op_type not in OTHER_DOMAINS
    return node.op_type in UNKNOWN or not onnx.defs.has(node.op_type)


OTHER_DOMAINS = frozenset(
    f"QLinear{name}"
    for name in ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax")
) | {"BiasGelu", "DequantizeLinear", "FastGelu", "Gelu", "LayerNormalization", "QuantizeLinear", "QuickGelu"}
OTHER_DOMAINS |= {"SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
"""Operators of onnxruntime without MACs: they do not multiply two tensors, or only element by element."""


# --- formulas ----------------------------------------------------------------------------------------------------

Sizes = Callable[[str], Shape]
"""A function that returns the shape of a tensor by name. Raises InputError if it is unknown."""


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _conv(node: Any, shape: Sizes, weight: int = 1) -> int:
    return math.prod(shape(node.output[0])) * math.prod(shape(node.input[weight])[1:])


def _conv_transpose(node: Any, shape: Sizes) -> int:
    """MACs of a transposed convolution: each input element times its row of weights (inputs, outputs / groups, height, width)."""
    return math.prod(shape(node.input[0])) * math.prod(shape(node.input[1])[1:])


def _matmul(node: Any, shape: Sizes) -> int:
    left = shape(node.input[0])
    return math.prod(shape(node.output[0])) * (left[-2] if _attributes(node).get("transA") else left[-1])


def _recurrent(node: Any, shape: Sizes) -> int:
    """MACs of a recurrent layer: each step of each sequence multiplies input and state by weights (directions, gates x width, ...)."""
    return math.prod(shape(node.input[0])[:2]) * sum(math.prod(shape(name)) for name in node.input[1:3])


def _attention(node: Any, shape: Sizes) -> int:
    """MACs of attention: each head multiplies queries by all keys (also cached ones) and scores by all values. Heads may share both."""
    query, key, value = (shape(name) for name in node.input[:3])
    cached = shape(node.input[4])[2] if any(node.input[4:5]) else 0
    if len(query) == 4:
        return math.prod(query[:3]) * (cached + key[2]) * (query[3] + value[3])
    heads = _attributes(node)
    width = value[2] // heads["kv_num_heads"] * heads["q_num_heads"]
    return query[0] * query[1] * (cached + key[1]) * (query[2] + width)


def _einsum(node: Any, shape: Sizes) -> int:
    """MACs of an einsum that multiplies its operands from left to right and sums over a letter once it is no longer needed."""
    equation = _attributes(node)["equation"].decode().replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    sizes: dict[str, int] = {}
    operands = []
    for term, name in zip(inputs.split(","), node.input, strict=True):
        given = shape(name)
        before, dots, after = term.partition("...")
        hidden = [f"...{place}" for place in range(len(given) - len(before) - len(after), 0, -1)] if dots else []
        sides = [*before, *hidden, *after]
        for side, size in zip(sides, given, strict=True):
            sizes[side] = max(size, sizes.get(side, 1))
        operands.append(set(sides))
    once = [side for side in sizes if inputs.count(side) == 1]
    kept = {side for side in sizes if side in (output if arrow else once) or side.startswith("...")}
    total, running = 0, operands[0]
    for place, operand in enumerate(operands[1:], 1):
        together = running | operand
        total += math.prod(sizes[side] for side in together)
        running = together & kept.union(*operands[place + 1 :])
    return total


FORMULAS: Mapping[str, Callable[[Any, Sizes], int]] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _matmul,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": lambda node, shape: _conv(node, shape, weight=3),
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
}
"""Functions that count the MACs of a node, by standard operator."""

OTHER_FORMULAS = {"FusedConv": _conv, "FusedGemm": _matmul, "FusedMatMul": _matmul, "QGemm": _matmul}
"""Functions that count the MACs of a node, by operator of onnxruntime."""

"""Tests of counting in ONNX graphs: every operator by hand, weights by their use, and what 8-bit files keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.cost.count import macs, params
from rapdarts.cost.quantized import bytes_in_int8_file
from rapdarts.deploy.blueprint import Blueprint, DerivedBlueprint, ReferenceBlueprint
from rapdarts.deploy.onnx import to_int8, to_onnx
from rapdarts.deploy.onnx_costs import costs_of
from rapdarts.deploy.runtimes import Facts
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DamagedError, InputError
from rapdarts.networks.layers import Normalise
from tests.onnx_graphs import IMAGE, constant, counted, node, of_sizes, onnx

BY_HAND: dict[str, tuple[list[Any], list[Any], tuple[int, ...], int, int]] = {
    "Conv": ([node("Conv", "x w b")], [constant("w", 8, 4, 3, 3), constant("b", 8)], IMAGE, 8 * 4 * 3 * 4 * 9, 8 * 36 + 8),
    "grouped": ([node("Conv", "x w", group=2)], [constant("w", 8, 2, 1, 1)], IMAGE, 30 * 8 * 2, 16),
    "ConvTranspose": (
        [node("ConvTranspose", "x w b", strides=[2, 2])],
        [constant("w", 4, 8, 3, 3), constant("b", 8)],
        IMAGE,
        30 * 4 * 8 * 9,
        4 * 8 * 9 + 8,
    ),
    "grouped ConvTranspose": (
        [node("ConvTranspose", "x w", group=2)], [constant("w", 4, 3, 3, 3)], IMAGE, 30 * 4 * 3 * 9, 4 * 3 * 9,
    ),
    "Gemm": (
        [node("Flatten", "x", "f"), node("Gemm", "f w b", transB=1)], [constant("w", 7, 120), constant("b", 7)], IMAGE, 840, 847,
    ),
    "Gemm, transposed": (
        [node("Reshape", "x s", "f"), node("Gemm", "f w", transA=1)],
        [onnx.numpy_helper.from_array(np.array([20, 6]), "s"), constant("w", 20, 3)],
        IMAGE,
        6 * 3 * 20,
        60,
    ),
    "MatMul and Add": (
        [node("MatMul", "x w", "m"), node("Add", "m b")], [constant("w", 5, 9), constant("b", 9)], IMAGE, 24 * 5 * 9, 45 + 9,
    ),
    "MatMul of a vector": ([node("MatMul", "x w")], [constant("w", 5)], IMAGE, 24 * 5, 5),
    "MatMul of two activations": ([node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t")], [], IMAGE, 4 * 36 * 5, 0),
    "a transposed weight": (
        [node("Transpose", "w", "t"), node("MatMul", "x t")], [constant("w", 9, 5)], IMAGE, 24 * 5 * 9, 45,
    ),
    "a weight in a node": (
        [node("Constant", "", "w", value=constant("", 5, 9)), node("MatMul", "x w")], [], IMAGE, 24 * 5 * 9, 45,
    ),
    "a product of weights": (
        [node("MatMul", "a b", "w"), node("MatMul", "x w")], [constant("a", 5, 2), constant("b", 2, 9)], IMAGE, 24 * 5 * 9, 28,
    ),
    "a weight that is used twice": (
        [node("MatMul", "x w", "m"), node("MatMul", "m w")], [constant("w", 5, 5)], IMAGE, 2 * 24 * 25, 25,
    ),
    "Einsum": ([node("Einsum", "x w", equation="nchw,kc->nkhw")], [constant("w", 7, 4)], IMAGE, 30 * 4 * 7, 28),
    "Einsum with dots": ([node("Einsum", "x w", equation="...w,wk->...k")], [constant("w", 5, 9)], IMAGE, 24 * 45, 45),
    "Einsum without an output": ([node("Einsum", "x w", equation="nchw, wk")], [constant("w", 5, 9)], IMAGE, 24 * 45, 45),
    "Einsum of three": (
        [node("Einsum", "x v w", equation="nchw,wk,km->nchm")],
        [constant("v", 5, 2), constant("w", 2, 9)],
        IMAGE,
        24 * 5 * 2 + 24 * 2 * 9,
        10 + 18,
    ),
    "PRelu": ([node("PRelu", "x w", "p"), node("Conv", "p k")], [constant("w", 4, 1, 1), constant("k", 1, 4, 1, 1)], IMAGE, 120, 4 + 4),
    "embedding": (
        [
            node("Cast", "x", "i", to=onnx.TensorProto.INT64),
            node("Gather", "w i", "e"),
            node("MatMul", "e v"),
        ],
        [constant("w", 100, 3), constant("v", 3, 2)],
        (1, 7),
        7 * 3 * 2,
        306,
    ),
    "BatchNormalization": (
        [node("BatchNormalization", "x s b m v", "n"), node("Conv", "n k")],
        [constant("s", 4), constant("b", 4), constant("m", 4), constant("v", 4), constant("k", 1, 4, 1, 1)],
        IMAGE,
        120,
        4 + 4 + 4,
    ),
    "normalised pixels": (
        [node("Sub", "x m", "c"), node("Div", "c s", "n"), node("Conv", "n k", "k1"), node("Mul", "k1 g")],
        [constant("m", 4, 1, 1), constant("s", 4, 1, 1), constant("k", 4, 4, 1, 1), constant("g", 4, 1, 1)],
        IMAGE,
        30 * 16,
        16 + 4,  # the factor after the convolution is a weight
    ),
    "numbers of the program": (
        [node("Mul", "x two", "m"), node("Clip", "m low", "c"), node("Resize", "c  scales", "r"), node("Conv", "r k")],
        [constant("two", 1), constant("low"), constant("k", 1, 4, 1, 1), of_sizes("scales", 1, 1, 2, 2)],
        IMAGE,
        4 * 120,
        4,
    ),
    "LSTM": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            onnx.helper.make_node("LSTM", ["t", "w", "r", "b"], ["y"], hidden_size=5),
        ],
        [constant("w", 1, 20, 3), constant("r", 1, 20, 5), constant("b", 1, 40)],
        (1, 6, 3),
        6 * 20 * (3 + 5),
        20 * 8 + 40,
    ),
    "GRU in both directions": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            onnx.helper.make_node("GRU", ["t", "w", "r"], ["y"], hidden_size=5, direction="bidirectional"),
        ],
        [constant("w", 2, 15, 3), constant("r", 2, 15, 5)],
        (1, 6, 3),
        6 * 2 * 15 * (3 + 5),
        2 * 15 * 8,
    ),
    "Attention": ([node("Attention", "x x x")], [], (1, 2, 7, 3), 2 * 7 * 7 * (3 + 3), 0),
    "Attention with a cache": (
        [onnx.helper.make_node("Attention", ["x", "x", "x", "", "k", "v"], ["y", "k1", "v1"])],
        [constant("k", 1, 2, 5, 3), constant("v", 1, 2, 5, 3)],
        (1, 2, 7, 3),
        2 * 7 * (5 + 7) * (3 + 3),
        0,
    ),
    "Attention of three axes with a cache": (
        [
            onnx.helper.make_node(
                "Attention", ["x", "x", "x", "", "k", "v"], ["y", "k1", "v1"], q_num_heads=2, kv_num_heads=2
            )
        ],
        [constant("k", 1, 2, 5, 3), constant("v", 1, 2, 5, 3)],
        (1, 7, 6),
        7 * (5 + 7) * (6 + 6),
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_operators_by_hand(name: str) -> None:
    nodes, constants, shape, expected_macs, expected_params = BY_HAND[name]
    found = counted(nodes, constants, shape)
    assert (found.macs, found.params, found.bytes) == (expected_macs, expected_params, 4 * expected_params)
    assert found.not_counted == {}


@given(st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=2, max_size=3), st.sets(st.sampled_from("abcd")))
def test_einsum_of_any_letters(terms: list[set[str]], kept: set[str]) -> None:
    """Each product, from left to right, takes all the letters that are still needed."""
    sides = {"a": 2, "b": 3, "c": 5, "d": 7}
    spelled = ["".join(sorted(term)) for term in terms]
    output = "".join(sorted(kept & set().union(*terms)))
    nodes = [node("Reshape", "x s", "first")]
    constants = [onnx.numpy_helper.from_array(np.array([sides[one] for one in spelled[0]]), "s")]
    names = ["first"]
    for number, term in enumerate(spelled[1:]):
        constants.append(constant(f"w{number}", *(sides[one] for one in term)))
        names.append(f"w{number}")
    nodes.append(node("Einsum", " ".join(names), equation=f"{','.join(spelled)}->{output}"))
    together = [terms[0] | terms[1]]
    if len(terms) == 3:
        together.append((together[0] & (set(output) | terms[2])) | terms[2])
    expected = sum(math.prod(sides[one] for one in letters) for letters in together)
    size = math.prod(sides[one] for one in spelled[0])
    assert counted(nodes, constants, (1, size)).macs == expected


def test_8_bit_operators() -> None:
    scale, zero = constant("s"), constant("z", dtype=np.int8)
    linear = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearConv", "q s z w ws wz s z b", "c"),
        node("DequantizeLinear", "c s z"),
    ]
    weights = [constant("w", 8, 4, 1, 1, dtype=np.int8), constant("ws", 8), constant("wz", 8, dtype=np.int8)]
    found = counted(linear, [scale, zero, *weights, constant("b", 8, dtype=np.int32)])
    assert (found.macs, found.params, found.bytes) == (30 * 32, 32 + 8, 32 + 4 * 8)
    pairs = [node("DequantizeLinear", "w ws wz", "f", axis=0), node("Conv", "x f")]
    found = counted(pairs, weights)
    assert (found.macs, found.params, found.bytes, found.scales) == (30 * 32, 32, 32, 8 * 4 + 8)
    integers = [node("QuantizeLinear", "x s z", "q"), node("MatMulInteger", "q m", "i"), node("Cast", "i", to=1)]
    found = counted(integers, [scale, zero, constant("m", 5, 9, dtype=np.int8)])
    assert (found.macs, found.params, found.bytes) == (24 * 45, 45, 45)


def test_operators_without_a_formula_are_named_and_their_weights_counted() -> None:
    nodes = [
        node("GridSample", "x g", "s"),
        node("Conv", "s k", "c"),
        node("Blend", "c w", domain="mine"),
    ]
    grid = onnx.numpy_helper.from_array(np.zeros((1, 6, 5, 2), np.float32), "g")
    found = counted(nodes, [grid, constant("k", 4, 4, 1, 1), constant("w", 11)], domain="mine")
    assert found.not_counted == {"GridSample": ["the GridSample"], "Blend": ["the Blend"]}
    assert (found.macs, found.params) == (30 * 16, 60 + 16 + 11)


def test_weights_among_the_inputs_and_fixed_first_axes() -> None:
    """Older files list their weights as inputs too; the first axis of images is the batch, that of other inputs may be a length."""
    weights = [constant("w", 8, 4, 3, 3), constant("b", 8)]
    ends = [onnx.helper.make_tensor_value_info(one.name, onnx.TensorProto.FLOAT, one.dims) for one in weights]
    for batch in ("n", 1, 7):
        image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (batch, *IMAGE[1:]))
        result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (batch, 8, 4, 3))
        graph = onnx.helper.make_graph([node("Conv", "x w b")], "graph", [image, *ends], [result], weights)
        found = costs_of(onnx.helper.make_model(graph).SerializeToString(), "net.onnx")
        assert (found.macs, found.params) == (8 * 12 * 36, 8 * 36 + 8)
    assert counted([node("MatMul", "x w")], [constant("w", 32, 8)], (16, 32)).macs == 16 * 32 * 8
    assert counted([node("MatMul", "x w")], [constant("w", 32, 8)], ("n", 32)).macs == 32 * 8


def test_graphs_that_cannot_be_counted_are_refused() -> None:
    with pytest.raises(InputError, match=r"the MACs of net\.onnx cannot be counted: it has no convolutions"):
        counted([node("Relu", "x")], [])
    conv = [node("Conv", "x w")]
    with pytest.raises(InputError, match="cannot be counted: the size of y is dynamic or unknown"):
        counted(conv, [constant("w", 8, 4, 1, 1)], ("n", 4, "rows", 5))
    with pytest.raises(InputError, match="cannot be counted: the size of z is dynamic or unknown"):
        counted(
            [node("Blend", "x", "z", domain="mine"), node("ConvTranspose", "z w")],
            [constant("w", 8, 4, 1, 1)],
            domain="mine",
        )
    for damaged in (b"", b"not a graph", conv[0].SerializeToString()):
        with pytest.raises((DamagedError, InputError)):
            costs_of(damaged, "net.onnx")


# --- networks of PyTorch -----------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """A network of layers whose weights ONNX stores in many ways."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.slope, self.norm = nn.ConvTranspose2d(1, 4, 2, 2), nn.PReLU(4), nn.LayerNorm(16)
        self.tokens, self.recurrent = nn.Linear(16, 6), nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(10, 2, batch_first=True)
        self.mixer, self.place = nn.Parameter(torch.randn(64, 3)), nn.Parameter(torch.randn(1, 64, 10))
        self.head = nn.Linear(30, 10)
        nn.init.normal_(self.attention.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.slope(self.up(x))).flatten(1, 2)
        x = self.recurrent(self.tokens(x))[0] + self.place
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(torch.einsum("ntc,tk->nck", x, self.mixer).flatten(1))


@pytest.mark.slow
def test_an_exported_network_has_the_counts_of_its_module() -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = Mixed().eval()
    found = costs_of(to_onnx(network, Facts((1, 8, 8), tuple("0123456789"))), "mixed.onnx")
    assert (found.macs, found.params) == (macs(network, (1, 8, 8)), params(network, (1, 8, 8)))
    assert found.bytes == 4 * found.params and found.not_counted == {}


def trained(blueprint: Blueprint) -> nn.Module:
    """Return the network with batch norms as after a training, so that a file cannot leave out zeros or store equal ones once."""
    torch.manual_seed(0)
    network = blueprint.build().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_mean = torch.randn_like(module.running_var)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network


CELLS = {
    "PDARTS": DerivedBlueprint(LITERATURE["PDARTS"], named_space("darts"), Skeleton(3, 6, (1, 8, 8), 10)),
    "lenet": ReferenceBlueprint("lenet", (1, 16, 16), 10),
}


@pytest.mark.proof
@pytest.mark.parametrize("name", CELLS)
def test_the_bytes_in_an_8_bit_file_are_predicted(name: str) -> None:
    """In PDARTS, 16,132 parameters are priced at 8 bits, and the file keeps 17,086 bytes.

    It has 15,246 weights (14,262 of convolutions, 960 of the classifier, 24 of a batch norm after a concatenation); the other
    batch norms become 426 biases, and there are 24 + 10 more: 15,246 + 4 x 460.
    """
    pytest.importorskip("onnxruntime")
    blueprint, image = CELLS[name], CELLS[name].image
    network = trained(blueprint)
    facts = Facts(image, tuple("0123456789"))
    whole = nn.Sequential(Normalise((0.4,) * image[0], (0.2,) * image[0]), network).eval()
    full = to_onnx(whole, facts)
    small = costs_of(to_int8(full, facts, [torch.rand(8, *image)]), "int8.onnx")
    assert small.macs == costs_of(full, "fp32.onnx").macs == macs(network, image)
    assert small.bytes == bytes_in_int8_file(network, image) > params(network, image)
    if name == "PDARTS":
        assert (params(network, image), small.bytes) == (16_132, 17_086) and 15_246 + 4 * 460 == 17_086

"""Packed trees: the same values afterwards, few tensors in the file, and nothing else accepted."""

from __future__ import annotations

import io
import json
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rapdarts.training.packing import not_finite, pack, unpack

TENSORS = st.builds(
    lambda shape, dtype, turned: torch.randn(shape).mul(9).to(dtype).mT if turned else torch.randn(shape).to(dtype),
    st.lists(st.integers(0, 4), min_size=2, max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
    st.booleans(),
) | st.builds(torch.tensor, st.floats(allow_nan=False, width=32))
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just((0.9, 0.999))
KEYS = st.text() | st.integers(0, 9)
TREES = st.dictionaries(
    KEYS, st.recursive(TENSORS | PLAIN, lambda one: st.lists(one) | st.dictionaries(KEYS, one), max_leaves=20)
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return [*a] == [*b] and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@settings(max_examples=50, deadline=None)
@given(TREES)
def test_a_tree_is_the_same_after_it_was_saved_and_read(tree: dict[Any, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(pack(tree), buffer)
    buffer.seek(0)
    assert same(tree, unpack(torch.load(buffer, weights_only=True)))


def test_a_thousand_tensors_become_one_for_each_type() -> None:
    tree = {"a": [torch.full((3,), float(i)) for i in range(1000)], "b": {i: torch.tensor(i) for i in range(5)}}
    packed = pack(tree)
    assert [numbers.shape for numbers in packed["numbers"]] == [(3000,), (5,)]
    assert packed["tree"] == {"a": [None] * 1000, "b": dict.fromkeys(range(5))}
    assert [len(group) for group in json.loads(packed["places"])] == [1000, 5]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_not_finite_is_found_in_its_entry(number: float) -> None:
    layer = {"weight": torch.ones(2, 3), "bias": torch.tensor(1.0), "count": torch.tensor(3)}
    tree: dict[str, Any] = {"meter": torch.tensor(number), "objects": {"layer": layer, 3: [torch.ones(4).double()]}}
    assert not_finite(pack(tree), "objects") == ""
    assert not_finite(pack(tree), "meter") == "" != not_finite(pack({"meter": {"loss": tree["meter"]}}), "meter")
    for name, tensor in {
        "layer.bias": layer["bias"],
        "layer.weight": layer["weight"][1:, 2],
        "3.0": tree["objects"][3][0],
    }.items():
        kept = tensor.clone()
        tensor.fill_(number)
        assert not_finite(pack(tree), "objects") == name
        tensor.copy_(kept)


def test_a_tensor_under_another_kind_of_key_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a text nor a number"):
        pack({"a": {b"bytes": torch.zeros(2)}})


def test_unpacked_tensors_share_no_memory() -> None:
    tree = unpack(pack({"a": torch.zeros(2), "b": torch.zeros(2)}))
    tree["a"].add_(1)
    assert tree["b"].tolist() == [0.0, 0.0] and tree["a"].untyped_storage().nbytes() == 8


@pytest.mark.parametrize(
    "change",
    [
        {"tree": []},
        {"tree": {"a": None}},
        {"places": []},
        {"places": None},
        {"places": {"a": 1}},
        {"places": [[(("a",), (3,)), (("b", 0), (2,))]]},
        {"places": [[(("a",), (-1,)), (("b", 0), (2,))]]},
        {"places": [[(("a",), (2,)), (("c", 0), (2,))]]},
        {"places": [[(("a",), (2,)), (("b", 7), (2,))]]},
        {"places": [[((), (2,)), (("b", 0), (2,))]]},
        {"places": [[(("a",), (10**30,)), (("b", 0), (2,))]]},
        {"places": [[(("a",), ("2",)), (("b", 0), (2,))]]},
        {"numbers": [torch.zeros(5)]},
        {"numbers": [torch.zeros(4), torch.zeros(1)]},
        {"numbers": [torch.zeros(())]},
        {"numbers": 3},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    packed = pack({"a": torch.zeros(2), "b": [torch.zeros(2)]})
    with pytest.raises(ValueError, match=r"its tensors do not fit their places|it does not contain a dictionary"):
        unpack({**packed, **change, **({"places": json.dumps(change["places"])} if "places" in change else {})})

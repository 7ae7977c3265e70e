"""MACs of operations: PyTorch's FLOP formulas, formulas that PyTorch lacks, and a test for operations without a formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

COMPLEX_MACS = 4
"""Real multiply-accumulates per complex one: (a + bi)(c + di) takes the products ac, bd, ad and bc."""


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, out: Tensor) -> int:
    """Return the MACs of the scores, (..., queries, keys), plus those of the weighted mean of the values."""
    return out.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    one: list[int],
    two: list[int],
    three: list[int],
    summed: list[int],
    *_: Any,
    out: Tensor,
) -> int:
    """Return the MACs of multiplying the first two factors, plus those of multiplying their product by the third.

    The product is first summed along the dimensions in `summed` in which the third factor is constant.
    """
    shapes = []
    for tensor, missing in ((first, one), (second, two), (third, three)):
        shape = list(tensor.shape)
        for dim in sorted(missing):
            shape.insert(dim, 1)
        shapes.append(shape)
    pair = list(torch.broadcast_shapes(*shapes[:2]))
    kept = [1 if dim in summed and shapes[2][dim] == 1 else side for dim, side in enumerate(pair)]
    return prod(pair) + prod(torch.broadcast_shapes(kept, shapes[2]))


def _grouped(left: Tensor, right: Tensor, *_: Any, out: Tensor) -> int:
    """Return the MACs of a grouped matrix product, with groups of rows, or of entries of the dimension that is summed over."""
    by_row = right.dim() == 3 or left.dim() == 3
    return out.numel() * left.shape[-1] if by_row else left.shape[0] * right.shape[1] * left.shape[1]


FORMULAS: dict[Any, Callable[..., int]] = {
    aten.mv: lambda left, *_, out: left.numel(),
    aten.addmv: lambda bias, left, *_, out: left.numel(),
    aten.dot: lambda left, *_, out: left.numel(),
    aten.vdot: lambda left, *_, out: left.numel(),
    aten.addr: lambda bias, left, right, *_, out: out.numel(),
    aten.addbmm: lambda bias, left, right, *_, out: left.numel() * right.shape[-1],
    aten._addmm_activation: lambda bias, left, right, *_, out: left.numel() * right.shape[-1],
    aten._int_mm: lambda left, right, *_, out: left.numel() * right.shape[-1],
    aten._grouped_mm: _grouped,
    aten._trilinear: _trilinear,
    aten.conv_tbc: lambda x, weight, *_, out: out.numel() * weight.shape[0] * weight.shape[1],
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}
"""MAC formulas that PyTorch's FLOP counter lacks, as functions of an operation's arguments and its first output `out`."""

ADDS_FIRST = {aten.addmm, aten.baddbmm, aten.addmv, aten.addbmm, aten.addr, aten._addmm_activation}
"""Operations that add a product of their other arguments to their first argument."""

_NO_PRODUCTS = """
_fused_rms_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _prelu_kernel _thnn_fused_gru_cell
_thnn_fused_lstm_cell _to_copy _unsafe_index_put as_strided_scatter batch_norm block_diag cat complex copy cudnn_batch_norm
diagonal_scatter dropout equal fill glu index_add index_copy index_fill index_put index_reduce isclose masked_scatter
native_batch_norm native_dropout native_group_norm native_layer_norm normal polar prelu put scatter scatter_add
scatter_reduce select_scatter slice_scatter stack
"""
NO_PRODUCTS = frozenset(_NO_PRODUCTS.split())
"""Operations on several tensors that only move, add, scale or normalise elements, so `macs` does not count them. Functions that
PyTorch marks as pointwise are not listed."""

TRANSFORMS = ("_fft_", "linalg_", "_linalg_", "cholesky", "logdet", "_cdist", "_pdist", "_euclidean_dist")
"""Name prefixes of operations that multiply even if they take a single tensor, such as Fourier transforms and inverses."""
NO_TRANSFORMS = frozenset({"linalg_vector_norm", "_linalg_check_errors"})


def has_formula(packet: Any) -> bool:
    """Return whether the MACs of an operation are known."""
    return packet in FORMULAS or packet in flop_registry


def macs_of(packet: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int:
    """Return the MACs of an operation that has a formula; a complex MAC counts as four real ones."""
    out = result[0] if isinstance(result, (tuple, list)) else result
    if packet in FORMULAS:
        macs = FORMULAS[packet](*args, out=out)
    else:
        macs = flop_registry[packet](*args, **kwargs, out_val=result) // 2
    return macs * (COMPLEX_MACS if out.is_complex() else 1)


def factors_of(packet: Any, given: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the inputs that an operation may multiply; `given` holds all of its inputs in order, tensors of any shape."""
    return given[1:] if packet in ADDS_FIRST else given


def lacks_formula(func: Any, given: Iterable[Tensor]) -> bool:
    """Return whether an operation may multiply its inputs `given`, tensors of any shape, but has no formula for its MACs.

    Element-wise products are not part of `macs`.
    """
    packet, name = func._overloadpacket, func._overloadpacket.__name__.removesuffix("_")
    if has_formula(packet) or func.is_view or torch.Tag.pointwise in func.tags or name in NO_PRODUCTS:
        return False
    if name.startswith(TRANSFORMS):
        return name not in NO_TRANSFORMS
    return sum(tensor.is_floating_point() or tensor.is_complex() for tensor in given) > 1

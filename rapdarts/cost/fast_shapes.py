"""Fast execution of operations on meta tensors, and functions that inspect operations and tensors."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
NORMS = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm, aten.batch_norm}
NORMS |= {aten._native_batch_norm_legit}
RELUS = {aten.relu, aten.relu_, aten.hardtanh, aten.hardtanh_}
TRUTHS = {aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge, aten.isnan, aten.isinf, aten.isfinite, aten.signbit}
TRUTHS |= {aten.isposinf, aten.isneginf, aten.logical_not, aten.logical_and, aten.logical_or, aten.logical_xor}
"""Pointwise functions that return booleans."""


class FastShapes(TorchDispatchMode):
    """Context that skips the slow kernels of operations on meta tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, tensors_in(args), args, kwargs or {})


def run(func: Any, given: list[Tensor], args: Any, kwargs: Any) -> Any:
    """Run an operation on tensors of any shape; on meta tensors, skip a slow kernel if the output shape is known without it."""
    if given and given[0].is_meta:
        if func._overloadpacket in NORMS and not uses_own_statistics(func, args, kwargs):
            return given[0], given[0].new_empty(0), given[0].new_empty(0)
        if func._overloadpacket in RELUS:
            return given[0]
        shape = None if func._schema.is_mutable else _shape(func, given, args)
        if shape is not None:
            return given[0].new_empty(shape)
    return func(*args, **kwargs)


def uses_own_statistics(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a batch norm computes the mean and variance of its input, as instance norms do, and therefore cannot be folded."""
    names = [argument.name for argument in func._schema.arguments]
    if "training" not in names:
        return False
    place = names.index("training")
    return bool(args[place] if place < len(args) else kwargs.get("training"))


def _shape(func: Any, given: list[Tensor], args: Any) -> list[int] | None:
    """Return the output shape of an operation if its meta kernel is slow or imports PyTorch's compiler, else None."""
    same_type = given and given[0].is_floating_point() and len({tensor.dtype for tensor in given}) == 1
    if torch.Tag.pointwise in func.tags and same_type and func._overloadpacket not in TRUTHS:
        return list(torch.broadcast_shapes(*(tensor.shape for tensor in given)))
    shape = list(given[0].shape) if given else []
    if func._overloadpacket is aten.cat:
        dim = args[1] if len(args) > 1 else 0
        shape[dim] = sum(tensor.shape[dim] for tensor in given)
        return shape
    if func is aten.mean.dim:
        gone = {dim % len(shape) for dim in args[1] or range(len(shape))}
        keep = len(args) > 2 and args[2]
        return [1 if i in gone else side for i, side in enumerate(shape) if keep or i not in gone]
    if func is aten.addmm.default and args[1].shape[1] == args[2].shape[0]:
        return [args[1].shape[0], args[2].shape[1]]
    return None


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Return all tensors, of any shape, in `values` and in the lists and tuples nested in them."""
    found = []
    for value in values:
        found += [value] if isinstance(value, Tensor) else tensors_in(value) if isinstance(value, (list, tuple)) else []
    return found


def parts_of(tensor: Tensor) -> int:
    """Return the number of real numbers per element of a tensor of any shape: 2 if it is complex, else 1."""
    return 2 if tensor.is_complex() else 1


def numbers_stored(tensor: Tensor) -> int:
    """Return the number of real numbers in the storage of a tensor of any shape."""
    if tensor.layout is not torch.strided:
        return tensor.numel() * parts_of(tensor)
    return tensor.untyped_storage().nbytes() // tensor.itemsize * parts_of(tensor)


def numbers_in(tensor: Tensor) -> int:
    """Return the number of distinct real numbers in a tensor of any shape; elements repeated by `expand` count once."""
    elements = tensor.numel()
    if tensor.layout is torch.strided and not tensor.is_contiguous():
        elements //= prod(
            side for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if not stride and side > 1
        )
    return min(elements * parts_of(tensor), numbers_stored(tensor))


def fills_storage(tensor: Tensor) -> bool:
    """Return whether a tensor of any shape covers its whole storage."""
    return numbers_in(tensor) >= numbers_stored(tensor)

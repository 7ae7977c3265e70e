"""Recorder of a trace: it records the operations of a forward pass and numbers the activations.

Results of operations on weights alone are constants. They are computed once, not for every image, so they count as weights, and
their operations are not recorded. The same is true of tensors that do not depend on an input, such as masks and positions. The
only exception is the first step of PyTorch's recurrent layers. It is recorded like the other steps, although its initial state is
a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from rapdarts.cost import products
from rapdarts.cost.contractions import SUMS, Contractions, arrangement, factors_of, terms_of
from rapdarts.cost.fast_shapes import (
    NORMS,
    RELUS,
    FastShapes,
    aten,
    fills_storage,
    numbers_in,
    numbers_stored,
    parts_of,
    run,
    tensors_in,
    uses_own_statistics,
)

MOVES = {aten.cat, aten.stack, aten.constant_pad_nd, aten.clone, aten._to_copy, aten.copy_, aten._unsafe_view}
MOVES |= {aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle, aten.native_channel_shuffle}
"""Operations that only move values; a good runtime writes the values directly to their final place."""
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
LOOKUPS = {aten.embedding, aten.index, aten.index_select, aten.gather, aten.take}
"""Operations that read only those elements of their first tensor that they return."""
BAGS = {aten._embedding_bag, aten._embedding_bag_forward_only}
"""Operations that look up rows of their first tensor and return sums of them."""
CONVOLUTIONS = {aten.convolution, aten._convolution, aten.cudnn_convolution}
POOLS = {
    aten.max_pool2d_with_indices,
    aten.adaptive_max_pool2d,
    aten.avg_pool2d,
    aten._adaptive_avg_pool2d,
    aten.mean,
}
KINDS = {
    **dict.fromkeys(NORMS, "norm"),
    **dict.fromkeys(RELUS, "relu"),
    **dict.fromkeys(CONVOLUTIONS, "conv"),
    **dict.fromkeys(POOLS, "pool"),
}


@dataclass(frozen=True)
class Op:
    """An operation. Activations are numbered; the output of an in-place or folded operation has its input's number.

    `kind` is conv, linear, matmul (of two activations), pool, norm, relu or other. `layer` is the dotted name of the module that
    runs it. `reads` are the activations, or parts of activations, that it reads, each with its number of elements. `weights` is
    the number of weight elements that it reads, and `parameters` are the names of the parameters that they come from. `writes` is
    its output activation, with the shape `shape`, and `also` are further outputs that are used later. `free` operations cause no
    memory traffic: batch norms and pointwise functions of one tensor are folded into a neighbouring operation, and views and
    concatenations move nothing. `overwrites` are the inputs that its output may replace in memory. `uncounted` is the name of the
    operation if it multiplies tensors, or adds up element-wise products, but has no MAC formula; otherwise it is empty. `parts`
    is 2 for complex numbers, else 1.
    """

    name: str
    kind: str
    layer: str
    macs: int
    weights: int
    parameters: tuple[str, ...]
    reads: tuple[tuple[int, int], ...]
    writes: int
    shape: tuple[int, ...]
    free: bool
    also: tuple[int, ...] = ()
    overwrites: tuple[int, ...] = ()
    uncounted: str = ""
    parts: int = 1

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel() * self.parts


@dataclass(frozen=True)
class Trace:
    """Operations in order, the number of elements of every activation (the `inputs` come first), and the number of the output."""

    ops: tuple[Op, ...]
    sizes: dict[int, int]
    output: int
    inputs: int = 1


class Recorder(FastShapes):
    """Context that records the operations of a forward pass."""

    def __init__(self, weights: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.sizes: dict[int, int] = {}
        self.stack: list[tuple[str, nn.Module]] = []
        self._numbers: dict[int, int] = {}
        self._origins: dict[int, View] = {}  # from the storage of a folded output to its input
        self._alive: list[Tensor] = []  # keeps storages alive, so that their addresses stay unique
        self._constants: dict[int, tuple[str, ...]] = {_storage(tensor): (name,) for name, tensor in weights.items()}
        self._contractions = Contractions()
        self._inputs = len(inputs)
        self._complex = any(tensor.is_complex() for tensor in weights.values())
        for tensor in inputs:
            self.number(tensor)

    def watch(self, network: nn.Module) -> list[RemovableHandle]:
        """Add hooks that keep `stack`, the modules that are running, up to date."""
        hooks = []
        for name, module in network.named_modules():
            enter = partial(self._enter, name)
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(self._leave)]
        return hooks

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        self.stack.append((name, module))

    def _leave(self, module: nn.Module, inputs: Any, result: Any) -> None:
        self.stack.pop()

    def complex_convolutions(self) -> AbstractContextManager[object]:
        """Return a context that counts complex convolutions in full, or an empty context, which is faster, if no weight is complex."""
        return _ComplexConvolutions(self.ops) if self._complex else nullcontext()

    def finish(self, output: Tensor) -> Trace:
        """Return the trace that ends in the network's `output`, of any shape; unused additional outputs of operations are dropped."""
        result = self.number(output)
        used = {number for op in self.ops for number, _ in op.reads} | {result}
        ops, sizes = [], dict(self.sizes)
        for op in self.ops:
            outputs = (op.writes, *op.also)
            kept = [number for number in outputs if number in used] or [op.writes]
            ops.append(replace(op, writes=kept[0], also=tuple(kept[1:])) if op.also else op)
            for number in set(outputs) - set(kept):
                sizes.pop(number, None)
        return Trace(tuple(ops), sizes, result, self._inputs)

    def number(self, tensor: Tensor) -> int:
        """Return the number that identifies a tensor's activation; the tensor may have any shape and may be a view."""
        key = _storage(tensor)
        if key not in self._numbers:
            self._numbers[key] = len(self.sizes)
            self.sizes[self._numbers[key]] = numbers_stored(tensor)
            self._alive.append(tensor)
        return self._numbers[key]

    def _view(self, tensor: Tensor) -> View:
        """Return the part of an activation that a tensor represents or is a function of."""
        number = self.number(tensor)
        origin = self._origins.get(_storage(tensor), (number, None))
        return origin if fills_storage(tensor) else (number, (origin[1], *_place(tensor)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tensors_in((*args, *(kwargs or {}).values()))
        result = run(func, given, args, kwargs or {})
        written = tensors_in(result if isinstance(result, (tuple, list)) else (result,))
        name = func._overloadpacket.__name__
        of_shape = name.startswith("new_") or name.endswith("_like")  # these read no values
        if written and not (of_shape or self._are_constant(func, given)):
            self._record(func, args, kwargs or {}, given, result, written)
        else:
            self._keep(given, written)
        return result

    def _are_constant(self, func: Any, given: Sequence[Tensor]) -> bool:
        """Return whether an operation on these tensors has the same result for every image; see the module's docstring."""
        if not all(map(self._is_constant, given)):
            return False
        recurrent = bool(self.stack) and isinstance(self.stack[-1][1], RECURRENT)
        state = any(not self._names([tensor]) for tensor in given)  # not computed from weights
        return not (recurrent and state and products.has_formula(func._overloadpacket))

    def _is_constant(self, tensor: Tensor) -> bool:
        return _storage(tensor) in self._constants

    def _names(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """Return the names of the parameters that constants are computed from."""
        names = (name for tensor in tensors for name in self._constants.get(_storage(tensor), ()))
        return tuple(dict.fromkeys(names))

    def _keep(self, given: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        """Mark the results of an operation as constants."""
        names = self._names(given)
        for tensor in written:
            self._constants[_storage(tensor)] = names
            self._alive.append(tensor)

    def _record(
        self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor], result: Any, written: Sequence[Tensor]
    ) -> None:
        packet, out = func._overloadpacket, written[0]
        constants = [tensor for tensor in given if self._is_constant(tensor)]
        read = [tensor for tensor in given if not self._is_constant(tensor)]
        macs, kind = self._product(packet, args, kwargs, given, result)
        names, limits = self._names(constants), _limits(packet, given, out)
        weights = {(_storage(tensor), *_place(tensor)): tensor for tensor in constants}
        views = self._views(read, limits)
        reads = [(number, elements) for (number, _), elements in views.items() if elements]
        # A sum reads every term, even a repeated one, because the cost of an edge must not depend on the other edges.
        if packet in SUMS:
            reads = [(self.number(tensor), numbers_in(tensor)) for tensor in read]
        pointwise = torch.Tag.pointwise in func.tags
        alone = pointwise and len(given) == 1 and numbers_in(out) == numbers_in(given[0])
        folded = alone or (packet in NORMS and not uses_own_statistics(func, args, kwargs))
        if folded and _storage(out) not in self._numbers:
            self._numbers[_storage(out)], self._origins[_storage(out)] = self.number(read[0]), self._view(read[0])
            self._alive.append(out)
        uncounted = packet.__name__ if products.lacks_formula(func, given) else ""
        uncounted = uncounted or self._contractions.name(func, args, given)
        uncounted = uncounted or self._contractions.name_of_parts(packet, given, _distance(views))
        factors = factors_of(packet, given)
        factors = factors[:1] if self._are_one(factors) else factors
        terms = [term for term in terms_of(packet, given) if not self._is_constant(term)]
        shared = _storage(out) in map(_storage, given)
        self._constants.pop(_storage(out), None)  # if an activation is written into a constant
        moves = packet in MOVES or func.is_view or (shared and not func._schema.is_mutable)
        into = pointwise and not (folded or shared)
        op = Op(
            packet.__name__,
            KINDS.get(packet, kind),
            self.stack[-1][0] if self.stack else "",
            macs,
            sum(limits.get(id(tensor), numbers_in(tensor)) for tensor in weights.values()),
            names,
            tuple(reads),
            self.number(out),
            tuple(out.shape),
            folded or moves,
            tuple(self.number(tensor) for tensor in written[1:] if tensor.numel() and not moves),
            self._replaceable(views, numbers_in(out)) if into else (),
            uncounted,
            parts_of(out),
        )
        if not shared or func._schema.is_mutable:
            self._contractions.follow(func, given, factors, terms, out, keeps=op.free or packet in LOOKUPS)
        self.ops.append(op)

    def _are_one(self, factors: Sequence[Tensor]) -> bool:
        """Return whether all factors are functions of the same tensor, as in `x * x` or `x * sigmoid(x)`.

        Different arrangements of a tensor count as different tensors: `x[:, None] * x[:, :, None]` has the elements of a Gram matrix.
        """
        if any(map(self._is_constant, factors)):
            return False
        views = {self._view(factor) for factor in factors}
        placed = {(_storage(factor), arrangement(factor)) for factor in factors}
        shapes = {frozenset(sides) for _, sides in placed}
        # A function may change the layout, so the order of sides is compared only within a storage.
        return len(views) == len(shapes) == 1 and len(placed) == len({storage for storage, _ in placed})

    def _product(self, packet: Any, args: Any, kwargs: Any, given: Sequence[Tensor], result: Any) -> tuple[int, str]:
        """Return the MACs of an operation, and its kind, which depends on its factors."""
        factors = products.factors_of(packet, given)
        by_names = [self._constants.get(_storage(factor)) for factor in factors]
        if not products.has_formula(packet) or all(by_names):  # or it adds a product of weights to an activation
            return 0, "other"
        return products.macs_of(packet, args, kwargs, result), "linear" if any(by_names[:2]) else "matmul"

    def _views(self, tensors: Iterable[Tensor], limits: Mapping[int, int]) -> dict[View, int]:
        """Return the distinct parts of activations that an operation reads, each with the number of its elements not yet read."""
        found: dict[View, int] = {}
        left: dict[int, int] = {}
        for tensor in tensors:
            view = self._view(tensor)
            if view not in found:
                rest = left.get(view[0], self.sizes[view[0]])
                found[view] = min(limits.get(id(tensor), numbers_in(tensor)), rest)
                left[view[0]] = rest - found[view]
        return found

    def _replaceable(self, views: Mapping[View, int], size: int) -> tuple[int, ...]:
        """Return the activations that an output of `size` elements may overwrite, unless something else reads them."""
        numbers = [number for number, _ in views]
        return tuple(
            number
            for number, part in views
            if part is None and number >= self._inputs and self.sizes[number] == size and numbers.count(number) == 1
        )


View = tuple[int, Any]
"""Number of an activation, and a part of it (None: the whole activation)."""


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return the place of a tensor in its storage."""
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _distance(views: Iterable[View]) -> int:
    """Return the distance in memory between two parts of one activation, or 0 if the views are not two such parts."""
    parts = [(number, *part[:2]) for number, part in views if part is not None]
    if len(parts) != 2 or parts[0][:2] != parts[1][:2]:
        return 0
    return abs(parts[0][2] - parts[1][2])


def _limits(packet: Any, given: Sequence[Tensor], out: Tensor) -> dict[int, int]:
    """Map the id of a lookup's first tensor to the number of elements read from it; the map is empty for other operations."""
    if packet in LOOKUPS:
        return {id(given[0]): min(numbers_in(given[0]), numbers_in(out))}
    if packet in BAGS:
        return {id(given[0]): min(numbers_in(given[0]), given[1].numel() * given[0].shape[1])}
    return {}


class _ComplexConvolutions(TorchFunctionMode):
    """Context that counts a complex convolution as four real ones, although PyTorch computes it with three."""

    def __init__(self, ops: list[Op]) -> None:
        super().__init__()
        self.ops = ops

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.ops)
        result = func(*args, **(kwargs or {}))
        if func in COMPLEX_CONVOLUTIONS and args and isinstance(args[0], Tensor) and args[0].is_complex():
            first = next((step for step, op in enumerate(self.ops) if step >= before and op.kind == "conv"), None)
            if first is not None:
                self.ops[first] = replace(self.ops[first], macs=2 * self.ops[first].macs)
        return result


COMPLEX_CONVOLUTIONS: set[Any] = {torch.conv1d, torch.conv2d, torch.conv3d}
COMPLEX_CONVOLUTIONS |= {torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d}

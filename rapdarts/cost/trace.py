"""The trace of a network on one image: a record of its operations, from which costs are counted.

The network runs on meta tensors, which have shapes but no values and no memory. MACs come from PyTorch's own FLOP formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.hooks import RemovableHandle

from rapdarts.errors import InputError

Image = tuple[int, int, int]

aten = torch.ops.aten
NORMS = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm, aten.batch_norm}
RELUS = {aten.relu, aten.relu_, aten.hardtanh, aten.hardtanh_}
MOVES = {aten.cat, aten.stack, aten.constant_pad_nd, aten.clone, aten._to_copy, aten.copy_, aten._unsafe_view}
"""Operations that only move values; a good runtime writes the values directly to their final place."""
TRUTHS = {aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge, aten.isnan, aten.isinf, aten.isfinite, aten.signbit}
TRUTHS |= {aten.isposinf, aten.isneginf, aten.logical_not, aten.logical_and, aten.logical_or, aten.logical_xor}
"""Pointwise functions that return booleans."""
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

    `kind` is conv, linear, matmul (of two activations), pool, norm, relu or other. `layer` is the dotted name of the
    module that runs it. `reads` are the activations that it reads, each with its number of elements. `weights` is the
    number of weight elements that it reads, `parameters` the names of these tensors in the network. `writes` is its
    output activation, of shape `shape`. `free` operations cause no memory traffic: batch norms and pointwise functions
    of one tensor are folded into a neighbouring operation; views and concatenations move nothing.
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

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Trace:
    """The operations in order, the elements of every activation (the image is number 0), and the number of the output."""

    ops: tuple[Op, ...]
    sizes: dict[int, int]
    output: int


def trace(network: nn.Module, image: Image) -> Trace:
    """Return the trace of `network`, in eval mode, on one image (channels, height, width); the network is not changed.

    Raises InputError, naming the layer, if the network cannot take such an image or needs the values of its pixels.
    """
    memory = _remembered.get()
    if memory is not None and (id(network), image) in memory:
        return memory[id(network), image]
    modes = [(module, module.training) for module in network.modules()]
    tensors = [*network.named_parameters(), *network.named_buffers()]
    bare = {name: tensor.detach().to("meta") for name, tensor in tensors}
    dtype = next((tensor.dtype for tensor in bare.values() if tensor.is_floating_point()), torch.float32)
    pixels = torch.empty(1, *image, dtype=dtype, device="meta")
    recorder = _Recorder(bare, pixels)
    hooks = recorder.watch(network)
    try:
        with torch.no_grad(), recorder:
            output = functional_call(network.eval(), bare, (pixels,))
    except Exception as error:
        layer, module = recorder.stack[-1] if recorder.stack else ("", network)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        where = f"layer {layer} ({type(module).__name__})" if layer else f"the network ({type(module).__name__})"
        shape = "x".join(map(str, image))
        raise InputError(
            f"{where} fails on an image of {shape}: {first[:200]}. Pass a different input=CxHxW, or fix the network."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise InputError(f"the network ({type(network).__name__}) returns a {kind}; it must return a tensor of logits.")
    result = Trace(tuple(recorder.ops), recorder.sizes, recorder.number(output))
    if memory is not None:
        memory[id(network), image] = result
    return result


_remembered: ContextVar[dict[tuple[int, Image], Trace] | None] = ContextVar("traces", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Trace a network only once within this context, for all callers; the network must not be changed or replaced meanwhile."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


class FastShapes(TorchDispatchMode):
    """A context in which meta tensors are as fast for other counters as for a trace."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, _tensors(args), args, kwargs or {})


class _Recorder(FastShapes):
    """A context that records the operations of a forward pass."""

    def __init__(self, weights: Mapping[str, Tensor], pixels: Tensor) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.sizes: dict[int, int] = {}
        self.stack: list[tuple[str, nn.Module]] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # keeps storages alive, so that their addresses stay unique
        self._weights = {self._storage(tensor): name for name, tensor in weights.items()}
        self.number(pixels)

    def watch(self, network: nn.Module) -> list[RemovableHandle]:
        """Add hooks that keep `stack`, the modules whose forward is running, up to date."""
        hooks = []
        for name, module in network.named_modules():
            enter = partial(self._enter, name)
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(self._leave)]
        return hooks

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        self.stack.append((name, module))

    def _leave(self, module: nn.Module, inputs: Any, result: Any) -> None:
        self.stack.pop()

    def number(self, tensor: Tensor) -> int:
        """Return the number of the activation that a tensor is, or is a view of."""
        key = self._storage(tensor)
        if key not in self._numbers:
            self._numbers[key] = len(self.sizes)
            self.sizes[self._numbers[key]] = tensor.numel()
            self._alive.append(tensor)
        return self._numbers[key]

    def fold(self, tensor: Tensor, into: Tensor) -> None:
        """Assign to a tensor the number of the activation `into`."""
        self._numbers[self._storage(tensor)] = self.number(into)
        self._alive.append(tensor)

    @staticmethod
    def _storage(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, given = func._overloadpacket, _tensors(args)
        read = [tensor for tensor in given if self._storage(tensor) not in self._weights]
        weights = [tensor for tensor in given if self._storage(tensor) in self._weights]
        alone = torch.Tag.pointwise in func.tags and len(given) == 1
        folded = bool(read) and (packet in NORMS or alone)
        result = _run(func, given, args, kwargs or {})
        written = _tensors(result if isinstance(result, (tuple, list)) else (result,))
        if read and written:
            if folded:
                self.fold(written[0], read[0])
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=result) if packet in flop_registry else 0
            op = Op(
                packet.__name__,
                KINDS.get(packet, ("linear" if weights else "matmul") if flops else "other"),
                self.stack[-1][0] if self.stack else "",
                flops // 2,
                sum(tensor.numel() for tensor in weights),
                tuple(self._weights[self._storage(tensor)] for tensor in weights),
                tuple((self.number(tensor), tensor.numel()) for tensor in read),
                self.number(written[0]),
                tuple(written[0].shape),
                folded or packet in MOVES or func.is_view,
            )
            self.ops.append(op)
        return result


def _run(func: Any, given: list[Tensor], args: Any, kwargs: Any) -> Any:
    """Run an operation; on meta tensors, skip its kernel if the kernel is slow and the output shape is known."""
    if given and given[0].is_meta:
        if func._overloadpacket in NORMS:
            return given[0], given[0].new_empty(0), given[0].new_empty(0)
        if func._overloadpacket in RELUS:
            return given[0]
        shape = None if func._schema.is_mutable else _shape(func, given, args)
        if shape is not None:
            return given[0].new_empty(shape)
    return func(*args, **kwargs)


def _shape(func: Any, given: list[Tensor], args: Any) -> list[int] | None:
    """Return the output shape of an operation whose meta kernel is slow or imports PyTorch's compiler, else None."""
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


def _tensors(values: Any) -> list[Tensor]:
    """Return the tensors among arguments, including those in nested lists and tuples."""
    found = []
    for value in values:
        found += [value] if isinstance(value, Tensor) else _tensors(value) if isinstance(value, (list, tuple)) else []
    return found

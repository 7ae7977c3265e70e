"""Stacks: the same layer of several slots, run as one operation.

A slot is one primitive on one edge. The slots of a chain hold modules of identical structure, each with its own weights. A chain
runs them layer by layer; each layer runs once for all slots, with their weights stacked. Slots on edges that leave the same state
read the same block of channels (`BlockMap`), so a layer without weights runs once for all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rapdarts.networks.batched.bundles import Bundle
from rapdarts.networks.batched.layout import BlockMap, Geometry, images, pixels
from rapdarts.networks.batched.separable import separable
from rapdarts.networks.batched.sums import NormOnGpu, WeightedNorm, WeightedTerm, apply_mask
from rapdarts.networks.layers import AvgPool, OffsetConvs

WEIGHTLESS = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, AvgPool, nn.Identity)
"""Layers that treat all channels in the same way, so that they can run on any bundle."""

WIDEST_POOL = 11
"""Maximum side of a window in our pools, which store the position of a maximum in 7 bits."""


def layers_of(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a primitive in order; a module of unknown structure counts as one layer."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and not _hooked(module):
        layers = [layer for part in module for layer in layers_of(part)]
        if len(set(layers)) == len(layers):  # otherwise, a layer used twice would get two sets of weights
            return layers
    return [module]


class Stack(nn.Module):
    """The same layer of all slots: maps a bundle (n, blocks*C, h, w) to (n, slots*C', h', w').

    `block_map` says which block each slot reads. Our kernels write the result into the buffer `out` if it is given; other
    layers ignore it. `origins` maps each stacked tensor to the tensors of the slots' modules that it contains.
    """

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, list[Tensor]] = {}

    def pack(self, name: str, tensors: Sequence[Any]) -> None:
        """Concatenate the slots' tensors along the first axis and register the result as the parameter or buffer `name`."""
        stacked = torch.cat([tensor.detach() for tensor in tensors])
        if isinstance(tensors[0], nn.Parameter):
            self.register_parameter(name, nn.Parameter(stacked, requires_grad=tensors[0].requires_grad))
        else:
            self.register_buffer(name, stacked)
        self.origins[name] = list(tensors)


class StackedConv(Stack):
    """The convolutions of all slots as one grouped convolution: (n, blocks*C, h, w) to (n, slots*C', h', w')."""

    weight: Tensor

    def __init__(self, slots: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.slots, first = len(slots), slots[0]
        self.groups = first.groups
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.pack("weight", [slot.weight for slot in slots])
        self.bias: Tensor | None = None
        if first.bias is not None:
            del self.bias
            self.pack("bias", [slot.bias for slot in slots])

    def forward(self, x: Bundle, block_map: BlockMap, out: Tensor | None = None) -> Tensor:
        if self.groups == 1 and block_map.is_grouped:
            read, groups = x.x, block_map.blocks  # one wide convolution serves all slots of a block
        else:
            read, groups = x.index_select(block_map).x, self.slots * self.groups
        return F.conv2d(read, self.weight, self.bias, self.stride, self.padding, self.dilation, groups)


class StackedSeparable(Stack):
    """A depthwise and a pointwise convolution for each slot: (n, blocks*C, h, w) to (n, slots*C', h', w')."""

    depthwise: Tensor
    pointwise: Tensor

    def __init__(self, depthwise: Sequence[nn.Conv2d], pointwise: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first: Any = depthwise[0]
        self.geometry = Geometry(first.stride, first.padding, first.dilation)
        self.pack("depthwise", [slot.weight for slot in depthwise])
        self.pack("pointwise", [slot.weight for slot in pointwise])

    def forward(self, x: Bundle, block_map: BlockMap, out: Tensor | None = None) -> Tensor:
        return separable(x, block_map, self.depthwise, self.pointwise, self.geometry, out)


class StackedHalves(Stack):
    """`OffsetConvs` for each slot: (n, blocks*C, h, w) to (n, slots*C', ceil(h/2), ceil(w/2))."""

    def __init__(self, slots: Sequence[OffsetConvs]) -> None:
        super().__init__()
        self.slots = len(slots)
        self.even, self.odd = StackedConv([slot.even for slot in slots]), StackedConv([slot.odd for slot in slots])

    def forward(self, x: Bundle, block_map: BlockMap, out: Tensor | None = None) -> Tensor:
        even, odd = (Bundle(half, x.kernels) for half in OffsetConvs.pixels(x.x))
        parts = (self.even(even, block_map), self.odd(odd, block_map))
        halves = [pixels(part).unflatten(3, (self.slots, -1)) for part in parts]
        return images(torch.cat(halves, 4).flatten(3))


class StackedNorm(Stack):
    """A batch norm for each slot, followed by a ReLU if `relu`: (n, blocks*C, h, w) to (n, slots*C, h, w)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, slots: Sequence[nn.BatchNorm2d], relu: bool = False) -> None:
        super().__init__()
        first, self.relu = slots[0], relu
        self.channels, self.eps, self.momentum = first.num_features, first.eps, first.momentum or 0.0
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None
        for name in ("weight", "bias") if first.affine else ():
            delattr(self, name)
            self.pack(name, [getattr(slot, name) for slot in slots])
        for name in ("running_mean", "running_var"):
            self.pack(name, [getattr(slot, name) for slot in slots])

    def forward(self, x: Bundle, block_map: BlockMap, out: Tensor | None = None) -> Tensor:
        if self.training and self.weight is None and x.uses("norms", self.channels):
            result: Tensor = NormOnGpu.apply(  # type: ignore[no-untyped-call]
                x.x, block_map, self.running_mean, self.running_var, self.momentum, self.eps, self.relu
            )
            return result
        normalised = torch.native_batch_norm(
            x.index_select(block_map).x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.training,
            self.momentum,
            self.eps,
        )[0]
        return F.relu(normalised) if self.relu else normalised

    def weighted(self, x: Tensor, block_map: BlockMap, scale: Tensor) -> Tensor:
        """Normalise `x` (n, blocks*C, h, w) and multiply it by `scale` (slots*C,): (n, slots*C, h, w).

        The mixing weight takes the place of the learned scale of a batch norm.
        """
        result: Tensor = WeightedNorm.apply(  # type: ignore[no-untyped-call]
            x, scale, block_map, self.running_mean, self.running_var, self.training, self.momentum, self.eps
        )
        return result


class PerSlot(Stack):
    """Layers of unknown structure: every slot runs its own module on its block.

    Maps a bundle (n, blocks*C, h, w) to (n, slots*C', h', w').
    """

    def __init__(self, slots: Sequence[nn.Module]) -> None:
        super().__init__()
        self.slots = nn.ModuleList(copy.deepcopy(slot) for slot in slots)
        for i, slot in enumerate(slots):
            for name, tensor in slot.state_dict(keep_vars=True).items():
                self.origins[f"slots.{i}.{name}"] = [tensor]

    def forward(self, x: Bundle, block_map: BlockMap, out: Tensor | None = None) -> Tensor:
        return torch.cat([slot(block) for slot, block in zip(self.slots, block_map.split(x.x), strict=True)], 1)


class Elementwise(Stack):
    """A layer without weights, the same for all channels: (n, blocks*C, h, w) to (n, slots*C, h', w')."""

    def __init__(self, slots: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layer = slots[0]

    def forward(self, x: Bundle, block_map: BlockMap, out: Tensor | None = None) -> Tensor:
        return self.layer(x.index_select(block_map).x)


class Chain(nn.Module):
    """A primitive on all its slots: computes the weighted terms of the nodes' sums from the states that the slots read.

    `slots` holds the module of each slot, and `block_map` maps the slots to the states.
    """

    def __init__(self, slots: Sequence[nn.Module], block_map: BlockMap) -> None:
        super().__init__()
        self.block_map = block_map
        rows = [layers_of(slot) for slot in slots]
        if not all(_alike(column) for column in zip(*rows, strict=False)) or len({len(row) for row in rows}) > 1:
            rows = [[slot] for slot in slots]
        columns = list(zip(*rows, strict=True))
        self.relu = bool(columns) and _weightless(columns[0], nn.ReLU)
        columns = columns[self.relu :]
        self.shared = nn.ModuleList()
        while columns and _weightless(columns[0]):
            self.shared.append(columns.pop(0)[0])
        self.norm: StackedNorm | None = None
        if columns and _stackable_norm(columns[-1]) and not columns[-1][0].affine:
            self.norm = StackedNorm(columns.pop())
        self.layers = nn.ModuleList(_stacks(columns))

    def forward(self, x: Bundle, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weighted terms (n, slots*C, h', w') of a bundle (n, blocks*C, h, w); `scale` is (slots*C,).

        `mask` (n, h', w', slots, C) is True where an element is kept.
        """
        y = self.before_norm(x)
        if self.norm is not None:
            weighted = self.norm.weighted(y, self.output_map, scale)
            return weighted if mask is None else images(apply_mask(pixels(weighted), mask))
        result: Tensor = WeightedTerm.apply(y, scale, self.output_map, mask)  # type: ignore[no-untyped-call]
        return result

    @property
    def is_identity(self) -> bool:
        """True if the terms are the states themselves, up to their weights."""
        shared = [layer for layer in self.shared if type(layer) is not nn.Identity]
        return not (self.relu or shared or len(self.layers) or self.norm)

    @property
    def output_map(self) -> BlockMap:
        """Map from slots to blocks of the layers' output: every slot reads its own block if there are layers with weights."""
        return BlockMap.identity(len(self.block_map.sources)) if len(self.layers) else self.block_map

    def before_norm(self, x: Bundle, out: Tensor | None = None) -> Tensor:
        """Run all layers except the norm on a bundle (n, blocks*C, h, w).

        Returns (n, blocks'*C, h', w'), where `output_map` says which block each slot reads. The result is written into
        `out` if it is given and one of our kernels runs the last layer.
        """
        if self.relu:
            x = x.rectified
        last = [*self.shared, *self.layers][-1:]
        for layer in self.shared:
            x = Bundle(apply_weightless(layer, x, out if layer in last else None), x.kernels)
        block_map = self.block_map
        for layer in self.layers:
            x = Bundle(layer(x, block_map, out if layer in last else None), x.kernels)
            block_map = self.output_map
        return x.x


def _stacks(columns: Sequence[Sequence[nn.Module]]) -> Iterator[Stack]:
    """Yield a stack for each layer; a depthwise convolution and the pointwise one that follows it share a stack."""
    at = 0
    while at < len(columns):
        column, following = columns[at], columns[at + 1] if at + 1 < len(columns) else ()
        if _stackable_convs(column) and _stackable_convs(following) and _is_separable(column[0], following[0]):
            yield StackedSeparable(column, following)  # type: ignore[arg-type]
            at += 2
            continue
        if _stackable_convs(column):
            yield StackedConv(column)  # type: ignore[arg-type]
        elif _stackable_norm(column):
            relu = bool(following) and _weightless(following, nn.ReLU)
            yield StackedNorm(column, relu)  # type: ignore[arg-type]
            at += relu
        elif all(type(slot) is OffsetConvs and not any(map(_hooked, slot.modules())) for slot in column):
            yield StackedHalves(column)  # type: ignore[arg-type]
        elif _weightless(column):
            yield Elementwise(column)
        else:
            yield PerSlot(column)
        at += 1


def _alike(column: Sequence[nn.Module]) -> bool:
    """Return True if the modules of a layer differ only in the values of their tensors."""
    builds = [_build(slot) for slot in column]
    return builds.count(builds[0]) == len(builds)


def _build(module: nn.Module) -> tuple[object, ...]:
    """Describe a module without the values of its tensors: its repr, its `__constants__`, and which weights require gradients.

    The repr does not show all constants.
    """
    constants = [
        getattr(part, name, None) for part in module.modules() for name in getattr(type(part), "__constants__", ())
    ]
    return repr(module), constants, [weight.requires_grad for weight in module.parameters()]


def _hooked(module: nn.Module) -> bool:
    """Return True if the module has hooks or a `forward` of its own, so that a call does more than its class defines."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def _weightless(column: Sequence[nn.Module], *kinds: type[nn.Module]) -> bool:
    """Return True if every slot's layer is one of `kinds` (default: WEIGHTLESS) without hooks, so that one layer can serve all slots."""
    return all(type(slot) in (kinds or WEIGHTLESS) and not _hooked(slot) for slot in column)


def _stackable_convs(column: Sequence[nn.Module]) -> bool:
    return bool(column) and all(
        type(slot) is nn.Conv2d
        and slot.padding_mode == "zeros"
        and not isinstance(slot.padding, str)
        and not _hooked(slot)
        for slot in column
    )


def _is_separable(first: Any, second: Any) -> bool:
    """Return True if the first convolution is depthwise, the second is pointwise, and neither has a bias."""
    return (
        first.groups == first.in_channels == first.out_channels == second.in_channels
        and second.groups == 1
        and (second.kernel_size, second.stride, second.padding) == ((1, 1), (1, 1), (0, 0))
        and first.bias is second.bias is None
    )


def _stackable_norm(column: Sequence[nn.Module]) -> bool:
    return all(
        type(slot) is nn.BatchNorm2d and slot.track_running_stats and slot.momentum is not None and not _hooked(slot)
        for slot in column
    )


def apply_weightless(layer: Any, x: Bundle, out: Tensor | None = None) -> Tensor:
    """Run a layer without weights on a bundle (n, C, h, w) and return (n, C, h', w').

    Our kernels run the max and average pools that they support, and write the result into `out` if it is given.
    """
    plain = (type(layer) is nn.MaxPool2d and layer.dilation == 1) or (
        type(layer) is AvgPool and not layer.count_include_pad
    )
    whole = plain and not layer.ceil_mode and all(type(part) is int for part in _window(layer))
    if not (whole and layer.kernel_size <= WIDEST_POOL and x.uses("pools", 1)):
        return layer(x.x)
    result: Tensor = _PoolOnGpu.apply(x.x, out, *_window(layer), type(layer) is nn.MaxPool2d)  # type: ignore[no-untyped-call]
    return result


def _window(layer: Any) -> tuple[Any, Any, Any]:
    return layer.kernel_size, layer.stride, layer.padding


class _PoolOnGpu(torch.autograd.Function):
    """A pool with windows of `size` x `size` pixels that ignores the padding: (n, C, h, w) to (n, C, h', w')."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor | None, size: int, stride: int, padding: int, maximum: bool) -> Tensor:
        from rapdarts.networks.batched.kernels import launch, pools

        y, which = pools.forward(launch.ensure_pitch(x), size, stride, padding, maximum, out)
        ctx.save_for_backward(which)
        ctx.given, ctx.window = x.shape, (size, stride, padding)
        return y.detach()  # a new tensor, though it shares the memory of `out`

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from rapdarts.networks.batched.kernels import launch, pools

        (which,) = ctx.saved_tensors
        return pools.backward(launch.ensure_pitch(gradient), ctx.given, which, *ctx.window), *[None] * 5

"""Terms: what the slots of a wave put out, weighed by their mixing weights and summed into the nodes, with gradients of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rapdarts.networks.batched.layout import Reading, Terms, images, pixels


class WeightedNorm(torch.autograd.Function):
    """Batch norm whose scale is the mixing weight; of all the slots that read a block, only the block is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        reading: Reading,
        mean: Tensor,
        var: Tensor,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, *statistics = torch.native_batch_norm(reading.spread(x), scale, None, mean, var, training, momentum, eps)
        ctx.save_for_backward(x, scale, mean, var, *statistics)
        ctx.reading, ctx.training, ctx.eps = reading, training, eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mean, var, *statistics = ctx.saved_tensors
        to_x, to_scale, _ = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=torch.channels_last),
            ctx.reading.spread(x), scale, mean, var, *statistics, ctx.training, ctx.eps,
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
        )  # fmt: skip
        return None if to_x is None else ctx.reading.gather(to_x), to_scale, *[None] * 6


class NormOnGpu(torch.autograd.Function):
    """Batch norm by kernels of ours, with a ReLU behind it if asked."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, reading: Reading, mean: Tensor, var: Tensor, momentum: float, eps: float, relu: bool
    ) -> Tensor:
        from rapdarts.networks.batched.kernels import norms

        x = x.contiguous(memory_format=torch.channels_last)
        y, statistics = norms.forward(x, reading, mean, var, momentum, eps, relu)
        ctx.save_for_backward(x, statistics)
        ctx.reading, ctx.relu = reading, relu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from rapdarts.networks.batched.kernels import norms

        x, statistics = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return norms.backward(gradient, x, ctx.reading, statistics, ctx.relu), *[None] * 6


class WeighedSum(torch.autograd.Function):
    """All terms of a wave, weighed by `scale` (slots*C,) and summed into its nodes by kernels of ours.

    `room` (n, blocks*C, h, w) is for what the norms read, `parts` of it one behind the other: some lie there already.
    `state` (n, states*C, h, w) is what skips read, where `masks` (edges, n, h, w, C) keep it, and `pending`
    (n, nodes*C, h, w) what is added to. Gives the first node and the others. Nothing is kept but what goes in, and the
    `running` means and variances of the norms are brought up to date.
    """

    @staticmethod
    def forward(
        ctx: Any,
        terms: Terms,
        running: Sequence[tuple[Tensor, Tensor]],
        room: Tensor,
        masks: Tensor | None,
        state: Tensor,
        scale: Tensor,
        pending: Tensor | None,
        *parts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        from rapdarts.networks.batched.kernels import norms

        ctx.terms, ctx.widths = terms, [part.shape[1] for part in parts]
        for part, place in zip(parts, room.split(ctx.widths, 1), strict=True):
            if part.data_ptr() != place.data_ptr():
                place.copy_(part)
        if pending is not None:
            pending = pending.to(room.dtype).contiguous(memory_format=torch.channels_last)
        first, others, statistics = norms.weighed_sum(terms, room, state, masks, scale, pending)
        means, variances = zip(*running, strict=True)
        widths = [len(mean) for mean in means]
        fresh = [*statistics[0].split(widths), *statistics[2].split(widths)]
        torch._foreach_lerp_([*means, *variances], fresh, terms.momentum)
        # The state only tells how strongly a skip is to be heard.
        asked = state if terms.masks and ctx.needs_input_grad[5] else None
        ctx.save_for_backward(room, masks, asked, scale, statistics)
        return first, others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from rapdarts.networks.batched.kernels import norms

        room, masks, state, scale, statistics = ctx.saved_tensors
        for_state, for_scale, for_pending = ctx.needs_input_grad[4:7]
        gradient = torch.cat(gradients, 1).contiguous(memory_format=torch.channels_last)
        to_room, to_scale = norms.weighed_sum_backward(ctx.terms, gradient, room, state, masks, scale, statistics)
        skips = for_state and len(ctx.terms.skips.sources) > 0
        return (
            *[None] * 4,
            norms.skips_backward(ctx.terms, gradient, masks, scale) if skips else None,
            to_scale.to(scale.dtype) if for_scale else None,
            gradient if for_pending else None,
            *to_room.split(ctx.widths, 1),
        )


class Weighted(torch.autograd.Function):
    """A term without a batch norm at its end: weighed as it is, where the mask keeps it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, reading: Reading, mask: Tensor | None) -> Tensor:
        ctx.reading, ctx.precision = reading, scale.dtype
        scale = scale.to(x.dtype)
        ctx.save_for_backward(x, scale, mask)
        slots = reading.slots(x)
        return images(kept((slots * scale.view(slots.shape[3:])).flatten(3), mask))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mask = ctx.saved_tensors
        passed = kept(pixels(gradient), mask)
        to_x = to_scale = None
        if ctx.needs_input_grad[0]:
            to_x = ctx.reading.gather(images(passed * scale))
        if ctx.needs_input_grad[1]:
            slots = ctx.reading.slots(x)
            to_scale = (passed.view(slots.shape) * slots).sum((0, 1, 2), dtype=ctx.precision).flatten()
        return to_x, to_scale, None, None


def kept(y: Tensor, mask: Tensor | None) -> Tensor:
    """(n, h, w, slots*C), and 0 where `mask` (n, h, w, slots, C) says no."""
    return y if mask is None else torch.where(mask, y.view(mask.shape), 0.0).flatten(3)


def total(
    terms: Sequence[Tensor], covers: Sequence[tuple[int, ...]], states: int, slots: int, pending: Tensor | None
) -> Tensor:
    """What the edges of a bundle put out together: terms (n, len(cover)*C, h, w), each of the slots in its cover.

    The slots go through the nodes once for each state; gives (n, slots/states*C, h, w), the nodes side by side, with
    `pending` of the same shape added.
    """
    everything = tuple(range(slots))
    if pending is not None:  # of the waves behind the first, which have one state
        terms, covers = [pending, *terms], [everything, *covers]
    # Whole terms first: they need no room of their own.
    whole = [term for term, cover in zip(terms, covers, strict=True) if cover == everything]
    parts = [(term, cover) for term, cover in zip(terms, covers, strict=True) if cover != everything]
    result: Tensor = _Total.apply(  # type: ignore[no-untyped-call]
        states, slots, len(whole), [cover for _, cover in parts], *whole, *(t for t, _ in parts)
    )
    return result


class _Total(torch.autograd.Function):
    """The sum of terms of all slots (the first `whole`) and of some (those in `covers`), and over the states."""

    @staticmethod
    def forward(
        ctx: Any, states: int, slots: int, whole: int, covers: Sequence[tuple[int, ...]], *terms: Tensor
    ) -> Tensor:
        ctx.states, ctx.slots, ctx.whole, ctx.covers = states, slots, whole, covers
        n, width, height, wide = terms[0].shape
        channels = width // (slots if whole else len(covers[0]))
        if whole > 1:
            sum_ = pixels(terms[0] + terms[1])
        elif whole:
            sum_ = pixels(terms[0]).clone()
        else:
            sum_ = terms[0].new_zeros(n, height, wide, slots * channels)
        for term in terms[2:whole]:
            sum_ += pixels(term)
        for term, cover in zip(terms[whole:], covers, strict=True):
            for slot, at, length in _runs(cover):
                part = pixels(term).narrow(3, at * channels, length * channels)
                sum_.narrow(3, slot * channels, length * channels).add_(part)  # by += it would be copied onto itself
        return images(sum_.unflatten(3, (states, -1)).sum(3) if states > 1 else sum_)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.states > 1:
            gradient = torch.cat([gradient] * ctx.states, 1)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        blocks, found = gradient.chunk(ctx.slots, 1), {}
        for cover in ctx.covers:
            if cover not in found:
                found[cover] = torch.cat([blocks[slot] for slot in cover], 1)
        return None, None, None, None, *[gradient] * ctx.whole, *[found[cover] for cover in ctx.covers]


def _runs(cover: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Slots that follow each other, as (first slot, its place in the cover, how many)."""
    first = 0
    for at in range(1, len(cover) + 1):
        if at == len(cover) or cover[at] != cover[at - 1] + 1:
            yield cover[first], first, at - first
            first = at

"""Terms: the outputs of the slots, weighted by their mixing weights and summed into the nodes, with custom gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rapdarts.networks.batched.layout import BlockMap, Terms, images, pixels


class WeightedNorm(torch.autograd.Function):
    """Batch norm with the mixing weight as its scale: `x` (n, blocks*C, h, w) to (n, slots*C, h, w).

    `scale`, `mean` and `var` are (slots*C,). Slots that read the same block save only that block for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        block_map: BlockMap,
        mean: Tensor,
        var: Tensor,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, *statistics = torch.native_batch_norm(
            block_map.index_select(x), scale, None, mean, var, training, momentum, eps
        )
        ctx.save_for_backward(x, scale, mean, var, *statistics)
        ctx.block_map, ctx.training, ctx.eps = block_map, training, eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mean, var, *statistics = ctx.saved_tensors
        to_x, to_scale, _ = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=torch.channels_last),
            ctx.block_map.index_select(x), scale, mean, var, *statistics, ctx.training, ctx.eps,
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
        )  # fmt: skip
        return None if to_x is None else ctx.block_map.index_add(to_x), to_scale, *[None] * 6


class NormOnGpu(torch.autograd.Function):
    """Batch norm with our kernels, followed by a ReLU if `relu`: `x` (n, blocks*C, h, w) to (n, slots*C, h, w).

    `mean` and `var` are (slots*C,) and updated in place.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, block_map: BlockMap, mean: Tensor, var: Tensor, momentum: float, eps: float, relu: bool
    ) -> Tensor:
        from rapdarts.networks.batched.kernels import norms

        x = x.contiguous(memory_format=torch.channels_last)
        y, statistics = norms.forward(x, block_map, mean, var, momentum, eps, relu)
        ctx.save_for_backward(x, statistics)
        ctx.block_map, ctx.relu = block_map, relu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from rapdarts.networks.batched.kernels import norms

        x, statistics = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return norms.backward(gradient, x, ctx.block_map, statistics, ctx.relu), *[None] * 6


class WeightedSum(torch.autograd.Function):
    """All terms of an edge group, weighted by `scale` (slots*C,) and summed into its nodes with our kernels.

    The norms read `buffer` (n, blocks*C, h, w), the concatenation of `parts`; some parts may already be views of it. The
    skips read `state` (n, states*C, h, w), and `masks` (edges, n, h, w, C) is True where they keep an element. `pending`
    (n, nodes*C, h, w) holds the partial sums of the nodes. Returns the first node (n, C, h, w) and the others
    (n, (nodes - 1)*C, h, w), and updates the `running` means and variances of the norms. Only inputs are saved for the
    backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        terms: Terms,
        running: Sequence[tuple[Tensor, Tensor]],
        buffer: Tensor,
        masks: Tensor | None,
        state: Tensor,
        scale: Tensor,
        pending: Tensor | None,
        *parts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        from rapdarts.networks.batched.kernels import sums

        ctx.terms, ctx.widths = terms, [part.shape[1] for part in parts]
        for part, view in zip(parts, buffer.split(ctx.widths, 1), strict=True):
            if part.data_ptr() != view.data_ptr():
                view.copy_(part)
        if pending is not None:
            pending = pending.to(buffer.dtype).contiguous(memory_format=torch.channels_last)
        first, others, statistics = sums.weighted_sum(terms, buffer, state, masks, scale, pending)
        means, variances = zip(*running, strict=True)
        widths = [len(mean) for mean in means]
        fresh = [*statistics[0].split(widths), *statistics[2].split(widths)]
        torch._foreach_lerp_([*means, *variances], fresh, terms.momentum)
        # The state is needed only for the gradient of the skips' scale.
        saved_state = state if terms.masks and ctx.needs_input_grad[5] else None
        ctx.save_for_backward(buffer, masks, saved_state, scale, statistics)
        return first, others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from rapdarts.networks.batched.kernels import sums

        buffer, masks, state, scale, statistics = ctx.saved_tensors
        for_state, for_scale, for_pending = ctx.needs_input_grad[4:7]
        gradient = torch.cat(gradients, 1).contiguous(memory_format=torch.channels_last)
        to_buffer, to_scale = sums.weighted_sum_backward(ctx.terms, gradient, buffer, state, masks, scale, statistics)
        skips = for_state and len(ctx.terms.skips.sources) > 0
        return (
            *[None] * 4,
            sums.skips_backward(ctx.terms, gradient, masks, scale) if skips else None,
            to_scale.to(scale.dtype) if for_scale else None,
            gradient if for_pending else None,
            *to_buffer.split(ctx.widths, 1),
        )


class WeightedTerm(torch.autograd.Function):
    """Terms that do not end in a batch norm: `x` (n, blocks*C, h, w) times `scale` (slots*C,) gives (n, slots*C, h, w).

    `mask` (n, h, w, slots, C), if given, is False where an element is set to zero.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, block_map: BlockMap, mask: Tensor | None) -> Tensor:
        ctx.block_map, ctx.precision = block_map, scale.dtype
        scale = scale.to(x.dtype)
        ctx.save_for_backward(x, scale, mask)
        slots = block_map.by_slot(x)
        return images(apply_mask((slots * scale.view(slots.shape[3:])).flatten(3), mask))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, mask = ctx.saved_tensors
        passed = apply_mask(pixels(gradient), mask)
        to_x = to_scale = None
        if ctx.needs_input_grad[0]:
            to_x = ctx.block_map.index_add(images(passed * scale))
        if ctx.needs_input_grad[1]:
            slots = ctx.block_map.by_slot(x)
            to_scale = (passed.view(slots.shape) * slots).sum((0, 1, 2), dtype=ctx.precision).flatten()
        return to_x, to_scale, None, None


def apply_mask(y: Tensor, mask: Tensor | None) -> Tensor:
    """Return `y` (n, h, w, slots*C) with zeros where `mask` (n, h, w, slots, C) is False."""
    return y if mask is None else torch.where(mask, y.view(mask.shape), 0.0).flatten(3)


def sum_terms(
    terms: Sequence[Tensor], term_slots: Sequence[tuple[int, ...]], states: int, slots: int, pending: Tensor | None
) -> Tensor:
    """Sum the terms of an edge group into its nodes; each term is (n, len(its slots)*C, h, w).

    The slots enumerate the nodes once for each state. Returns the nodes' sums (n, slots/states*C, h, w), including
    `pending`, which has the same shape.
    """
    every_slot = tuple(range(slots))
    if pending is not None:  # only groups after the first have pending sums, and they have a single state
        terms, term_slots = [pending, *terms], [every_slot, *term_slots]
    # Terms that cover all slots come first: their sum needs no buffer of zeros.
    whole = [term for term, of_term in zip(terms, term_slots, strict=True) if of_term == every_slot]
    parts = [(term, of_term) for term, of_term in zip(terms, term_slots, strict=True) if of_term != every_slot]
    result: Tensor = _SumTerms.apply(  # type: ignore[no-untyped-call]
        states, slots, len(whole), [of_term for _, of_term in parts], *whole, *(term for term, _ in parts)
    )
    return result


class _SumTerms(torch.autograd.Function):
    """The sum over terms and states: the first `whole` terms cover all slots, the others only those in `term_slots`."""

    @staticmethod
    def forward(
        ctx: Any, states: int, slots: int, whole: int, term_slots: Sequence[tuple[int, ...]], *terms: Tensor
    ) -> Tensor:
        ctx.states, ctx.slots, ctx.whole, ctx.term_slots = states, slots, whole, term_slots
        n, total_channels, height, width = terms[0].shape
        channels = total_channels // (slots if whole else len(term_slots[0]))
        if whole > 1:
            sum_ = pixels(terms[0] + terms[1])
        elif whole:
            sum_ = pixels(terms[0]).clone()
        else:
            sum_ = terms[0].new_zeros(n, height, width, slots * channels)
        for term in terms[2:whole]:
            sum_ += pixels(term)
        for term, of_term in zip(terms[whole:], term_slots, strict=True):
            for slot, start, length in _contiguous_runs(of_term):
                part = pixels(term).narrow(3, start * channels, length * channels)
                sum_.narrow(3, slot * channels, length * channels).add_(part)  # += would also copy the view to itself
        return images(sum_.unflatten(3, (states, -1)).sum(3) if states > 1 else sum_)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.states > 1:
            gradient = torch.cat([gradient] * ctx.states, 1)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        blocks, selected = gradient.chunk(ctx.slots, 1), {}
        for of_term in ctx.term_slots:
            if of_term not in selected:
                selected[of_term] = torch.cat([blocks[slot] for slot in of_term], 1)
        return None, None, None, None, *[gradient] * ctx.whole, *[selected[of_term] for of_term in ctx.term_slots]


def _contiguous_runs(slots: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield each run of consecutive slots as (first slot, its index in `slots`, length)."""
    first = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1:
            yield slots[first], first, end - first
            first = end

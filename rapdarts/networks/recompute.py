"""Activation checkpointing: activations inside a cell are recomputed in the backward pass (Chen et al. 2016, section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def recomputed(cell: nn.Module, *given: Any) -> Tensor:
    """Return `cell(*given)`, saving only `given` for the backward pass; the results are bit-identical.

    The second pass draws the random numbers of the first, and leaves torch's generators and the cell's buffers as they
    are: statistics count a batch once.
    """
    if not torch.is_grad_enabled():
        return cell(*given)
    # As they are now: when the backward pass comes, other weights may be in place, or frozen ones learn again.
    weights = {name: weight if weight.requires_grad else weight.detach() for name, weight in cell.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in cell.named_buffers()}
    first = True

    def run(*given: Any) -> Tensor:
        nonlocal first
        if first:
            first = False
            return cell(*given)
        return functional_call(cell, {**weights, **buffers}, given)

    result: Tensor = checkpoint(run, *given, use_reentrant=False)
    return result

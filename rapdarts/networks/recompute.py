"""Activation checkpointing: activations inside a cell are recomputed in the backward pass (Chen et al. 2016, section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def recomputed(cell: nn.Module, *given: Any) -> Tensor:
    """Return `cell(*given)`, the cell's output (n, channels, h, w), and save only `given` for the backward pass.

    The results are bit-identical to those without recomputation. The recomputation draws the same random numbers as the first
    pass and leaves torch's generators and the cell's buffers unchanged, so that running statistics count a batch once.
    """
    if not torch.is_grad_enabled():
        return cell(*given)
    # Keep the current values: by the time of the backward pass, the weights may have been replaced or unfrozen.
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

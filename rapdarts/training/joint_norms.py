"""Batch norms over the batches of all processes of a job."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from rapdarts.training.distributed import ProcessGroup


class JointBatchNorm(nn.Module):
    """A batch norm over the batches of all processes, with the weights and buffers of `norm` under the same names.

    It replaces torch's SyncBatchNorm, which does not support CPUs. The means and squared deviations of the processes are
    combined by the formula of Chan, Golub and LeVeque (1983), which avoids the cancellation error of a difference of sums.
    """

    running_mean: Tensor | None
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: _BatchNorm, process_group: ProcessGroup) -> None:
        super().__init__()
        self.process_group, self.eps, self.momentum = process_group, norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a tensor (n, C, ...), keeping its shape; n may differ between processes, and may be 0."""
        if not self.training and self.running_mean is not None:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        y, mean, variance = _Normalised.apply(x, self.weight, self.bias, self.eps, self.process_group)  # type: ignore[no-untyped-call]
        if self.training and self.running_mean is not None:
            self.num_batches_tracked += 1
            factor = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
            self.running_var.lerp_(variance.to(self.running_var.dtype), factor)
        return y


class _Normalised(torch.autograd.Function):
    """Normalisation (x - mean) / sqrt(variance + eps) * weight + bias over all processes; also returns mean and unbiased variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, process_group: ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        over = [dimension for dimension in range(x.ndim) if dimension != 1]
        mean, squares = wide.new_zeros(2, x.shape[1])
        if x.numel():
            variance, mean = torch.var_mean(wide, over, correction=0)
            squares = variance * (x.numel() // x.shape[1])
        row = torch.cat([wide.new_full((1,), x.numel() // x.shape[1]), mean, squares])
        rows = process_group.gather(row)
        counts, means, deviations = rows.split([1, x.shape[1], x.shape[1]], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        squares = (deviations + counts * (means - mean) ** 2).sum(0)
        scale = (squares / count + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.process_group, ctx.over = process_group, over
        shape = (1, -1, *[1] * (x.ndim - 2))
        factor = scale if weight is None else scale * weight
        shift = -mean * factor if bias is None else bias - mean * factor
        y = (wide * factor.view(shape) + shift.view(shape)).to(x.dtype)
        unbiased = squares / (count - 1)
        ctx.mark_non_differentiable(mean, unbiased)
        return y, mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.ndim - 2))
        gradient, wide = gradient.to(mean.dtype), x.to(mean.dtype)
        normal = (wide - mean.view(shape)) * scale.view(shape)
        # Gradients of weight and bias come from this process's images only: they are summed with all other gradients later.
        for_bias, for_weight = gradient.sum(ctx.over), (gradient * normal).sum(ctx.over)
        both = ctx.process_group.gather(torch.cat([for_bias, for_weight])).sum(0) / count
        joint_bias, joint_weight = (part.view(shape) for part in both.chunk(2))
        factor = scale if weight is None else scale * weight
        for_x = (gradient - joint_bias - normal * joint_weight) * factor.view(shape)
        wanted = ctx.needs_input_grad
        return for_x.to(x.dtype), for_weight if wanted[1] else None, for_bias if wanted[2] else None, None, None


def join_batch_norms(network: nn.Module, process_group: ProcessGroup) -> None:
    """Replace every batch norm in `network` with a JointBatchNorm; the names in its state do not change."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, JointBatchNorm(child, process_group))


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances, each (channels,), of the batch norms in `network`."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]

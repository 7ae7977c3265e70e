"""The fixed parts around the cells: stem, preprocessing, residual blocks, classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rapdarts.architecture.space import CellPlan, SearchSpace, Skeleton


def relu_conv_bn(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    *,
    affine: bool,
) -> nn.Sequential:
    """Return a ReLU, a same-padded convolution and a batch norm: (n, inputs, h, w) to (n, outputs, ceil(h/stride), ceil(w/stride))."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    if rows == columns == 1 and stride != 1:  # subsample before the convolution; OffsetConvs gives the reason
        return nn.Sequential(nn.AvgPool2d(1, stride), *relu_conv_bn(inputs, outputs, 1, affine=affine))
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, (rows, columns), stride, (rows // 2, columns // 2), bias=False),
        nn.BatchNorm2d(outputs, affine=affine),
    )


class AvgPool(nn.AvgPool2d):
    """An average pool without ceil mode, (n, C, h, w) to (n, C, h', w'), with a correct gradient on a GPU.

    On a GPU, `torch.nn.AvgPool2d` computes a wrong gradient for padded images in channels-last order (PyTorch issue
    188344, seen in 2.11). This pool therefore pads the images with zeros first on a GPU, and then pools without padding.
    """

    padding: int

    def __init__(self, kernel_size: int, stride: int, padding: int, count_include_pad: bool = True) -> None:
        super().__init__(kernel_size, stride, padding, count_include_pad=count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        return self.padded_first(x) if x.device.type == "cuda" and self.padding else super().forward(x)

    def padded_first(self, x: Tensor) -> Tensor:
        """Pad the images first, then pool them without padding; the result is the same."""
        border = [self.padding] * 4
        total = F.avg_pool2d(F.pad(x, border), self.kernel_size, self.stride, divisor_override=1)
        counted = F.pad(x.new_ones(1, 1, *x.shape[2:]), border, value=float(self.count_include_pad))
        return total / F.avg_pool2d(counted, self.kernel_size, self.stride, divisor_override=1)


def remarks_on_pools(network: nn.Module, device: torch.device) -> list[str]:
    """Return a warning if the network has a padded `nn.AvgPool2d` and `device` is a GPU, where the gradient of this layer is wrong.

    Only a user's own primitive can contain such a layer.
    """
    padded = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.AvgPool2d) and not isinstance(layer, AvgPool) and layer.padding not in (0, (0, 0))
    ]
    if device.type != "cuda" or not padded:
        return []
    return [
        "warning: torch's AvgPool2d gives a wrong gradient for padded images on a GPU (PyTorch issue 188344), and the"
        f" layer {padded[0]} uses it; use rapdarts.networks.layers.AvgPool instead"
    ]


class FactorizedReduce(nn.Sequential):
    """Halve the image with a ReLU, `OffsetConvs` and a batch norm: (n, inputs, h, w) to (n, outputs, ceil(h/2), ceil(w/2))."""

    def __init__(self, inputs: int, outputs: int, *, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.halves = OffsetConvs(inputs, outputs)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)


class OffsetConvs(nn.Module):
    """Two 1x1 convolutions: one reads the pixels in even rows and columns, the other those in odd rows and columns.

    Maps (n, inputs, h, w) to (n, outputs, ceil(h/2), ceil(w/2)); each convolution computes half of the output channels.
    They are equivalent to two 1x1 convolutions with stride 2, the second shifted by one pixel in both directions (code of
    Liu et al. 2019). For the shifted half, odd sides are padded with a zero row or column.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = self.pixels(x)
        return torch.cat([self.even(even), self.odd(odd)], 1)

    @staticmethod
    def pixels(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels that each half reads, (n, inputs, ceil(h/2), ceil(w/2))."""
        height, width = x.shape[-2:]
        # Pixels are subsampled before the convolution, not by its stride: for channels-last inputs with few channels,
        # oneDNN's backward pass of a strided 1x1 convolution writes past the end of its workspace (oneDNN issue 6035).
        even = x[:, :, ::2, ::2]
        if height % 2 or width % 2:  # F.pad copies the image even if it adds nothing
            x = F.pad(x, (0, width % 2, 0, height % 2))
        return even, x[:, :, 1::2, 1::2]


class ResidualBlock(nn.Module):
    """The reduction between single-input cells: (n, inputs, h, w) to (n, C, ceil(h/2), ceil(w/2)).

    Adds the outputs of two branches: two 3x3 convolutions, the first of them strided (He et al. 2016), and a shortcut with an
    average pool and a 1x1 convolution (Dong and Yang 2020, section 2.1). The batch norms are affine in the supernet too, because
    the block has no mixing weights.
    """

    def __init__(self, plan: CellPlan) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            relu_conv_bn(plan.newer, plan.channels, 3, plan.stride, affine=True),
            relu_conv_bn(plan.channels, plan.channels, 3, affine=True),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, plan.stride, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(plan.newer, plan.channels, 1, bias=False),
        )

    def forward(self, older: Tensor, newer: Tensor, *choices: object) -> Tensor:
        """Return the output for the `newer` input. The other arguments are ignored; they match the signature of a cell."""
        return self.convolutions(newer) + self.shortcut(newer)


def preprocess(space: SearchSpace, plan: CellPlan, *, affine: bool) -> tuple[nn.Module, nn.Module]:
    """Return the modules that bring a cell's (older, newer) inputs to its number of channels and to the same size.

    In spaces with a single input, they are identities.
    """
    if space.inputs == 1:
        return nn.Identity(), nn.Identity()
    if plan.shrink_older:
        older: nn.Module = FactorizedReduce(plan.older, plan.channels, affine=affine)
    else:
        older = relu_conv_bn(plan.older, plan.channels, 1, affine=affine)
    return older, relu_conv_bn(plan.newer, plan.channels, 1, affine=affine)


class Stem(nn.Module):
    """The layers that turn images (n, c, h, w) into the (older, newer) inputs of the first cell.

    C is the width of the stem. `cifar`: the output of one 3x3 convolution, (n, C, h, w), serves as both inputs.
    `imagenet`: three 3x3 convolutions with stride 2 to C/2, C and C channels. The second outputs the older input,
    (n, C, ceil(h/4), ceil(w/4)), and the third outputs the newer input, (n, C, ceil(h/8), ceil(w/8)).
    """

    def __init__(self, space: SearchSpace, skeleton: Skeleton) -> None:
        super().__init__()
        inputs, width = skeleton.image[0], skeleton.stem_channels(space)

        def conv_bn(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]

        if skeleton.stem == "cifar":
            self.older = nn.Sequential(*conv_bn(inputs, width, 1))
            self.newer: nn.Module | None = None
        else:
            half = max(1, width // 2)
            self.older = nn.Sequential(*conv_bn(inputs, half, 2), nn.ReLU(), *conv_bn(half, width, 2))
            self.newer = nn.Sequential(nn.ReLU(), *conv_bn(width, width, 2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        older = self.older(images)
        return older, older if self.newer is None else self.newer(older)


class Classifier(nn.Module):
    """Global average pool and linear layer: (n, inputs, h, w) to (n, classes).

    In spaces with a single input, a batch norm and a ReLU come first.
    """

    def __init__(self, space: SearchSpace, inputs: int, classes: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()) if space.inputs == 1 else nn.Identity()
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.activation(x).mean((2, 3)))


class Normalise(nn.Module):
    """Normalise pixels (n, c, h, w) in 0..1 by the mean and standard deviation of each channel.

    This is the first layer of an exported network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

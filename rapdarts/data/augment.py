"""Random crops, flips, colour changes and cutout of whole batches, on the device of the images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 5
"""Random numbers used per image: crop row, crop column, flip, cutout row, cutout column."""

MORE_DRAWS = 8
"""Additional random numbers per image for zoom and colour jitter: area, shape, row, column; brightness, contrast, saturation, hue."""

TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""Matrix from red, green and blue to luma and the two chrominance values (NTSC, 1953)."""


@dataclass(frozen=True)
class Augment:
    """Augmentation and normalisation of images; without draws, images are only normalised."""

    mean: tuple[float, ...]  # of each channel, in 0..1
    std: tuple[float, ...]  # of each channel, in 0..1
    crop: int = 0  # padding of the random crop, pixels; 0: none
    flip: bool = False  # horizontal, with probability 1/2
    cutout: int = 0  # side of the square, pixels; 0: none
    jitter: float = (
        0.0  # largest relative change of brightness, contrast and saturation, and of the hue in half turns; 0: none
    )
    smallest_crop: float = 1.0  # smallest fraction of the area that a random zoom keeps; 1: no zoom

    @property
    def draws(self) -> int:
        """Number of random numbers in [0, 1) used per image."""
        return DRAWS + (MORE_DRAWS if self.jitter or self.smallest_crop < 1 else 0)

    def __call__(self, images: Tensor, draws: Tensor | None = None) -> Tensor:
        """Transform (b, c, h, w) uint8 to (b, c, h, w) float32; `draws` are (b, self.draws) numbers in [0, 1)."""
        if draws is None:
            return normalise(images, self.mean, self.std)
        if self.crop:
            images = random_crop(images, self.crop, draws[:, 0:2])
        if self.flip:
            images = random_flip(images, draws[:, 2])
        if self.smallest_crop < 1:
            images = random_zoom(images, self.smallest_crop, draws[:, DRAWS : DRAWS + 4])
        if self.jitter:
            images = 255 * colour_jitter(images.float() / 255, self.jitter, draws[:, DRAWS + 4 : DRAWS + 8])
        result = normalise(images, self.mean, self.std)
        if self.cutout:
            result = cutout(result, self.cutout, draws[:, 3:5])
        return result


def fractions(channels: int) -> Augment:
    """Return the augmentation for a network that normalises its own input: it only scales pixels to 0..1."""
    return Augment((0.0,) * channels, (1.0,) * channels)


def random_crop(images: Tensor, padding: int, draws: Tensor) -> Tensor:
    """Pad each image with a black border of `padding` pixels, and crop a window of the original size.

    images (b, c, h, w); draws (b, 2) in [0, 1) choose the window's row and column, each among 2 * padding + 1 positions.
    """
    batch, channels, height, width = images.shape
    corner = (draws * (2 * padding + 1)).long()
    rows = corner[:, 0, None] + torch.arange(height, device=images.device)
    columns = corner[:, 1, None] + torch.arange(width, device=images.device)
    sample = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    padded = F.pad(images, (padding, padding, padding, padding))
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def random_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Flip each image in (b, c, h, w) horizontally if its draw in (b,) is below 0.5."""
    return torch.where(draws[:, None, None, None] < 0.5, images.flip(-1), images)


def random_zoom(images: Tensor, smallest: float, draws: Tensor) -> Tensor:
    """Crop a window of random area, shape and position, and scale it to the size of the image (Szegedy et al. 2015, section 6).

    images (b, c, h, w), pixels from 0 to 255; draws (b, 4) in [0, 1). The window covers a fraction of the
    image between `smallest` and 1, and its aspect ratio changes by a factor of up to 4/3. A side longer than
    the image's is clipped. Pixels are interpolated, whatever the size of the window.
    """
    area = smallest + (1 - smallest) * draws[:, 0]
    stretch = torch.exp((2 * draws[:, 1] - 1) * math.log(4 / 3) / 2)
    height, width = (area.sqrt() / stretch).clamp(max=1), (area.sqrt() * stretch).clamp(max=1)
    # Coordinates run from -1 to 1 across the image.
    row, column = (2 * draws[:, 2] - 1) * (1 - height), (2 * draws[:, 3] - 1) * (1 - width)
    zero = torch.zeros_like(row)
    window = torch.stack([torch.stack([width, zero, column], 1), torch.stack([zero, height, row], 1)], 1)
    grid = F.affine_grid(window, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def colour_jitter(images: Tensor, strength: float, draws: Tensor) -> Tensor:
    """Scale brightness, contrast and saturation by factors in 1 +- strength, and rotate the hue by up to +-strength / 2 turns.

    images and result (b, c, h, w) in 0..1; draws (b, 4) in [0, 1). Images without three channels change only in brightness
    and contrast. The hue is rotated about the grey axis, so that luma does not change.
    """
    brightness, contrast, saturation = (1 + strength * (2 * draws[:, :3] - 1)).T[:, :, None, None, None]
    images = (images * brightness).clamp(0, 1)
    to_yiq, from_yiq = _yiq(images.device)
    coloured = images.shape[1] == 3
    luma = torch.einsum("c,bchw->bhw", to_yiq[0], images)[:, None] if coloured else images.mean(1, keepdim=True)
    mean = luma.mean((2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    if not coloured:
        return images
    luma = torch.einsum("c,bchw->bhw", to_yiq[0], images)[:, None]
    images = (luma + saturation * (images - luma)).clamp(0, 1)
    angle = math.pi * strength * (2 * draws[:, 3] - 1)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    turn = from_yiq @ turn @ to_yiq
    return torch.einsum("bdc,bchw->bdhw", turn, images).clamp(0, 1)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale pixels (b, c, h, w) from 0..255 to 0..1, subtract each channel's mean and divide by its standard deviation; float32."""
    return (images.to(torch.float32) / 255 - _channels(mean, images.device)) / _channels(std, images.device)


def cutout(images: Tensor, side: int, draws: Tensor) -> Tensor:
    """Set a square around a uniformly random pixel, clipped at the image's borders, to 0 (DeVries and Taylor 2017).

    images (b, c, h, w), normalised; draws (b, 2) in [0, 1) choose the row and column of the centre. As in DARTS, the square
    extends from centre - side // 2 up to, but not including, centre + side // 2, so an odd side is reduced by one.
    """
    height, width = images.shape[-2:]
    row = (draws[:, 0, None] * height).long()
    column = (draws[:, 1, None] * width).long()
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows = (rows >= row - side // 2) & (rows < row + side // 2)
    in_columns = (columns >= column - side // 2) & (columns < column + side // 2)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the values as (c, 1, 1) float32; cached, so that steps do not copy them to the device again."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


@lru_cache(maxsize=8)
def _yiq(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the (3, 3) matrices from red, green and blue to YIQ and back; cached on the device."""
    there = torch.tensor(TO_YIQ, dtype=torch.float64)
    return there.float().to(device), torch.linalg.inv(there).float().to(device)

"""Random crops, flips and cutout of whole batches at once, on the device that holds the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 5
"""Random numbers an image takes: crop row, crop column, flip, cutout row, cutout column."""


@dataclass(frozen=True)
class Augment:
    """What happens to an image between the data set and the network; without draws it is normalised only."""

    mean: tuple[float, ...]  # of each channel, in 0..1
    std: tuple[float, ...]  # of each channel, in 0..1
    crop: int = 0  # padding of the random crop, pixels; 0: none
    flip: bool = False  # horizontal, every other image
    cutout: int = 0  # side of the square, pixels; 0: none

    def __call__(self, images: Tensor, draws: Tensor | None = None) -> Tensor:
        """(b, c, h, w) uint8 to (b, c, h, w) float32; `draws` are (b, DRAWS) numbers in [0, 1)."""
        if draws is None:
            return normalise(images, self.mean, self.std)
        if self.crop:
            images = random_crop(images, self.crop, draws[:, 0:2])
        if self.flip:
            images = random_flip(images, draws[:, 2])
        result = normalise(images, self.mean, self.std)
        if self.cutout:
            result = cutout(result, self.cutout, draws[:, 3:5])
        return result


def random_crop(images: Tensor, padding: int, draws: Tensor) -> Tensor:
    """A window of the image's own size out of the image on a black border of `padding` pixels.

    images (b, c, h, w); draws (b, 2) in [0, 1) choose the window's row and column, each among 2 * padding + 1.
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
    """Left and right exchanged where the draw (b,) is below one half; images (b, c, h, w)."""
    return torch.where(draws[:, None, None, None] < 0.5, images.flip(-1), images)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(b, c, h, w) uint8 to float32: scaled to 0..1, less the channel's mean, over its deviation."""
    return (images.to(torch.float32) / 255 - _channels(mean, images.device)) / _channels(std, images.device)


def cutout(images: Tensor, side: int, draws: Tensor) -> Tensor:
    """A square set to 0 around a uniform pixel, cut off at the borders (DeVries and Taylor 2017).

    images (b, c, h, w), normalised; draws (b, 2) in [0, 1) choose the centre's row and column. As in DARTS the square
    reaches from centre - side // 2 up to, but not including, centre + side // 2: an odd side counts as one less.
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
    """(c, 1, 1) float32; kept, so that no step copies it to the device again."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]

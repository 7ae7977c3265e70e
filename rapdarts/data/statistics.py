"""Mean and standard deviation of each channel, computed from the images or published for a data set."""

from __future__ import annotations

import torch
from torch import Tensor

from rapdarts.data.images import InMemory
from rapdarts.data.pictures import Pictures

MOST = 1000  # maximum number of images in a sample

Moments = tuple[tuple[float, ...], tuple[float, ...]]

PUBLISHED: dict[str, Moments] = {
    "cifar10": ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}
"""Mean and standard deviation of each channel of the training images, in 0..1, by data set."""

SAME = 0.02
"""Maximum difference from the published values at which images count as the data set or a part of it."""


def is_published(name: str, images: InMemory | Pictures) -> bool:
    """Return whether training images may be those of the named data set; data.path can contain other images in the same format."""
    if name not in PUBLISHED or len(PUBLISHED[name][0]) != images.image[0]:
        return False
    pairs = zip(PUBLISHED[name], statistics(images, MOST), strict=True)
    return all(abs(known - found) < SAME for pair in pairs for known, found in zip(*pair, strict=True))


def statistics(images: InMemory | Pictures, most: int = 0) -> Moments:
    """Return the mean and standard deviation of each channel, in 0..1, of at most `most` evenly spaced images (0: all).

    For a streaming folder, 0 means 1,000 images.
    """
    most = most or (MOST if isinstance(images, Pictures) else len(images))
    chosen = evenly(len(images), most)
    channels = images.image[0]
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for part in torch.split(chosen, 500):
        pixels = images.fetch(part).cpu()
        counts += torch.stack([torch.bincount(pixels[:, c].flatten(), minlength=256) for c in range(channels)])
    values = torch.arange(256, dtype=torch.float64) / 255
    frequencies = counts / counts.sum(1, keepdim=True)
    mean = frequencies @ values
    std = (frequencies * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std[std == 0] = 1  # so that a constant channel is normalised to zero, not NaN
    return tuple(mean.tolist()), tuple(std.tolist())


def some_of(images: InMemory | Pictures) -> Tensor:
    """Return at most MOST evenly spaced images (m, c, h, w)."""
    return images.fetch(evenly(len(images), MOST)).cpu()


def evenly(count: int, most: int) -> Tensor:
    """Return at most `most` evenly spaced positions (m,) int64 among `count`."""
    return torch.arange(min(count, most)) * count // min(count, most)

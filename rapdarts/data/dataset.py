"""Data sets for search and training: read once and split by class.

A data set has a train half and a test half. If its files mark no test images, it is split by
`split(y, 2/3, 0, "npz test")`, which does not depend on the seed of a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rapdarts.config.experiment import DataConfig
from rapdarts.data import readers
from rapdarts.data.images import Images, InMemory, Pictures
from rapdarts.data.randomness import permutation
from rapdarts.errors import InputError

IN_MEMORY_BYTES = 256 * 10**6  # decoded image folders up to this size are kept in memory
STATISTICS_IMAGES = 1000  # images of a streaming folder that are used for its mean and standard deviation

STATISTICS = {
    "cifar10": ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set on the device, with the properties that networks and run folders need."""

    name: str
    train: Images
    test: Images
    image: tuple[int, int, int]  # channels, height, width
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # of each channel, in 0..1
    std: tuple[float, ...]
    fingerprint: str  # sha256 of labels, shapes and pixels (streaming folders: file names and sizes instead of pixels)


Reader = Callable[[torch.device], DataSet]
"""A function that returns a data set on a given device."""


def load_dataset(config: DataConfig, device: torch.device, seed: int) -> DataSet:
    """Read a data set, downloading it if needed; `seed` selects the fraction `config.fraction` of its training images.

    Raises InputError for settings or data that cannot be used, and DamagedError for a truncated or altered file.
    """
    return build_dataset(config, *readers.read_images(config), device, seed)


def build_dataset(
    config: DataConfig,
    train: InMemory | Pictures,
    test: InMemory | Pictures | None,
    names: Sequence[str],
    device: torch.device,
    seed: int,
) -> DataSet:
    """Return a data set made of a reader's halves, with the fraction and the statistics of `config`. Raises InputError."""
    if test is None:
        first, second = split(train.labels, 2 / 3, 0, "npz test")
        train, test = train.take(first), train.take(second)
    if train.image != test.image:
        raise InputError(
            f"data.name={config.name}: training images are {train.image}, but test images are {test.image};"
            " use one shape for both."
        )
    if len(names) < 2:
        raise InputError(f"data.name={config.name}: all images belong to one class; a classifier needs at least two.")
    absent = (torch.bincount(train.labels, minlength=len(names)) == 0).nonzero()
    if len(absent):
        raise InputError(f"data.name={config.name}: class {names[int(absent[0])]} has no training images; add some.")
    if config.fraction < 1:
        train = train.take(split(train.labels, config.fraction, seed, "data fraction")[0])
    train, test = _decode_small(train), _decode_small(test)

    mean, std = tuple(config.mean), tuple(config.std)
    if not mean:
        mean, std = STATISTICS[config.name] if config.name in STATISTICS else statistics(train)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != train.image[0]:
            raise InputError(
                f"data.{key} needs one value for each of the {train.image[0]} channels of the images; it has {len(values)}."
            )
    fingerprint = hashlib.sha256(train.digest() + test.digest()).hexdigest()
    train, test = train.to(device), test.to(device)
    return DataSet(config.name, train, test, train.image, len(names), tuple(names), mean, std, fingerprint)


def _decode_small(images: InMemory | Pictures) -> InMemory | Pictures:
    """Decode an image folder into memory if it is small enough."""
    if isinstance(images, Pictures) and len(images) * int(np.prod(images.image)) <= IN_MEMORY_BYTES:
        return InMemory(images.fetch(torch.arange(len(images))), images.labels)
    return images


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, in 0..1; a streaming folder uses at most 1,000 evenly spaced images."""
    count = min(len(images), STATISTICS_IMAGES) if isinstance(images, Pictures) else len(images)
    chosen = torch.arange(count) * len(images) // count
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


def split(labels: Tensor, fraction: float, seed: int, stream: str) -> tuple[Tensor, Tensor]:
    """Split the images with labels (n,) into two parts, returned as ascending indices (n1,) and (n2,), int64 on the CPU.

    The first has `fraction` of each class, but at least one image and at most all but one. The result is a pure function of
    the arguments. Raises InputError for a class with a single image.
    """
    labels = labels.cpu()
    sizes = torch.bincount(labels)
    if (sizes == 1).any():
        label = int((sizes == 1).nonzero()[0])
        raise InputError(f"class {label} has a single image, too few to split; add images or leave the class out.")
    shuffled = permutation(seed, stream, 0, len(labels))
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    owner = labels[by_class]
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[owner]
    quota = (sizes.double() * fraction + 0.5).long().clamp(min=torch.ones_like(sizes), max=(sizes - 1).clamp(min=1))
    first = rank < quota[owner]
    return by_class[first].sort().values, by_class[~first].sort().values

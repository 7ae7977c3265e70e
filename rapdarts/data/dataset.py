"""Data sets for search and training, read once and split by class.

A data set has a training half and a test half. If its files mark no test images, it is divided by
`split(y, 2/3, 0, "npz test")`, which does not depend on the seed of a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rapdarts.config.experiment import DataConfig
from rapdarts.data import readers
from rapdarts.data.images import Images, InMemory, ReadImages
from rapdarts.data.pictures import Pictures
from rapdarts.data.pixels import Lost, range_of
from rapdarts.data.randomness import permutation
from rapdarts.data.statistics import PUBLISHED, is_published, some_of, statistics
from rapdarts.errors import InputError, shorten

IN_MEMORY_BYTES = 256 * 10**6  # decoded image folders up to this size are kept in memory
MOST_NAMES = 20  # maximum number of class names shown to the user
HELD_OUT = "no test images are marked, so a third of the images of each class is held out for testing"
UNEQUAL = 3  # ratio of the largest to the smallest class that triggers a remark


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set on the device, with the properties that networks and run folders need."""

    name: str
    train: Images  # empty if all images are test images
    test: Images
    image: tuple[int, int, int]  # channels, height, width
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # of each channel, in 0..1
    std: tuple[float, ...]
    fingerprint: str  # sha256 of labels, shapes and pixels (streaming folders: file names and sizes instead of pixels)
    remarks: tuple[str, ...] = ()  # about changed or unused images and likely mistakes
    described: bool = False  # True if an enclosing run has already described the data to the user

    def on(self, device: torch.device) -> DataSet:
        """Return the data set on a device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    @property
    def counts(self) -> str:
        """The numbers of images, and the reason for the test images if they were not marked, as a sentence."""
        images = f"{len(self.train):,} training and {len(self.test):,} test images were read from {self.name}"
        return f"{images}: {HELD_OUT}." if HELD_OUT in self.remarks else f"{images}."

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines that describe the data: counts, class names and remarks; empty if the data have already been described."""
        if self.described:
            return ()
        source = f"{'x'.join(map(str, self.image))}, {self.classes} classes"
        named = [] if all(name.isdecimal() for name in self.class_names) else [f"classes: {_listed(self.class_names)}"]
        if not len(self.train):
            return f"{len(self.test):,} test images, {source}, from {self.name}", *named, *self.remarks
        sizes = torch.bincount(self.train.labels, minlength=self.classes)
        least, most = int(sizes.min()), int(sizes.max())
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        line = f"{len(self.train):,} training and {len(self.test):,} test images, {source} ({each} training images each), from {self.name}"
        return line, *named, *self.remarks


def _listed(names: Sequence[str]) -> str:
    """Return a comma-separated list of the first MOST_NAMES names, and the number of any others."""
    shown = [shorten(name) for name in names[:MOST_NAMES]]
    return ", ".join([*shown, f"and {len(names) - MOST_NAMES:,} others"] if len(names) > MOST_NAMES else shown)


Reader = Callable[[torch.device], DataSet]
"""A function that returns a data set on a given device."""


def load_dataset(config: DataConfig, device: torch.device, seed: int) -> DataSet:
    """Read a data set, downloading it if needed; `seed` selects the fraction `config.fraction` of its training images.

    Raises InputError for invalid settings or data, and DamagedError for a truncated or altered file.
    """
    return build_dataset(config, readers.read_images(config), device, seed)


def build_dataset(config: DataConfig, read: ReadImages, device: torch.device, seed: int) -> DataSet:
    """Build a data set from the images of a reader, with the fraction and statistics of `config`. Raises InputError for unusable data."""
    train, test, names, remarks = read.train, read.test, read.names, [*read.remarks]
    if test is None:
        first, second = split(train.labels, 2 / 3, 0, "npz test", names)
        train, test = train.take(first), train.take(second)
        remarks.append(HELD_OUT)
    if train.image != test.image:
        raise InputError(
            f"data.name={config.name}: training images are {train.image}, but test images are {test.image};"
            " use one shape for both."
        )
    if len(names) < 2:
        raise InputError(
            f"data.name={config.name}: all images belong to one class; a classifier needs at least two classes."
        )
    sizes = torch.bincount(train.labels, minlength=len(names))
    if not sizes.all():
        raise InputError(
            f"data.name={config.name}: class {names[int(sizes.argmin())]} has no training images; add some."
        )
    published = is_published(config.name, train)
    if config.name in PUBLISHED and not published:
        remarks.append(f"these are not the images of {config.name}, so their own mean and standard deviation are used")
    if config.fraction < 1:
        train = train.take(split(train.labels, config.fraction, seed, "data fraction", names)[0])
    plain = [str(half.root) for half in (train, test) if isinstance(half, Pictures) and half.range is None]
    train = _decode_small(train, config, "training", remarks)
    test = _decode_small(test, config, "test", remarks)
    if plain:  # the rule for arrays also applies to 8-bit files
        range_of(some_of(train).numpy(), (), plain[0]).check_half(some_of(test).numpy(), plain[1])
    remarks += _warnings(train, names)

    mean, std = tuple(config.mean), tuple(config.std)
    if not mean:
        mean, std = PUBLISHED[config.name] if published else statistics(train)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != train.image[0]:
            raise InputError(
                f"data.{key} must have one value per channel of the images ({train.image[0]}), not {len(values)}."
            )
    fingerprint = hashlib.sha256(train.digest() + test.digest()).hexdigest()
    train, test = train.to(device), test.to(device)
    return DataSet(
        config.called, train, test, train.image, len(names), tuple(names), mean, std, fingerprint, tuple(remarks)
    )


def build_test_set(config: DataConfig, read: ReadImages, device: torch.device) -> DataSet:
    """Build a data set whose training half is empty: all training images of `read` become test images."""
    remarks = [*read.remarks]
    test = _decode_small(read.train, config, "test", remarks)
    fingerprint = hashlib.sha256(test.digest()).hexdigest()
    none, test = test.take(torch.arange(0)).to(device), test.to(device)
    return DataSet(
        config.called, none, test, test.image, len(read.names), tuple(read.names), (), (), fingerprint, tuple(remarks)
    )


def _warnings(train: Images, names: Sequence[str]) -> list[str]:
    """Return remarks on likely mistakes in the training images: very unequal classes, or identical images."""
    found, sizes = [], torch.bincount(train.labels, minlength=len(names))
    (few, least), (many, most) = ((int(at), int(sizes[at])) for at in (sizes.argmin(), sizes.argmax()))
    if most >= UNEQUAL * least:
        found.append(
            f"the classes are very unequal ({names[many]}: {most:,} images, {names[few]}: {least:,});"
            " set search.class_weights=balanced and retrain.class_weights=balanced to give them equal weight"
        )
    if isinstance(train, InMemory) and len(train) > 1 and bool((train.pixels == train.pixels[:1]).all()):
        found.append("all training images are identical")
    return found


def _decode_small(
    images: InMemory | Pictures, config: DataConfig, half: str, remarks: list[str]
) -> InMemory | Pictures:
    """Decode an image folder into memory if it is small enough, and append remarks on clipped or rounded pixels.

    For a larger folder, the remarks cover only a sample of evenly spaced images.
    """
    if isinstance(images, InMemory):
        return images
    is_small = len(images) * int(np.prod(images.image)) <= IN_MEMORY_BYTES
    if is_small:
        decoded = InMemory(images.fetch(torch.arange(len(images))), images.labels)
    elif images.range is not None:
        decoded = InMemory(some_of(images), images.labels)
    else:
        return images
    words = sum(images.lost or (), Lost()).in_words(config.range, decoded.pixels.numel())
    part = "" if is_small else f", in a sample of {len(decoded.pixels):,} of {len(images):,} images"
    remarks += [f"{half} images: {one}{part}" for one in words]
    return decoded if is_small else images


def split(labels: Tensor, fraction: float, seed: int, stream: str, names: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
    """Split images into two parts by their labels (n,); return the ascending indices (n1,) and (n2,), int64 on the CPU.

    The first part gets `fraction` of each class, but each part gets at least one image of every class. The result is a pure
    function of the arguments. Raises InputError if a class has a single image; `names` are the class names for this message.
    """
    labels = labels.cpu()
    sizes = torch.bincount(labels)
    if (sizes == 1).any():
        label = int((sizes == 1).nonzero()[0])
        name = names[label] if names else label
        raise InputError(f"class {name} has a single image, too few to split; add images or leave the class out.")
    shuffled = permutation(seed, stream, 0, len(labels))
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    owner = labels[by_class]
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[owner]
    quota = (sizes.double() * fraction + 0.5).long().clamp(min=torch.ones_like(sizes), max=(sizes - 1).clamp(min=1))
    first = rank < quota[owner]
    return by_class[first].sort().values, by_class[~first].sort().values

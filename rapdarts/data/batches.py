"""Batches of a data set: shuffled and augmented for training, from any step on, or in order for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rapdarts.data.augment import DRAWS, Augment
from rapdarts.data.images import Images
from rapdarts.data.pictures import Pictures
from rapdarts.data.randomness import permutation, uniform_draws
from rapdarts.errors import InputError

MOST_SHRINKING = 16
"""Largest factor between a batch that is too large and the batch that a message suggests with a learning rate in proportion."""


class BatchTooLarge(InputError):
    """A batch that is larger than the set of images it is drawn from.

    `finding` is the message without advice, `key` is the key of the batch, and `most` is its largest possible size. `example` is a
    smaller batch as key=value, with a learning rate that is lower in proportion; it is empty if the batch would shrink too much.
    """

    def __init__(self, batches: Batches) -> None:
        self.key, drawn = batches.what.partition("=")[0], len(batches.index)
        self.most, self.example = drawn // batches.accumulate, ""
        whole, share = (f" of {batches.whole}", f" ({batches.share})") if batches.share else ("", "")
        images = f"{drawn}{whole} training images that batches are drawn from{share}"
        self.finding = f"{batches.what}={batches.batch} is larger than the {images}"
        usual = 2 ** (max(1, self.most).bit_length() - 1)
        if batches.lr and usual >= 2 and MOST_SHRINKING * usual * batches.accumulate >= batches.batch:
            rate = batches.lr * usual * batches.accumulate / batches.batch
            self.example = f"{self.key}={usual} {self.key.rpartition('.')[0]}.lr={rate:.3g}"
        super().__init__(f"{self.finding}; use at most {self.most}.")


@dataclass(frozen=True, eq=False)
class Batches:
    """Endless stream of shuffled, augmented batches; any step of any epoch can be read without the steps before it.

    A batch may be computed in `accumulate` parts, one after the other. Image i of a batch is in part i mod parts. Several
    processes share each part.
    """

    images: Images
    index: Tensor  # (n,) int64 on the CPU, positions of the images in this stream
    batch: int  # images
    seed: int
    stream: str
    augment: Augment
    what: str = "batch"  # the configuration key of `batch`, for error messages
    accumulate: int = 1  # parts of a full batch
    rank: int = 0  # number of this process
    processes: int = 1
    least: int = 2  # smallest number of images in a part; batch norm cannot take a single image
    share: str = ""  # how settings determine the number of positions, for messages
    whole: int = 0  # number of training images of which the positions are a share, for messages
    lr: float = 0.0  # learning rate that goes with `batch`, for messages; 0 if there is none

    def __post_init__(self) -> None:
        if self.batch > len(self.index):
            raise BatchTooLarge(self)

    @property
    def steps(self) -> int:
        """Number of batches per epoch. The last batch may be smaller, but is dropped if it has fewer than `least` images."""
        whole, left = divmod(len(self.index), self.batch)
        return whole + (left >= self.least)

    def size(self, step: int) -> int:
        """Return the number of images in the batch of a step, summed over all processes."""
        return min(self.batch, len(self.index) - step * self.batch)

    def parts(self, size: int) -> int:
        """Return the number of parts of a batch of `size` images.

        No part is larger than in a full batch, and none has fewer than `least` images.
        """
        whole = -(-self.batch // self.accumulate)
        return max(1, min(-(-size // whole), size // self.least))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share (images (b, c, h, w) float32, labels (b,) int64) of each batch from step `start` on.

        The augmentation of an image depends only on its position in the data set and the epoch, not on batch size or start.
        """
        order = self.index[permutation(self.seed, f"{self.stream} order", epoch, len(self.index))]
        batches = torch.split(order, self.batch)[start : self.steps]
        for part, pixels in _fetch_each(self.images, [self._own_part(batch) for batch in batches]):
            draws = uniform_draws(self.seed, f"{self.stream} augment", epoch, part, DRAWS)
            if self.augment.draws > DRAWS:
                more = uniform_draws(
                    self.seed, f"{self.stream} zoom and colours", epoch, part, self.augment.draws - DRAWS
                )
                draws = torch.cat([draws, more], 1)
            yield self.augment(pixels, draws), self.images.labels[part]

    def _own_part(self, batch: Tensor) -> Tensor:
        """Return the positions in a batch that this process takes: each process in turn takes one image per part."""
        turn = torch.arange(len(batch)) // self.parts(len(batch))
        return batch[turn % self.processes == self.rank]


def ordered(images: Images, index: Tensor | None, batch: int, augment: Augment) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised (images (b, c, h, w) float32, labels (b,) int64) in the order of `index` (n,), or of all images if it is None."""
    index = torch.arange(len(images)) if index is None else index
    for part, pixels in _fetch_each(images, torch.split(index, batch)):
        yield augment(pixels, None), images.labels[part]


def _fetch_each(images: Images, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (positions on the device, pixels) for each part; image files are decoded one part ahead."""
    if not parts:
        return
    device = images.labels.device
    on_device = torch.split(torch.cat(list(parts)).to(device), [len(part) for part in parts])  # one copy per epoch
    if not isinstance(images, Pictures):
        for part in on_device:
            yield part, images.fetch(part)
        return
    decoding = images.begin(parts[0])
    try:
        for step, part in enumerate(on_device):
            ready, decoding = decoding, images.begin(parts[step + 1]) if step + 1 < len(parts) else []
            yield part, images.collect(ready)
    finally:
        for picture in decoding:
            picture.cancel()

"""Batches of a search: pairs of a batch that trains the weights and a batch that trains the architecture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rapdarts.config.experiment import Experiment
from rapdarts.data.augment import Augment
from rapdarts.data.batches import Batches
from rapdarts.data.dataset import DataSet, split

Batch = tuple[Tensor, Tensor]
"""Images (n, c, h, w) and labels (n,)."""


@dataclass(frozen=True)
class SearchBatches:
    """Pairs of batches, one from the training half and one from the search half.

    The search half has its own epochs, which may end within an epoch of the training half. Each stage of `epochs` epochs
    continues both streams, so that it has its own shuffles and crops. `begun` is the number of epochs before the stage.
    """

    train: Batches
    search: Batches
    epochs: int
    begun: int = 0

    @classmethod
    def of(cls, data: DataSet, config: Experiment) -> SearchBatches:
        """Split the training set into two halves with balanced classes.

        Raises InputError if a batch is larger than the half that it is drawn from.
        """
        settings, seed = config.search, config.seed
        augment = Augment(data.mean, data.std, config.data.crop, config.data.flip, cutout=0)
        labels, used = data.train.labels.cpu(), torch.arange(len(data.train))
        if settings.subset < 1:
            used, _ = split(labels, settings.subset, seed, "subset", data.class_names)
        parts = split(labels[used], settings.weight_fraction, seed, "halves", data.class_names)
        first, second = (used[part] for part in parts)
        subset = f"search.subset={settings.subset:g} x " if settings.subset < 1 else ""
        half = f"search.weight_fraction={settings.weight_fraction:g}"
        halves = (
            ("weights", first, f"{subset}{half}"),
            ("architecture", second, f"{subset}(1 - {half})" if subset else f"1 - {half}"),
        )

        built = {
            stream: Batches(
                *(data.train, index, settings.batch, seed, stream, augment, "search.batch"),
                share=share,
                whole=len(data.train),
                lr=settings.lr,
            )
            for stream, index, share in sorted(
                halves, key=lambda half: len(half[1])
            )  # the smaller one limits the batch
        }
        return cls(built["weights"], built["architecture"], settings.epochs)

    def of_stage(self, number: int) -> SearchBatches:
        """Return the batches of a stage, with epochs counted from 0."""
        return replace(self, begun=number * self.epochs)

    @property
    def steps(self) -> int:
        return self.train.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Batch]]:
        epoch += self.begun
        return zip(self.train.epoch(epoch, start), self._search_batches(epoch * self.steps + start), strict=False)

    def _search_batches(self, step: int) -> Iterator[Batch]:
        while True:
            epoch, start = divmod(step, self.search.steps)
            for batch in self.search.epoch(epoch, start):
                yield batch
                step += 1

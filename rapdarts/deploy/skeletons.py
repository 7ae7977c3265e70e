"""Choice of a network's skeleton: the one that it was priced for, the one of an experiment or command, or the default of its space."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton, stem_for
from rapdarts.config.experiment import Experiment, SkeletonConfig
from rapdarts.errors import InputError

if TYPE_CHECKING:
    from rapdarts.data.dataset import DataSet

IMAGE, CLASSES = (3, 32, 32), 10
"""Default image shape and number of classes for counting the costs of a network."""


def of_space(space: SearchSpace) -> Skeleton:
    """Return the deployment skeleton of a space, for the images of CIFAR-10."""
    return Skeleton(*space.deployment, IMAGE, CLASSES)


def changed(
    base: Skeleton,
    layers: int = 0,
    channels: int = 0,
    image: tuple[int, int, int] | None = None,
    classes: int = 0,
    stem: str = "",
) -> Skeleton:
    """Return `base` with the given values; 0, None and an empty stem leave it unchanged. A new image shape may change the stem."""
    size = image or base.image
    chosen = stem_for(stem, size) if stem or image else base.stem
    return Skeleton(layers or base.layers, channels or base.channels, size, classes or base.classes, chosen)


def of_experiment(settings: SkeletonConfig, image: tuple[int, int, int], classes: int) -> Skeleton:
    """Return the deployment skeleton of an experiment. Raises InputError if its width is auto."""
    if settings.channels == 0:
        raise InputError("skeleton.channels=auto needs a search with budgets; set skeleton.channels to a number.")
    return Skeleton(settings.layers, settings.channels, image, classes, stem_for(settings.stem, image))


def of_supernet(config: Experiment, data: DataSet, layers: int) -> Skeleton:
    """Return the skeleton of a stage's supernet: `layers` cells, with the width of the search."""
    stem = stem_for(config.skeleton.stem, data.image)
    return Skeleton(layers, config.search.channels, data.image, data.classes, stem)


def to_build(genotype: Genotype | None, settings: SkeletonConfig, data: DataSet) -> tuple[Skeleton, Skeleton | None]:
    """Return the skeleton that the genotype was priced for if its image and classes match the data, else the experiment's.

    Also returns the experiment's own skeleton if it differs from the one to build, else None.
    """
    priced = genotype.skeleton if genotype is not None else None
    if priced is None or (priced.image, priced.classes) != (data.image, data.classes):
        return of_experiment(settings, data.image, data.classes), None
    # With channels=auto, the experiment's width is the one that the search found and priced.
    own = of_experiment(settings, data.image, data.classes) if settings.channels else priced
    return priced, own if own != priced else None


def placed(settings: SkeletonConfig, skeleton: Skeleton) -> SkeletonConfig:
    """Return the settings with the values of the skeleton that is built, for the run folder."""
    return replace(settings, layers=skeleton.layers, channels=skeleton.channels, stem=skeleton.stem)

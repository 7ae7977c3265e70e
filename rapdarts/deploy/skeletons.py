"""At which skeleton is a network built or counted: as it was priced, as an experiment or a command asks, or as its space deploys it."""

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
"""Image and classes that a network is counted for where neither it nor the user says otherwise."""


def of_space(space: SearchSpace) -> Skeleton:
    """Return the skeleton that a space deploys, on CIFAR-10's images."""
    return Skeleton(*space.deployment, IMAGE, CLASSES)


def changed(
    base: Skeleton,
    layers: int = 0,
    channels: int = 0,
    image: tuple[int, int, int] | None = None,
    classes: int = 0,
    stem: str = "",
) -> Skeleton:
    """Return `base` with what is asked for, 0 and nothing leaving it as it is; another image may take another stem."""
    size = image or base.image
    chosen = stem_for(stem, size) if stem or image else base.stem
    return Skeleton(layers or base.layers, channels or base.channels, size, classes or base.classes, chosen)


def of_experiment(settings: SkeletonConfig, image: tuple[int, int, int], classes: int) -> Skeleton:
    """Return the deployment skeleton of an experiment. Raises InputError where its width is still to be found."""
    if settings.channels == 0:
        raise InputError("skeleton.channels=auto is found by a search within budgets; give a number here.")
    return Skeleton(settings.layers, settings.channels, image, classes, stem_for(settings.stem, image))


def of_supernet(config: Experiment, data: DataSet, layers: int) -> Skeleton:
    """Return the skeleton of a stage's supernet: as deep as the stage, as wide as the search says."""
    stem = stem_for(config.skeleton.stem, data.image)
    return Skeleton(layers, config.search.channels, data.image, data.classes, stem)


def to_build(genotype: Genotype | None, settings: SkeletonConfig, data: DataSet) -> tuple[Skeleton, Skeleton | None]:
    """Return the skeleton that the genotype was priced at, if on images of the same shape and classes, else the experiment's.

    Also returns the experiment's own skeleton if it differs from the one to build, else None.
    """
    priced = genotype.skeleton if genotype is not None else None
    if priced is None or (priced.image, priced.classes) != (data.image, data.classes):
        return of_experiment(settings, data.image, data.classes), None
    # A width of auto is what a search found: the one that it priced.
    own = of_experiment(settings, data.image, data.classes) if settings.channels else priced
    return priced, own if own != priced else None


def placed(settings: SkeletonConfig, skeleton: Skeleton) -> SkeletonConfig:
    """Return the settings that say what is built, for the run folder."""
    return replace(settings, layers=skeleton.layers, channels=skeleton.channels, stem=skeleton.stem)

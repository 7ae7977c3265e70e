"""The skeleton of a network: as a genotype was priced, as an experiment or a command asks, or as its space deploys it."""

from __future__ import annotations

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton, stem_for
from rapdarts.config.commands import CountConfig
from rapdarts.config.experiment import (
    SkeletonConfig,
    image_shape,
)
from rapdarts.data.dataset import DataSet
from rapdarts.errors import InputError

IMAGE, CLASSES = (3, 32, 32), 10
"""Image and classes that a network is counted for where neither it nor the user says otherwise."""


def skeleton_for(space: SearchSpace, options: CountConfig, own: Skeleton | None = None) -> Skeleton:
    """The skeleton that the options ask for, over a genotype's `own`, or else the one that the space deploys."""
    base = own or Skeleton(*space.deployment, IMAGE, CLASSES)
    image = image_shape(options.input) if options.input else base.image
    stem = stem_for(options.stem, image) if options.stem or options.input or not own else base.stem
    return Skeleton(
        options.layers or base.layers, options.channels or base.channels, image, options.classes or base.classes, stem
    )


def deployment_skeleton(settings: SkeletonConfig, data: DataSet) -> Skeleton:
    """The network around the cells that will really be trained, on images and classes of the data."""
    if settings.channels == 0:
        raise InputError("skeleton.channels=auto is found by a search within budgets; give a number here.")
    stem = stem_for(settings.stem, data.image)
    return Skeleton(settings.layers, settings.channels, data.image, data.classes, stem)


def skeleton_to_build(
    genotype: Genotype | None, settings: SkeletonConfig, data: DataSet
) -> tuple[Skeleton, Skeleton | None]:
    """The skeleton that the genotype was priced at, if it was on images of the same shape and classes; else that of the experiment.

    Behind it stands that of the experiment where it is another one and not built.
    """
    priced = genotype.skeleton if genotype is not None else None
    if priced is None or (priced.image, priced.classes) != (data.image, data.classes):
        return deployment_skeleton(settings, data), None
    own = deployment_skeleton(settings, data) if settings.channels else priced  # auto is what a search found
    return priced, own if own != priced else None

"""Blueprints: one interface to build, train and count the costs of derived networks and reference networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rapdarts.architecture.genotype import SKELETON, Genotype, buildable
from rapdarts.architecture.reading import parse_genotype_json
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.experiment import RetrainConfig
from rapdarts.cost.count import COUNTERS, Counter, count, resources_of
from rapdarts.cost.own_resources import own_counters
from rapdarts.cost.trace import Image
from rapdarts.deploy.space_lookup import Space, find_space
from rapdarts.errors import DamagedError
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.networks.reference import find_reference, reference_named

EXACT = ("macs", "params", "bytes", "activations", "traffic", "energy")
"""Resources whose amount in a genotype's file equals the counted amount."""


class Blueprint(ABC):
    """A network that can be built any number of times, each time with fresh weights."""

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """Name of the network in messages and tables."""

        @property
        def image(self) -> Image:
            """Shape of the input image (channels, height, width)."""

        @property
        def classes(self) -> int:
            """Number of classes."""

    @property
    @abstractmethod
    def origin(self) -> dict[str, str]:
        """Identity of the network: its genotype, or the name of a reference network.

        A training run cannot be resumed with a different network.
        """

    @property
    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Plain values from which `of_card` rebuilds the blueprint."""

    @abstractmethod
    def build(self, auxiliary: bool = False) -> nn.Module:
        """Return the network, from images (n, c, h, w) to logits (n, classes).

        With `auxiliary`, a network that can have an auxiliary head gets one and returns a pair of logits in training.
        Raises InputError if the image is too small for the network.
        """

    @abstractmethod
    def with_classes(self, classes: int) -> Blueprint:
        """Return the same network with a different number of classes."""

    @abstractmethod
    def remarks(self, recipe: RetrainConfig) -> list[str]:
        """Return the remarks to show before the network is trained with a recipe."""

    @abstractmethod
    def facts(self, recipe: RetrainConfig) -> dict[str, str]:
        """Return facts about the network, other than its costs, for the result of training it with a recipe."""

    @cached_property
    def costs(self) -> dict[str, float]:
        """Cost of the network in every resource, without the auxiliary head. Raises InputError as `build` does."""
        return self.count_costs()

    def count_costs(self) -> dict[str, float]:
        """Count the costs in the network."""
        with torch.device("meta"):
            network = self.build()
        return count(network, self.image, self.counters)

    @property
    def counters(self) -> Mapping[str, Counter]:
        """Functions that count the network's costs, by resource."""
        return COUNTERS


@dataclass(frozen=True)
class DerivedBlueprint(Blueprint):
    """The network of a genotype of `space`, built with `skeleton`.

    `instead_of` is the experiment's skeleton if it was replaced by the skeleton that the genotype was priced for.
    """

    genotype: Genotype
    space: SearchSpace
    skeleton: Skeleton
    instead_of: Skeleton | None = None
    name: str = "the genotype"

    @property
    def image(self) -> Image:
        return self.skeleton.image

    @property
    def classes(self) -> int:
        return self.skeleton.classes

    @property
    def auxiliary_params(self) -> int:
        """Number of parameters of the auxiliary head, which training adds."""
        with torch.device("meta"):
            head = self.build(auxiliary=True).auxiliary
        return 0 if head is None else sum(parameter.numel() for parameter in head.parameters())

    @cached_property
    def costs(self) -> dict[str, float]:
        """Cost of the network in every resource, as in `Blueprint`.

        Raises DamagedError if the genotype was priced for this skeleton and its file states other costs.
        """
        counted = self.count_costs()
        stated = self.genotype.costs if self.skeleton == self.genotype.skeleton else {}
        for name in EXACT:
            if name in stated and not math.isclose(stated[name], counted[name], rel_tol=1e-9):
                raise DamagedError(
                    f"the costs stated for {self.name} are not those of its cells: {name} is {stated[name]:,}, but its network has"
                    f" {counted[name]:,}. If its file was edited on purpose, remove its costs."
                )
        return counted

    @property
    def counters(self) -> Mapping[str, Counter]:
        return {**resources_of(self.genotype), **own_counters(self.space)}

    @property
    def origin(self) -> dict[str, str]:
        return {"genotype": self.genotype.line}

    @property
    def card(self) -> dict[str, Any]:
        return {"genotype": replace(self.genotype, skeleton=self.skeleton, costs=self.costs).to_json()}

    def build(self, auxiliary: bool = False) -> DerivedNetwork:
        return DerivedNetwork(self.genotype, self.space, self.skeleton, auxiliary)

    def with_classes(self, classes: int) -> DerivedBlueprint:
        return replace(self, skeleton=replace(self.skeleton, classes=classes))

    def remarks(self, recipe: RetrainConfig) -> list[str]:
        def cells(skeleton: Skeleton) -> str:
            return f"{skeleton.layers} cells x {skeleton.channels} channels with the {skeleton.stem} stem"

        why = (
            f", the skeleton for which the genotype was priced, instead of the experiment's {cells(self.instead_of)}"
            if self.instead_of
            else ""
        )
        place = [f"using the genotype on {self.genotype.place}"] if self.genotype.place else []
        lines = [*place, f"building {cells(self.skeleton)}{why}; to change the skeleton, set skeleton.KEY=..."]
        if self.facts(recipe) == {"auxiliary_pool": "adaptive 2x2"}:
            lines.append(
                "the auxiliary head uses adaptive pooling: its 5x5 pool does not fit feature maps of this size"
            )
        return lines

    def facts(self, recipe: RetrainConfig) -> dict[str, str]:
        with torch.device("meta"):
            head = self.build(auxiliary=recipe.auxiliary > 0).auxiliary
        return {} if head is None else {"auxiliary_pool": "adaptive 2x2" if head.adaptive else "5x5"}


@dataclass(frozen=True)
class ReferenceBlueprint(Blueprint):
    """A reference network, given by its full name (`lenet`, `resnet20@12`), an image shape and the number of classes."""

    reference: str
    image: Image
    classes: int
    name: str = "the network"

    @property
    def width(self) -> int | None:
        """Number of channels of the first stage; None for a network of fixed width."""
        return reference_named(self.reference).width

    @property
    def origin(self) -> dict[str, str]:
        return {"reference network": self.reference}

    @property
    def card(self) -> dict[str, Any]:
        return {"reference": self.reference, "image": self.image, "classes": self.classes}

    def build(self, auxiliary: bool = False) -> nn.Module:
        return reference_named(self.reference).build(self.image, self.classes)

    def with_classes(self, classes: int) -> ReferenceBlueprint:
        return replace(self, classes=classes)

    def remarks(self, recipe: RetrainConfig) -> list[str]:
        lines = [f"building {self.reference} for images of {'x'.join(map(str, self.image))} and {self.classes} classes"]
        idle = [f"retrain.{key}" for key in ("drop_path", "auxiliary") if getattr(recipe, key)]
        if idle:
            lines.append(f"ignoring {' and '.join(idle)}: used only by networks built from cells")
        return lines

    def facts(self, recipe: RetrainConfig) -> dict[str, str]:
        return {"network": self.reference}


def of_card(card: Mapping[str, Any], where: str, space: Space = None) -> Blueprint:
    """Return the blueprint that a card describes; `where` names the card in messages.

    `space` is the genotype's search space if that space is not shipped with rapdarts. Raises InputError for a genotype that cannot be
    used, and KeyError, TypeError or ValueError for a malformed card.
    """
    if "reference" in card:
        name, (channels, height, width), classes = card["reference"], card["image"], card["classes"]
        sizes = ((channels, "image"), (height, "image"), (width, "image"), (classes, "classes"))
        if not all(type(number) is int and 0 < number <= SKELETON[name] for number, name in sizes):
            raise ValueError("its image shape and number of classes are not all positive whole numbers of a usual size")
        if not isinstance(name, str) or find_reference(name) != name:
            raise ValueError("its reference network is unknown")
        return ReferenceBlueprint(name, (channels, height, width), classes)
    genotype = parse_genotype_json(card["genotype"], f"{where}:genotype")
    if genotype.skeleton is None:
        raise ValueError("its genotype has no skeleton")
    own = find_space(space, genotype.space)
    built = buildable(genotype, own, where)
    return DerivedBlueprint(replace(built, space=own.name), own, genotype.skeleton)

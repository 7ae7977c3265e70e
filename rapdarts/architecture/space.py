"""Search spaces of cells, skeletons that stack the cells, and mixing weights of the candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rapdarts.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

KINDS = ("normal", "reduce")
"""The kinds of cell, in the order of the first axis of mixing tensors and price tables; a space has both kinds or only the first."""

NONE, SKIP = "none", "skip_connect"
"""Primitives that the search treats specially: no connection, and skip connections, which get dropout and are limited in number."""

SKIP_PATHS = ("any", "one")
"""Conditions on the skip-only paths from the input to the output of a derived cell."""

Factory = Callable[[int, int, bool], "nn.Module"]
"""A primitive: `factory(channels, stride, affine)` builds a module that maps (n, C, h, w) to (n, C, ceil(h/stride), ceil(w/stride))."""


@dataclass(frozen=True)
class Skeleton:
    """The macro-architecture: the number and width of the cells, the stem, the image shape and the number of classes.

    `layers` includes the reductions, which are cells or residual blocks. `image` is (channels, height, width). The stem
    `cifar` is one 3x3 convolution, to 3C channels before cells with two inputs and to C before cells with one. The stem
    `imagenet` is three stride-2 3x3 convolutions; the second outputs the first cell's older input, and the third
    its newer one.
    """

    layers: int
    channels: int
    image: tuple[int, int, int]
    classes: int
    stem: str = "cifar"

    def __post_init__(self) -> None:
        if self.channels < 2:
            raise InputError(f"a skeleton with channels={self.channels} cannot halve its channels; use at least 2.")

    @property
    def reductions(self) -> frozenset[int]:
        """Layers that halve the image and double the channels, at one and two thirds of the depth (Liu et al. 2019, section 3.1)."""
        return frozenset({self.layers // 3, 2 * self.layers // 3})

    def cells(self, space: SearchSpace, widths: Mapping[str, int] | None = None) -> list[CellPlan]:
        """Return the layers from stem to classifier: cells and, for cells with one input, the residual blocks between them.

        `widths` maps each kind of cell to the number of nodes in its output; by default, the space determines it. Raises
        InputError if no layer is a cell.
        """
        widths = dict.fromkeys(space.kinds, len(space.outputs)) if widths is None else widths
        height, width = self.image[1:]
        older = newer = self.stem_channels(space)
        shrink = False
        if self.stem == "imagenet":
            height, width = (-(-side // 8) for side in (height, width))
            shrink = space.inputs == 2
        channels, plans = self.channels, []
        for layer in range(self.layers):
            reduction = layer in self.reductions
            if reduction:
                channels *= 2
            kind = KINDS[reduction]
            plans.append(CellPlan(layer, kind, channels, older, newer, shrink, (height, width)))
            if reduction:
                height, width = -(-height // 2), -(-width // 2)
            newest = channels * (widths[kind] if kind in space.kinds else 1)
            older, newer, shrink = (newer, newest, reduction) if space.inputs == 2 else (newest, newest, False)
        if not any(plan.kind in space.kinds for plan in plans):
            raise InputError(
                f"a skeleton of {self.layers} layers has no cell of the space {space.name}, only residual blocks; use at least 3 layers."
            )
        return plans

    def stem_channels(self, space: SearchSpace) -> int:
        """Return the number of channels that the stem passes to the first cell."""
        return 3 * self.channels if space.inputs == 2 and self.stem == "cifar" else self.channels

    @property
    def auxiliary_layer(self) -> int:
        """Layer that the auxiliary head follows in training: the second reduction (Liu et al. 2019, appendix A.2)."""
        return 2 * self.layers // 3


@dataclass(frozen=True)
class CellPlan:
    """A planned cell: its layer, kind, width C, the channels of its two inputs, and the image size (h, w) of the newer input.

    `shrink_older` is true if the older input is twice as large as the newer one, as after a reduction. For a cell with
    one input, `older` and `newer` are equal. If the space has no cells of this kind, the plan describes a residual
    block.
    """

    layer: int
    kind: str
    channels: int
    older: int
    newer: int
    shrink_older: bool
    size: tuple[int, int]

    @property
    def stride(self) -> int:
        """Stride of the edges from the cell's inputs."""
        return 2 if self.kind == "reduce" else 1

    @property
    def inside(self) -> tuple[int, int]:
        """Image size (h, w) of the cell's nodes."""
        height, width = self.size
        return -(-height // self.stride), -(-width // self.stride)


def stem_for(asked: str, image: tuple[int, int, int]) -> str:
    """Return the requested stem; `auto` or an empty string gives `imagenet` for images of at least 96 x 96 pixels, else `cifar`."""
    if asked not in ("", "auto"):
        return asked
    return "imagenet" if min(image[1:]) >= 96 else "cifar"


Resource = Callable[["nn.Module", tuple[int, int, int]], float]
"""A user-defined resource: `function(network, image)` returns the cost of a network for one image (channels, height, width).

The network is on the meta device: its tensors have shapes but no values."""

Candidates = tuple[tuple[tuple[str, ...], ...], ...]
"""Primitives that are still open, by kind of cell and by edge."""


@dataclass(frozen=True)
class SearchSpace:
    """Cells of `nodes` nodes. Each node keeps `keep` edges (None: all) from the cell's inputs and earlier nodes.

    `primitives` are the candidates of an edge, in the order of the last axis of every mixing tensor. `derive_none`
    allows an edge to be derived as `none`, and `repeat_inputs` allows a node to use an input twice. `deployment` is the
    default number of layers and channels of the networks. `max_skips` is the default cap on skips in a derived normal
    cell (2: Chen et al. 2019, section 3.3). With `skip_paths` set to `one`, cells derived by the rule `exact` have
    exactly one skip-only path from input to output, like the shortcut of a residual block (He et al. 2016); only cells
    with one input support this condition. `candidates` lists the open primitives of every edge and kind: all
    of them at first, and fewer after every stage.

    `inputs` determines the type of cell. Cells with 2 inputs read the outputs of the two preceding cells, projected to the
    cell's width by 1x1 convolutions; their output is the concatenation of all nodes, and reduction cells are searched
    too (DARTS: Liu et al. 2019). Cells with 1 input read the output of the preceding cell unchanged; their output is
    the last node, and the reductions are residual blocks (NAS-Bench-201: Dong and Yang 2020).

    `resources` are user-defined resources. They are counted like built-in ones and can have a price and a budget.
    """

    name: str
    primitives: Mapping[str, Factory]
    nodes: int = 4
    inputs: int = 2
    keep: int | None = 2
    derive_none: bool = False
    repeat_inputs: bool = False
    deployment: tuple[int, int] = (20, 36)
    max_skips: int = 2
    skip_paths: str = "any"
    candidates: Candidates = field(default=())
    resources: Mapping[str, Resource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inputs not in (1, 2):
            raise InputError(f"the space {self.name} has cells with {self.inputs} inputs; a cell must have 1 or 2.")
        if self.skip_paths not in SKIP_PATHS:
            raise InputError(f"the space {self.name} has skip_paths={self.skip_paths!r}; it must be any or one.")
        if self.skip_paths == "one" and (self.inputs == 2 or SKIP not in self.primitives):
            lacking = "cells with one input" if self.inputs == 2 else f"the primitive {SKIP}"
            raise InputError(
                f"search.skip_paths=one needs {lacking}, which the space {self.name} does not have; use auto."
            )
        if self.repeat_inputs and self.keep is not None and self.keep > self.inputs:
            raise InputError(
                f"the space {self.name} keeps {self.keep} edges per node, but its first node has only {self.inputs} to"
                " choose from; reduce keep."
            )
        if not self.candidates:
            everything = tuple(tuple(self.primitives) for _ in self.edges)
            object.__setattr__(self, "candidates", tuple(everything for _ in self.kinds))

    @property
    def fewest_layers(self) -> int:
        """Minimum number of layers of a skeleton. If cells have one input, fewer layers would all be residual blocks."""
        return 1 if self.inputs == 2 else 3

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of cell that are searched, in the order of the first axis of every mixing tensor and price table."""
        return KINDS if self.inputs == 2 else KINDS[:1]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Nodes in the output of a cell, numbered like the inputs of edges: all nodes, concatenated, or only the last one."""
        everything = tuple(range(self.inputs, self.inputs + self.nodes))
        return everything if self.inputs == 2 else everything[-1:]

    @property
    def edges(self) -> list[tuple[int, int]]:
        """All edges as (node, input) pairs. Nodes are numbered from 0; input j >= `inputs` is node j - `inputs`."""
        return [(node, source) for node in range(self.nodes) for source in range(self.inputs + node)]

    def edges_into(self, node: int) -> slice:
        """Return the slice of `edges` that leads into a node."""
        first = sum(self.inputs + earlier for earlier in range(node))
        return slice(first, first + self.inputs + node)

    def edges_kept(self, node: int) -> int:
        """Return the number of edges that a node keeps in the derived cell."""
        possible = self.inputs + node
        return possible if self.keep is None else min(self.keep, possible)

    @property
    def columns(self) -> dict[str, int]:
        """Index of each primitive on the last axis of every mixing tensor."""
        return {name: column for column, name in enumerate(self.primitives)}

    @property
    def choosable(self) -> np.ndarray:
        """Boolean mask (primitives,): the primitives that a genotype may contain."""
        import numpy as np  # imported here: name lookups do not need NumPy, and importing it takes half the start-up time

        return np.array([self.derive_none or name != NONE for name in self.primitives])

    @property
    def mask(self) -> np.ndarray:
        """Boolean mask (kinds, edges, primitives): the candidates that are still open."""
        import numpy as np

        return np.array([[[name in edge for name in self.primitives] for edge in kind] for kind in self.candidates])

    def narrowed(self, mask: np.ndarray) -> SearchSpace:
        """Return the same space with only the candidates that are true in `mask` (kinds, edges, primitives)."""
        names = list(self.primitives)
        candidates = tuple(
            tuple(tuple(name for name, open_ in zip(names, edge, strict=True) if open_) for edge in kind)
            for kind in mask
        )
        return replace(self, candidates=candidates)

    def deriving_none(self, allowed: bool) -> SearchSpace:
        """Return the same space, with edges derived as none only if both the space and the caller allow it."""
        return replace(self, derive_none=self.derive_none and allowed)

    def with_skip_paths(self, asked: str) -> SearchSpace:
        """Return the same space with a condition from SKIP_PATHS; `auto` keeps the space's own.

        Raises InputError if the space does not support the condition.
        """
        return self if asked == "auto" else replace(self, skip_paths=asked)

    def only(self, primitives: list[str]) -> SearchSpace:
        """Return the same space with a shorter or reordered list of primitives.

        Raises InputError for an unknown or repeated name, and for a list from which nothing can be derived.
        """
        for name in primitives:
            if name not in self.primitives:
                raise InputError(
                    f"search.primitives: the space {self.name} has no primitive {name!r}; it has {', '.join(self.primitives)}."
                )
        if len(set(primitives)) != len(primitives):
            raise InputError("search.primitives lists a primitive twice; list each primitive once.")
        if not any(self.derive_none or name != NONE for name in primitives):
            raise InputError("search.primitives leaves nothing to derive; list at least one primitive besides none.")
        left = {name: self.primitives[name] for name in primitives}
        paths = self.skip_paths if SKIP in left else "any"
        return replace(self, primitives=left, skip_paths=paths, candidates=())


@dataclass(frozen=True)
class Mixing:
    """Mixing weights of the candidates, computed by a relaxation from the architecture parameters.

    `weights` has shape (kinds, edges, primitives), with zeros for closed candidates. `edges` has shape (kinds, edges)
    if the relaxation also weights edges, and is None otherwise.
    """

    weights: Tensor
    edges: Tensor | None = None

    @property
    def joint(self) -> Tensor:
        """Weights of the primitives on each edge (kinds, edges, primitives), as used by prices, pruning and discretisation."""
        return self.weights if self.edges is None else self.weights * self.edges[..., None]

    def to(self, dtype: torch.dtype) -> Mixing:
        """Return the same weights in another dtype."""
        return Mixing(self.weights.to(dtype), None if self.edges is None else self.edges.to(dtype))

    def detach(self) -> Mixing:
        """Return the same weights, detached from the autograd graph."""
        return Mixing(self.weights.detach(), None if self.edges is None else self.edges.detach())

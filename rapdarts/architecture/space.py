"""Search spaces of cells, the skeleton that repeats the cells, and the mixing weights of their candidates."""

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
"""The two kinds of cell, in the order of the first axis of mixing tensors and price tables; a space has both, or only the first."""

NONE, SKIP = "none", "skip_connect"
"""The two primitives that the algorithm knows by name: no connection, and the skip that it caps and drops out."""

SKIP_PATHS = ("any", "one")
"""Conditions on the skip-only paths that a derived cell may have from its input to its output."""

Factory = Callable[[int, int, bool], "nn.Module"]
"""A primitive: `factory(channels, stride, affine)` builds a module that maps (n, C, h, w) to (n, C, ceil(h/stride), ceil(w/stride))."""


@dataclass(frozen=True)
class Skeleton:
    """The macro-architecture around the cells: their number and width, and the images.

    `layers` includes the reductions, whether cells or residual blocks. `image` is (channels, height, width). `stem`
    is `cifar` (one 3x3 convolution, to 3C before cells of two inputs and to C before cells of one) or `imagenet`
    (three stride-2 3x3 convolutions, after which the first cell treats its older input as after a reduction).
    """

    layers: int
    channels: int
    image: tuple[int, int, int]
    classes: int
    stem: str = "cifar"

    def __post_init__(self) -> None:
        if self.channels < 2:
            raise InputError(f"a skeleton of {self.channels} channel cannot halve them; it needs at least 2.")

    @property
    def reductions(self) -> frozenset[int]:
        """The layers that halve the image and double the channels: at one and two thirds of the depth (Liu et al. 2019, section 3.1)."""
        return frozenset({self.layers // 3, 2 * self.layers // 3})

    def cells(self, space: SearchSpace, widths: Mapping[str, int] | None = None) -> list[CellPlan]:
        """Return the layers from stem to classifier: cells and, for cells of one input, the residual blocks between them.

        `widths` is the number of nodes in the output of each kind of cell, by default that of the space. Raises
        InputError where there is no cell among the layers.
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
                f"a skeleton of {self.layers} layers has no cell of the space {space.name}, only residual blocks; it needs at least 3."
            )
        return plans

    def stem_channels(self, space: SearchSpace) -> int:
        """Number of channels from the stem to the first cell."""
        return 3 * self.channels if space.inputs == 2 and self.stem == "cifar" else self.channels

    @property
    def auxiliary_layer(self) -> int:
        """The layer that the auxiliary head follows in training: the second reduction (Liu et al. 2019, appendix A.2)."""
        return 2 * self.layers // 3


@dataclass(frozen=True)
class CellPlan:
    """A cell at its layer: its kind and width C, the channels of its two inputs, and the image size (h, w) of the newer one.

    `shrink_older` is set where the older input is still twice as large, because a reduction lies between the two. For a
    cell of one input both counts of channels are the same. A kind that the space does not have is a residual block.
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
    """Return the stem asked for; `auto` (or nothing) is the imagenet stem for images of 96 pixels and more."""
    if asked not in ("", "auto"):
        return asked
    return "imagenet" if min(image[1:]) >= 96 else "cifar"


Candidates = tuple[tuple[tuple[str, ...], ...], ...]
"""Primitives that are still open, by kind and edge."""


@dataclass(frozen=True)
class SearchSpace:
    """Cells of `nodes` nodes, each of which keeps `keep` edges (None: all) from the cell's inputs and earlier nodes.

    `primitives` are the candidates of an edge, in the order of the last axis of every mixing tensor. `derive_none` says
    whether an edge may be derived as `none`; `repeat_inputs` whether a node may use one input twice; `deployment` is the
    default number of layers and channels of its networks, `max_skips` the default cap on skips of a derived normal cell
    (2: Chen et al. 2019, section 3.3). `skip_paths` is `one` if what is derived by the rule `exact` has exactly one
    skip-only path from the input of a cell to its output, the shortcut of a residual block (He et al. 2016); only cells
    of one input can have this condition. `candidates` are the primitives still open on every edge of every kind: all at
    first, fewer from stage to stage.

    `inputs` decides the family. Cells of 2 inputs read the outputs of the two cells before them, which 1x1 convolutions
    bring to the cell's own width; their output is the concatenation of all nodes, and reduction cells are searched too
    (DARTS: Liu et al. 2019). Cells of 1 input read the output of the cell before as it is; their output is the last
    node, and the reductions are residual blocks (NAS-Bench-201: Dong and Yang 2020).
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

    def __post_init__(self) -> None:
        if self.inputs not in (1, 2):
            raise InputError(f"the space {self.name} has cells of {self.inputs} inputs; a cell has 2, or 1.")
        if self.skip_paths not in SKIP_PATHS:
            raise InputError(f"the space {self.name} has skip_paths={self.skip_paths!r}; it is any or one.")
        if self.skip_paths == "one" and (self.inputs == 2 or SKIP not in self.primitives):
            lacking = "cells of one input, and its have two," if self.inputs == 2 else f"{SKIP} among its primitives"
            raise InputError(f"the space {self.name} needs {lacking} for search.skip_paths=one; leave it at auto.")
        if self.repeat_inputs and self.keep is not None and self.keep > self.inputs:
            raise InputError(
                f"the space {self.name} keeps {self.keep} edges a node where the first has {self.inputs} to draw from; keep fewer."
            )
        if not self.candidates:
            everything = tuple(tuple(self.primitives) for _ in self.edges)
            object.__setattr__(self, "candidates", tuple(everything for _ in self.kinds))

    @property
    def fewest_layers(self) -> int:
        """The least depth of a network with a cell: in spaces with residual blocks, fewer than three layers are all blocks."""
        return 1 if self.inputs == 2 else 3

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of cell that are searched, in the order of the first axis of every mixing tensor and price table."""
        return KINDS if self.inputs == 2 else KINDS[:1]

    @property
    def outputs(self) -> tuple[int, ...]:
        """The nodes in the output of a cell, numbered like the inputs of edges: all of them concatenated, or the last."""
        everything = tuple(range(self.inputs, self.inputs + self.nodes))
        return everything if self.inputs == 2 else everything[-1:]

    @property
    def edges(self) -> list[tuple[int, int]]:
        """All edges as (node, input): node 0 is the first after the inputs, input j >= `inputs` is node j - inputs."""
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
        """Mask over `primitives`, (primitives,) of bool: those that a genotype may name."""
        import numpy as np  # here, not above: names are looked up without it, and it is half of a start

        return np.array([self.derive_none or name != NONE for name in self.primitives])

    @property
    def mask(self) -> np.ndarray:
        """Mask of the candidates that are still open, (kinds, edges, primitives) of bool."""
        import numpy as np

        return np.array([[[name in edge for name in self.primitives] for edge in kind] for kind in self.candidates])

    def narrowed(self, mask: np.ndarray) -> SearchSpace:
        """Return the same space with only the candidates that `mask` (kinds, edges, primitives) leaves open."""
        names = list(self.primitives)
        candidates = tuple(
            tuple(tuple(name for name, open_ in zip(names, edge, strict=True) if open_) for edge in kind)
            for kind in mask
        )
        return replace(self, candidates=candidates)

    def deriving_none(self, allowed: bool) -> SearchSpace:
        """Return the same space, whose edges are derived as none only where it and the caller allow that."""
        return replace(self, derive_none=self.derive_none and allowed)

    def with_skip_paths(self, asked: str) -> SearchSpace:
        """Return the same space with a condition of SKIP_PATHS; `auto` is its own. Raises InputError where it cannot have that."""
        return self if asked == "auto" else replace(self, skip_paths=asked)

    def only(self, primitives: list[str]) -> SearchSpace:
        """Return the same cells over a shorter or reordered list of this space's primitives.

        Raises InputError for an unknown or repeated name, and for a list from which nothing can be derived.
        """
        for name in primitives:
            if name not in self.primitives:
                raise InputError(
                    f"search.primitives: the space {self.name} has no primitive {name!r}; it has {', '.join(self.primitives)}."
                )
        if len(set(primitives)) != len(primitives):
            raise InputError("search.primitives names a primitive twice; name each once.")
        if not any(self.derive_none or name != NONE for name in primitives):
            raise InputError("search.primitives leaves nothing to derive; name at least one primitive besides none.")
        left = {name: self.primitives[name] for name in primitives}
        paths = self.skip_paths if SKIP in left else "any"
        return replace(self, primitives=left, skip_paths=paths, candidates=())


@dataclass(frozen=True)
class Mixing:
    """Mixing weights of the candidates, which a relaxation makes of the architecture parameters.

    `weights` is (kinds, edges, primitives), zero where a candidate is closed; `edges`, for relaxations that weigh
    edges too, is (kinds, edges).
    """

    weights: Tensor
    edges: Tensor | None = None

    @property
    def joint(self) -> Tensor:
        """Weight of each (edge, primitive), (kinds, edges, primitives): the one that prices, pruning and discretisation use."""
        return self.weights if self.edges is None else self.weights * self.edges[..., None]

    def to(self, dtype: torch.dtype) -> Mixing:
        """Return the same weights in another dtype."""
        return Mixing(self.weights.to(dtype), None if self.edges is None else self.edges.to(dtype))

    def detach(self) -> Mixing:
        """Return the same weights, detached from their gradient."""
        return Mixing(self.weights.detach(), None if self.edges is None else self.edges.detach())

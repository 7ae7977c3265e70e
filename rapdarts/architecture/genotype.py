"""Genotypes: the discrete cells of a network, as values that are checked, written, compared with a space, and drawn at random."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rapdarts.architecture import dialects
from rapdarts.architecture.cell import Cell
from rapdarts.architecture.drawing import draw
from rapdarts.architecture.space import KINDS, SearchSpace, Skeleton
from rapdarts.errors import InputError, shorten, suggestion
from rapdarts.files.json import dump, quote_value

if TYPE_CHECKING:
    import numpy as np

FORMAT = "rapdarts-genotype"
VERSION = 1
MAX_FILE_BYTES = 1_000_000

SKELETON: Mapping[str, int] = {
    "layers": 1_000,
    "channels": 65_536,
    "stem": 0,
    "image": 65_536,
    "classes": 1_000_000,
}
"""The fields of a skeleton in a file, in their order, with the largest number each may hold (0: no number)."""


@dataclass(frozen=True)
class Genotype:
    """The cells chosen in a space, by kind (`normal`, and `reduce` where it is searched), and facts about their network.

    `skeleton` is the one that `costs`, the amount of each resource, were counted for; `provenance` holds JSON values
    that record how the cells were found.
    """

    space: str
    cells: Mapping[str, Cell]
    skeleton: Skeleton | None = None
    costs: Mapping[str, int | float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the genotype in lines for the eye: space and skeleton, what every node adds up, and the costs."""
        lines = [f"Genotype of the space {_printable(self.space)}"]
        if self.skeleton is not None:
            image = "x".join(map(str, self.skeleton.image))
            size = f"{self.skeleton.layers} layers, {self.skeleton.channels} channels, {self.skeleton.stem} stem"
            lines.append(f"  {size}, images {image}, {self.skeleton.classes} classes")
        for kind, cell in self.cells.items():
            for number, node in enumerate(cell.nodes):
                terms = " + ".join(f"{_printable(primitive)}({source})" for primitive, source in node)
                lines.append(f"  {'' if number else kind:6}  {cell.inputs + number} = {terms or 'no edge'}")
            lines.append(f"  {'':6}  output = {', '.join(map(str, cell.concat))}")
        if self.costs:
            lines.append("  " + ", ".join(f"{_printable(name)} {_plain(cost)}" for name, cost in self.costs.items()))
        return "\n".join(lines)

    def _repr_svg_(self) -> str | None:
        """Return the drawing of the cells, which notebooks show; None, for the text instead, where a cell has too many edges."""
        with suppress(InputError):
            return draw(self)
        return None

    @property
    def widths(self) -> dict[str, int]:
        """Number of nodes in the output of each kind of cell, as `Skeleton.cells` takes it."""
        return {kind: len(cell.concat) for kind, cell in self.cells.items()}

    def to_json(self) -> str:
        """Return JSON that `parse_genotype` reads back, one line a node. Raises ValueError for NaN or infinity."""
        tree = {
            "format": FORMAT,
            "version": VERSION,
            "space": self.space,
            "cells": {kind: asdict(cell) for kind, cell in self.cells.items()},
            "skeleton": None if self.skeleton is None else {key: getattr(self.skeleton, key) for key in SKELETON},
            "costs": self.costs,
            "provenance": self.provenance,
        }
        return dump(tree) + "\n"

    def to_darts(self) -> str:
        """Return the cells as `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)`, one line.

        Where a node does not have exactly two edges, triples replace the pairs, as in FairDARTS: `('sep_conv_3x3', 2, 0)`.
        Raises InputError for cells that this dialect cannot express: those without two inputs.
        """
        pairs = all(len(node) == 2 for cell in self.cells.values() for node in cell.nodes)
        parts = []
        for kind in KINDS:
            cell = self.cells.get(kind)
            if cell is None or cell.inputs != 2:
                raise InputError(f"the {kind} cell cannot be written in the DARTS dialect (cells of two inputs).")
            edges = [
                (primitive, source) if pairs else (primitive, number, source)
                for number, node in enumerate(cell.nodes, cell.inputs)
                for primitive, source in node
            ]
            # As its authors do, nodes without edges are named too, so that none is lost after the last edge.
            empty = [number for number, node in enumerate(cell.nodes, cell.inputs) if not node]
            concat = [*cell.concat, *empty]
            if [*cell.concat] == sorted(cell.concat):
                concat.sort()
            span = range(concat[0], concat[-1] + 1)
            words = f"range({span.start}, {span.stop})" if concat == [*span] else str(concat)
            parts.append(f"{kind}={edges}, {kind}_concat={words}")
        return f"Genotype({', '.join(parts)})"

    def to_nasbench201(self) -> str:
        """Return the cell as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`, one line; edges in order of their inputs.

        Raises InputError for cells that this dialect cannot express: all but a single normal cell of one input and
        three nodes, each with one edge from everything before it, whose output is the last node.
        """
        cell = self.cells.get("normal")
        if cell is not None and len(self.cells) == 1 and (cell.inputs, cell.concat) == (1, (dialects.BENCH_NODES,)):
            nodes = [sorted(node, key=lambda edge: edge[1]) for node in cell.nodes]
            text = "+".join("|" + "".join(f"{primitive}~{source}|" for primitive, source in node) for node in nodes)
            with suppress(InputError):
                if dialects.cells_from_nasbench201(text, "").cells["normal"]["nodes"] == [
                    [[*edge] for edge in node] for node in nodes
                ]:
                    return text
        raise InputError(
            "these cells cannot be written in the NAS-Bench-201 dialect (one cell of one input and three nodes, all edges kept)."
        )

    @property
    def line(self) -> str:
        """The cells on one line that `parse_genotype` reads back: in the first dialect that can express them, else as JSON."""
        for dialect in (self.to_darts, self.to_nasbench201):
            with suppress(InputError):
                return dialect()
        return json.dumps(json.loads(Genotype(self.space, self.cells).to_json()))


# --- against a space ---------------------------------------------------------------------------------------------


def validate(genotype: Genotype, space: SearchSpace, where: str) -> None:
    """Raise InputError, naming cell, node and edge, unless the genotype belongs to `space`.

    A search keeps `edges_kept` edges a node; a genotype of another program may have fewer, unless the space keeps all.
    """
    allowed = [name for name in space.primitives if space.derive_none or name != "none"]
    names = ", ".join(allowed)
    for kind in KINDS:
        if (kind in genotype.cells) != (kind in space.kinds):
            found, has = ("is missing", "one") if kind in space.kinds else ("is superfluous", "none")
            raise InputError(f"{where}: cell {kind} {found}; the space {space.name} has {has}.")
    for kind in space.kinds:
        cell, here = genotype.cells[kind], f"{where}: cell {kind}"
        for name, given, wanted in (("inputs", cell.inputs, space.inputs), ("nodes", len(cell.nodes), space.nodes)):
            if given != wanted:
                raise InputError(f"{here} has {given} {name}; the space {space.name} has {wanted}.")
        for number, node in enumerate(cell.nodes):
            given, most = len(node), space.edges_kept(number)
            if given > most or (space.keep is None and given < most):
                limit = "" if space.keep is None else "at most "
                raise InputError(
                    f"{here}, node {number} has {given} edges; in the space {space.name} it has {limit}{most}."
                )
            for position, (primitive, source) in enumerate(node):
                edge = f"{here}, node {number}, edge {position}"
                if primitive in space.primitives and primitive not in allowed:
                    raise InputError(f"{edge}: the space {space.name} never derives none; use one of {names}.")
                if primitive not in allowed:
                    raise InputError(
                        f"{edge}: the space {space.name} has no primitive {quote_value(primitive)}{_code_points(primitive)};"
                        f" {suggestion(primitive, allowed)}."
                    )
                if not space.repeat_inputs and source in (earlier for _, earlier in node[:position]):
                    raise InputError(f"{edge}: input {source} is used twice, which the space {space.name} forbids.")
        if space.inputs == 1 and cell.concat != space.outputs:
            raise InputError(
                f"{here} puts out {quote_value(list(cell.concat))}; in the space {space.name} it puts out {list(space.outputs)}."
            )


def one_hot(space: SearchSpace, genotype: Genotype) -> np.ndarray:
    """Return the genotype as mixing weights, (kinds, edges, primitives) of float64: 1 at the chosen pairs, 0 elsewhere.

    Raises InputError for a genotype that is not of this space, that uses an input twice in a node (two primitives on
    one edge are indistinguishable from their mixture), or that keeps fewer edges than the space, as no mixing does.
    """
    validate(genotype, space, "the genotype")
    names = list(space.primitives)
    import numpy as np

    weights = np.zeros((len(space.kinds), len(space.edges), len(names)))
    for kind, of_kind in zip(space.kinds, weights, strict=True):
        for number, node in enumerate(genotype.cells[kind].nodes):
            into = of_kind[space.edges_into(number)]
            if len(node) < space.edges_kept(number):
                raise InputError(
                    f"cell {kind}, node {number} has {len(node)} edges, which no mixing becomes: a search keeps {space.edges_kept(number)}."
                )
            for primitive, source in node:
                if into[source].any():
                    raise InputError(f"cell {kind}, node {number} uses input {source} twice: not one choice an edge.")
                into[source, names.index(primitive)] = 1
    return weights


def random_genotype(space: SearchSpace, rng: np.random.Generator) -> Genotype:
    """Draw cells of the candidates still open: for each node a uniform set of inputs, on each edge a uniform primitive.

    Pairs are in ascending input order, and the output is that of the space. Raises InputError where too few edges have
    a primitive left to derive.
    """
    cells = {}
    for kind, candidates in zip(space.kinds, space.candidates, strict=True):
        nodes = []
        for number in range(space.nodes):
            into = [
                [name for name in names if space.derive_none or name != "none"]
                for names in candidates[space.edges_into(number)]
            ]
            usable = [source for source, names in enumerate(into) if names]
            wanted = space.edges_kept(number)
            if len(usable) < wanted:
                raise InputError(
                    f"the space {space.name}, cell {kind}, node {number} keeps {wanted} edges, "
                    f"but only {len(usable)} have a primitive left to derive."
                )
            drawn = rng.permutation(usable)[:wanted]
            nodes.append(tuple((into[edge][rng.integers(len(into[edge]))], int(edge)) for edge in sorted(drawn)))
        cells[kind] = Cell(space.inputs, tuple(nodes), space.outputs)
    return Genotype(space.name, cells)


# --- words -------------------------------------------------------------------------------------------------------


def _printable(name: str) -> str:
    """A name from a file as a terminal may show it: short, and without control characters."""
    return shorten(name if name.isprintable() else ascii(name))


def _plain(cost: int | float) -> str:
    return f"{cost:,}" if isinstance(cost, int) else f"{cost:.4g}"


def _code_points(name: str) -> str:
    """Return the non-ASCII characters of a name, which may look like ASCII ones, by number and Unicode name."""
    foreign = [character for character in dict.fromkeys(name) if not character.isascii()][:4]
    points = [f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip() for character in foreign]
    return f" (with {', '.join(points)})" if points else ""

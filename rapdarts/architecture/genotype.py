"""Genotypes: the discrete cells of a network, and functions to write, validate, encode and sample them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.dialects import nasbench
from rapdarts.architecture.dialects.forms import FORMAT
from rapdarts.architecture.drawing import draw
from rapdarts.architecture.space import KINDS, NONE, SearchSpace, Skeleton
from rapdarts.errors import InputError, plural, shorten, suggestion
from rapdarts.files.json import dump, quote_value

if TYPE_CHECKING:
    import numpy as np

VERSION = 1

SKELETON: Mapping[str, int] = {
    "layers": 1_000,
    "channels": 65_536,
    "stem": 0,
    "image": 65_536,
    "classes": 1_000_000,
}
"""Fields of a skeleton in a file, in order, with the largest value of each (0: not a number)."""


@dataclass(frozen=True)
class Genotype:
    """The cells chosen in a space, by kind (`normal`, and `reduce` if it is searched), and facts about their network.

    `costs` maps each resource to its amount, counted for `skeleton`. `provenance` holds JSON values that record how the
    cells were found.
    """

    space: str
    cells: Mapping[str, Cell]
    skeleton: Skeleton | None = None
    costs: Mapping[str, int | float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the genotype as readable lines: space and skeleton, the sum that each node computes, and the costs."""
        lines = [f"Genotype of the space {_printable(self.space)}{f', {self.place}' if self.place else ''}"]
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
        """Return a drawing of the cells for notebooks, or None if a cell has too many edges; notebooks then show the text."""
        with suppress(InputError):
            return draw(self)
        return None

    @property
    def place(self) -> str:
        """Place of the genotype in its log, such as `line 812, the last of 50 genotypes`; empty if it is not from a log."""
        place = self.provenance.get("log")
        return _printable(place) if isinstance(place, str) else ""

    @property
    def widths(self) -> dict[str, int]:
        """Number of nodes in the output of each kind of cell, in the form that `Skeleton.cells` takes."""
        return {kind: len(cell.concat) for kind, cell in self.cells.items()}

    def to_json(self) -> str:
        """Return JSON that `parse_genotype` reads back, with one line per node. Raises ValueError for NaN or infinity."""
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
        """Return the cells as one line `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)`.

        If any node does not have exactly two edges, or the output lacks the last node, triples replace the pairs, as in
        FairDARTS: `('sep_conv_3x3', 2, 0)`.
        Raises InputError if the normal or the reduction cell is missing or does not have two inputs.
        """
        pairs = all(
            len(node) == 2 and cell.inputs + len(cell.nodes) - 1 in cell.concat
            for cell in self.cells.values()
            for node in cell.nodes
        )
        parts = []
        for kind in KINDS:
            cell = self.cells.get(kind)
            if cell is None or cell.inputs != 2:
                raise InputError(
                    f"the {kind} cell cannot be written in the DARTS dialect, which needs a normal and a reduction cell with two inputs."
                )
            edges = [
                (primitive, source) if pairs else (primitive, number, source)
                for number, node in enumerate(cell.nodes, cell.inputs)
                for primitive, source in node
            ]
            # Nodes without edges are listed too, as in FairDARTS; otherwise nodes after the last edge would be lost.
            empty = [number for number, node in enumerate(cell.nodes, cell.inputs) if not node]
            concat = [*cell.concat, *empty]
            if [*cell.concat] == sorted(cell.concat):
                concat.sort()
            span = range(concat[0], concat[-1] + 1)
            words = f"range({span.start}, {span.stop})" if concat == [*span] else str(concat)
            parts.append(f"{kind}={edges}, {kind}_concat={words}")
        return f"Genotype({', '.join(parts)})"

    def to_nasbench201(self) -> str:
        """Return the cell as one line `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`, with edges in order of their inputs.

        Raises InputError for cells that this dialect cannot express: it needs a single normal cell with one input and
        three nodes. Each node has one edge from the input and each earlier node, and the output is the last node.
        """
        cell = self.cells.get("normal")
        if cell is not None and len(self.cells) == 1 and (cell.inputs, cell.concat) == (1, (nasbench.BENCH_NODES,)):
            nodes = [sorted(node, key=lambda edge: edge[1]) for node in cell.nodes]
            text = "+".join("|" + "".join(f"{primitive}~{source}|" for primitive, source in node) for node in nodes)
            with suppress(InputError):
                if nasbench.cells_of_bars(text, "").cells["normal"]["nodes"] == [
                    [[*edge] for edge in node] for node in nodes
                ]:
                    return text
        raise InputError(
            "these cells cannot be written in the NAS-Bench-201 dialect, which needs one cell with one input, three nodes"
            " and all six edges."
        )

    @property
    def line(self) -> str:
        """The cells on one line that `parse_genotype` reads back, in the first dialect that can express them, else as JSON."""
        for dialect in (self.to_darts, self.to_nasbench201):
            with suppress(InputError):
                return dialect()
        return json.dumps(json.loads(Genotype(self.space, self.cells).to_json()))


# --- in a search space --------------------------------------------------------------------------------------------


def buildable(genotype: Genotype, space: SearchSpace, where: str) -> Genotype:
    """Return the genotype with the edges that its network has in `space`, even if a search of `space` could not choose them.

    The number of nodes and edges may differ from the space's, and a node may use an input twice. Edges with `none` are
    removed, unless the space derives them. Raises InputError, naming the cell, node and edge, if the number of inputs
    is not the space's, a primitive is unknown, or the output of a node with only `none` edges is used.
    """
    _check_kinds(genotype, space, where)
    cells = {}
    for kind in space.kinds:
        cell, here = genotype.cells[kind], f"{where}: cell {kind}"
        if cell.inputs != space.inputs:
            raise InputError(f"{here} has {plural(cell.inputs, 'input')}; the space {space.name} has {space.inputs}.")
        if space.inputs == 1 and len(cell.concat) != 1:
            raise InputError(
                f"{here} outputs {quote_value(list(cell.concat))}; in the space {space.name} it must output one node."
            )
        nodes = []
        for number, node in enumerate(cell.nodes):
            kept = [edge for edge in node if space.derive_none or edge[0] != NONE]
            for primitive, source in kept:
                if primitive not in space.primitives:
                    edge = f"{here}, node {number}, edge {node.index((primitive, source))}"
                    raise _no_primitive(primitive, space, list(space.primitives), edge)
            nodes.append(tuple(kept))
        unused = {cell.inputs + number for number, node in enumerate(cell.nodes) if node and not nodes[number]}
        for source in [*cell.concat, *(source for node in nodes for _, source in node)]:
            if source in unused:
                raise InputError(
                    f"{here}, node {source - cell.inputs} has only none edges, so its output is zero; remove the node from concat and"
                    " from the inputs of other nodes, or give it another edge."
                )
        cells[kind] = replace(cell, nodes=tuple(nodes))
    return replace(genotype, cells=cells)


def validate(genotype: Genotype, space: SearchSpace, where: str) -> None:
    """Raise InputError, naming the cell, node and edge, unless a search of `space` could choose the genotype.

    A search keeps `edges_kept` edges per node. A genotype from another program may have fewer, unless the space keeps
    all edges.
    """
    allowed = [name for name in space.primitives if space.derive_none or name != NONE]
    _check_kinds(genotype, space, where)
    for kind in space.kinds:
        cell, here = genotype.cells[kind], f"{where}: cell {kind}"
        for name, given, wanted in (("input", cell.inputs, space.inputs), ("node", len(cell.nodes), space.nodes)):
            if given != wanted:
                raise InputError(f"{here} has {plural(given, name)}; the space {space.name} has {wanted}.")
        for number, node in enumerate(cell.nodes):
            given, most = len(node), space.edges_kept(number)
            if given > most or (space.keep is None and given < most):
                limit = "" if space.keep is None else "at most "
                raise InputError(
                    f"{here}, node {number} has {plural(given, 'edge')}; in the space {space.name} it must have {limit}{most}."
                )
            for position, (primitive, source) in enumerate(node):
                edge = f"{here}, node {number}, edge {position}"
                if primitive in space.primitives and primitive not in allowed:
                    names = ", ".join(allowed)
                    raise InputError(f"{edge}: an edge cannot be none in the space {space.name}; use one of {names}.")
                if primitive not in allowed:
                    raise _no_primitive(primitive, space, allowed, edge)
                if not space.repeat_inputs and source in (earlier for _, earlier in node[:position]):
                    raise InputError(f"{edge}: input {source} is used twice, which the space {space.name} forbids.")
        if space.inputs == 1 and cell.concat != space.outputs:
            raise InputError(
                f"{here} outputs {quote_value(list(cell.concat))}; in the space {space.name} it must output {list(space.outputs)}."
            )


def _check_kinds(genotype: Genotype, space: SearchSpace, where: str) -> None:
    """Raise InputError unless the genotype has the same kinds of cell as the space."""
    for kind in KINDS:
        if (kind in genotype.cells) != (kind in space.kinds):
            found, has = ("is missing", "one") if kind in space.kinds else ("is not allowed", "none")
            raise InputError(f"{where}: cell {kind} {found}; the space {space.name} has {has}.")


def _no_primitive(primitive: str, space: SearchSpace, allowed: list[str], edge: str) -> InputError:
    """Return the error for an edge with a primitive that is not in the space."""
    return InputError(
        f"{edge}: the space {space.name} has no primitive {quote_value(primitive)}{_code_points(primitive)};"
        f" {suggestion(primitive, allowed)}."
    )


def one_hot(space: SearchSpace, genotype: Genotype) -> np.ndarray:
    """Return the genotype as mixing weights, (kinds, edges, primitives) of float64: 1 for the chosen primitives, 0 elsewhere.

    Raises InputError if the genotype does not belong to this space, uses an input twice in a node (two primitives on
    one edge are indistinguishable from their mixture), or keeps fewer edges than a search does.
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
                    f"cell {kind}, node {number} has {plural(len(node), 'edge')}, but mixing weights need"
                    f" {space.edges_kept(number)}, the number of edges that a search keeps."
                )
            for primitive, source in node:
                if into[source].any():
                    raise InputError(
                        f"cell {kind}, node {number} uses input {source} twice, but mixing weights allow one choice per edge."
                    )
                into[source, names.index(primitive)] = 1
    return weights


def random_genotype(space: SearchSpace, rng: np.random.Generator) -> Genotype:
    """Draw a genotype from the open candidates: uniformly random inputs for each node, and a uniformly random primitive for each edge.

    Edges are in ascending order of their inputs, and the output is that of the space. Raises InputError if too few
    edges have a primitive left to derive.
    """
    cells = {}
    for kind, candidates in zip(space.kinds, space.candidates, strict=True):
        nodes = []
        for number in range(space.nodes):
            into = [
                [name for name in names if space.derive_none or name != NONE]
                for names in candidates[space.edges_into(number)]
            ]
            usable = [source for source, names in enumerate(into) if names]
            wanted = space.edges_kept(number)
            if len(usable) < wanted:
                raise InputError(
                    f"cell {kind}, node {number} keeps {plural(wanted, 'edge')} in the space {space.name}, "
                    f"but only {len(usable)} can be derived; keep more candidates."
                )
            drawn = rng.permutation(usable)[:wanted]
            nodes.append(tuple((into[edge][rng.integers(len(into[edge]))], int(edge)) for edge in sorted(drawn)))
        cells[kind] = Cell(space.inputs, tuple(nodes), space.outputs)
    return Genotype(space.name, cells)


# --- formatting -----------------------------------------------------------------------------------------------------


def _printable(name: str) -> str:
    """Return a name from a file, shortened and without control characters, so that it is safe to print in a terminal."""
    return shorten(name if name.isprintable() else ascii(name))


def _plain(cost: int | float) -> str:
    return f"{cost:,}" if isinstance(cost, int) else f"{cost:.4g}"


def _code_points(name: str) -> str:
    """Return the code points and Unicode names of non-ASCII characters in a name; they may look like ASCII characters."""
    foreign = [character for character in dict.fromkeys(name) if not character.isascii()][:4]
    points = [f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip() for character in foreign]
    return f" (with {', '.join(points)})" if points else ""

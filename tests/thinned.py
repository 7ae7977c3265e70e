"""Genotypes whose nodes lack some or all of their edges, as other programs may write them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype


def thinned(genotype: Genotype, seed: int) -> Genotype:
    """Return the genotype without a random subset of its edges, and without edges from nodes that no longer have an input."""
    rng = np.random.default_rng(seed)
    return replace(genotype, cells={kind: _thinned(cell, rng) for kind, cell in genotype.cells.items()})


def _thinned(cell: Cell, rng: np.random.Generator) -> Cell:
    nodes: list[tuple[tuple[str, int], ...]] = []
    for node in cell.nodes:
        there = [edge for edge in node if edge[1] < cell.inputs or nodes[edge[1] - cell.inputs]]
        nodes.append(tuple(edge for edge in there if rng.random() < 0.6))
    concat = tuple(source for source in cell.concat if nodes[source - cell.inputs])
    return Cell(cell.inputs, tuple(nodes), concat) if concat else cell

"""Discretisation of mixing weights to a genotype by the rules of DARTS and P-DARTS, including ties and the cap on skips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SKIP, SearchSpace
from rapdarts.errors import DivergedError, InputError, plural


@dataclass(frozen=True)
class Candidate:
    """A genotype, the cap on skips with which it is derived (None: no cap), and the sum of its log mixing weights."""

    genotype: Genotype
    max_skips: int | None
    score: float


def discretize(space: SearchSpace, weights: np.ndarray, max_skips: int | None = None) -> Genotype:
    """Return the genotype of the strongest choices in `weights` (kinds, edges, primitives).

    Each edge takes its strongest open primitive that may be derived, and each node keeps its strongest edges. While the
    normal cell has more than `max_skips` skips, the weakest skip is excluded and the cell is derived again (Chen et al.
    2019, section 3.3, and its code). Without a cap, this is the rule of Liu et al. 2019, section 2.4. Ties go to the
    lowest edge, then to the lowest primitive.

    Raises DivergedError if a weight is not finite, and InputError if no cell meets the cap or a node has too few edges
    with a primitive to derive.
    """
    if not np.isfinite(weights).all():
        raise DivergedError("the mixing weights are not finite, so no genotype can be derived. Lower search.alpha_lr.")
    strength = np.where(space.mask & space.choosable, weights, CLOSED)
    cells = {kind: _strongest(space, strength[i]) for i, kind in enumerate(space.kinds)}
    if max_skips is not None:
        cells["normal"] = _with_few_skips(space, strength[0], max_skips)
    return Genotype(space.name, {kind: _cell(space, pairs) for kind, pairs in cells.items()})


def candidates(space: SearchSpace, weights: np.ndarray) -> list[Candidate]:
    """Return the genotypes that `discretize` returns for all caps on skips, from no cap down to 0.

    `weights` are mixing weights (kinds, edges, primitives). Each genotype appears once, with its loosest cap.
    """
    found: list[Candidate] = []
    for cap in [None, *range(len(space.edges), -1, -1)]:
        try:
            genotype = discretize(space, weights, cap)
        except InputError:
            break
        if all(genotype.cells != other.genotype.cells for other in found):
            found.append(Candidate(genotype, cap, score(space, weights, genotype)))
    return found


def score(space: SearchSpace, weights: np.ndarray, genotype: Genotype) -> float:
    """Return the sum of the log mixing `weights` (kinds, edges, primitives) of the chosen (edge, primitive) pairs.

    The score is at most 0, and -inf if a choice has weight 0.
    """
    edges = {edge: index for index, edge in enumerate(space.edges)}
    chosen = [
        weights[space.kinds.index(kind), edges[node, source], space.columns[name]]
        for kind, cell in genotype.cells.items()
        for node, pairs in enumerate(cell.nodes)
        for name, source in pairs
    ]
    with np.errstate(divide="ignore"):
        return float(np.log(np.array(chosen, dtype=np.float64)).sum())


Pairs = list[tuple[int, int]]
"""The chosen (edge, primitive) pairs of a cell, ordered by edge."""

CLOSED, STRUCK = -2.0, -1.0
"""Strengths below every weight, even 0: for a primitive that may not be chosen, and for a skip that is only a last resort."""


def _strongest(space: SearchSpace, strength: np.ndarray) -> Pairs:
    """Return the kept edges with their primitives; `strength` is (edges, primitives)."""
    best = strength.argmax(-1)  # ties go to the lowest primitive
    peak = strength.max(-1)
    pairs = []
    for node in range(space.nodes):
        into = range(len(space.edges))[space.edges_into(node)]
        # The sort is stable, so ties go to the lowest edge.
        kept = sorted(into, key=lambda edge: -peak[edge])[: space.edges_kept(node)]
        if any(peak[edge] == CLOSED for edge in kept):
            raise InputError(
                f"node {node} needs {plural(len(kept), 'edge')}, but fewer have a primitive that may be derived in the space {space.name};"
                " keep more candidates."
            )
        pairs += [(edge, int(best[edge])) for edge in sorted(kept)]
    return pairs


def _with_few_skips(space: SearchSpace, strength: np.ndarray, max_skips: int) -> Pairs:
    names = list(space.primitives)
    strength = strength.copy()
    while True:
        pairs = _strongest(space, strength)
        skips = [(edge, column) for edge, column in pairs if names[column] == SKIP]
        if len(skips) <= max_skips:
            return pairs
        left = [pair for pair in skips if strength[pair] != STRUCK]
        if not left:
            raise InputError(
                f"no normal cell with at most {plural(max_skips, 'skip')} is left in this space; raise search.max_skips."
            )
        strength[min(left, key=lambda pair: strength[pair])] = STRUCK


def _cell(space: SearchSpace, pairs: Pairs) -> Cell:
    names = list(space.primitives)
    nodes: list[list[tuple[str, int]]] = [[] for _ in range(space.nodes)]
    for edge, column in pairs:
        node, source = space.edges[edge]
        nodes[node].append((names[column], source))
    return Cell(space.inputs, tuple(map(tuple, nodes)), space.outputs)

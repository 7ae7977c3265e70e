"""Random genotypes that meet the conditions of a search: budgets with their lower bound, and conditions on skips."""

from __future__ import annotations

import numpy as np

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.exact import Budgets, Program, no_genotype

SWEEPS = 30
"""Average number of times that each node is redrawn between two genotypes; a test checks the resulting distribution."""


def random_cells(
    space: SearchSpace,
    rng: np.random.Generator,
    count: int,
    budgets: Budgets | None = None,
    max_skips: int | None = None,
    start: np.ndarray | None = None,
) -> list[Genotype]:
    """Draw `count` genotypes that a search could derive from the open candidates within the budgets; they may repeat.

    The inputs of each node and the primitive of each kept edge are distributed uniformly, conditional on the genotype
    being allowed. This is the stationary distribution of a Metropolis chain (Metropolis et al. 1953), which redraws
    one or a few nodes of an allowed genotype and keeps the result if it is allowed. The chain works even if only one
    random genotype in a million is within the bounds. It starts at `start`, an allowed one-hot choice (kinds, edges,
    primitives), or at a genotype that the exact program finds. Raises Infeasible if no genotype is allowed.
    """
    program = Program(space, budgets, max_skips)
    chosen = program.best([rng.random(space.mask.shape)]) if start is None else start
    if chosen is None:
        raise no_genotype(space, budgets, max_skips)
    # A skip-only path may pass through every node, and a single step must be able to replace it by another path.
    most = 2 if space.skip_paths == "any" else space.nodes
    places = [(kind, node) for kind in range(len(space.kinds)) for node in range(space.nodes)]
    found = []
    for _ in range(count):
        for _ in range(SWEEPS * len(places)):
            proposed = chosen.copy()
            for place in rng.integers(len(places), size=rng.integers(1, most + 1)):
                _redraw(proposed, program.open, space, places[place], rng)
            if program.allows(proposed):
                chosen = proposed
        found.append(discretize(space, chosen))
    return found


def _redraw(
    chosen: np.ndarray, open_: np.ndarray, space: SearchSpace, place: tuple[int, int], rng: np.random.Generator
) -> None:
    """Redraw the edges and primitives of one node, in place."""
    kind, node = place
    into = range(len(space.edges))[space.edges_into(node)]
    usable = [edge for edge in into if open_[kind, edge].any()]
    chosen[kind, into.start : into.stop] = False
    for edge in rng.permutation(usable)[: space.edges_kept(node)]:
        chosen[kind, edge, rng.choice(np.flatnonzero(open_[kind, edge]))] = True

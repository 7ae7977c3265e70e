"""Random genotypes under the conditions of a search: within its budgets, its spending and what it asks of skips."""

from __future__ import annotations

import numpy as np

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace
from rapdarts.strategy.discretize import discretize
from rapdarts.strategy.exact import Budgets, Program, no_genotype

SWEEPS = 30
"""How often, on average, every node is drawn anew between two genotypes; the test compares with the exact distribution."""


def random_cells(
    space: SearchSpace,
    rng: np.random.Generator,
    count: int,
    budgets: Budgets | None = None,
    max_skips: int | None = None,
    start: np.ndarray | None = None,
) -> list[Genotype]:
    """Draw `count` genotypes of the candidates still open that a search could derive within the budgets; they may repeat.

    Each node draws a uniform set of inputs, and on each a uniform primitive, given that the whole genotype is allowed.
    From a genotype that is allowed, one node or a few at a time are drawn anew, and kept if the result is allowed: a
    Metropolis chain (Metropolis et al. 1953) whose stationary distribution is this one. It finds the way into bands
    that one random genotype in a million meets. The chain begins at `start`, a one-hot choice that is allowed (kinds,
    edges, primitives), or at one that is looked for. Raises Infeasible if there is none.
    """
    program = Program(space, budgets, max_skips)
    chosen = program.best([rng.random(space.mask.shape)]) if start is None else start
    if chosen is None:
        raise no_genotype(space, budgets, max_skips)
    # A skip-only path may lead through every node, and has to move at once.
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
    """Draw the edges and primitives of one node anew, in place."""
    kind, node = place
    into = range(len(space.edges))[space.edges_into(node)]
    usable = [edge for edge in into if open_[kind, edge].any()]
    chosen[kind, into.start : into.stop] = False
    for edge in rng.permutation(usable)[: space.edges_kept(node)]:
        chosen[kind, edge, rng.choice(np.flatnonzero(open_[kind, edge]))] = True

"""Brute-force enumeration of all genotypes of a small space, as one-hot choices, and counts of their paths."""

from __future__ import annotations

import itertools
import math

import numpy as np

from rapdarts.architecture.space import SearchSpace


def every_choice(space: SearchSpace) -> np.ndarray:
    """Return all genotypes of a space whose candidates are all open, as a bool array (genotypes, kinds, edges, primitives)."""
    columns = np.flatnonzero(space.choosable)
    nodes = []
    for node in range(space.nodes):
        into = range(len(space.edges))[space.edges_into(node)]
        nodes.append(
            [
                list(zip(kept, named, strict=True))
                for kept in itertools.combinations(into, space.edges_kept(node))
                for named in itertools.product(columns, repeat=len(kept))
            ]
        )
    cells = [np.zeros(space.mask.shape[1:], dtype=bool) for _ in range(math.prod(map(len, nodes)))]
    for cell, pairs in zip(cells, itertools.product(*nodes), strict=True):
        cell[tuple(zip(*itertools.chain(*pairs), strict=True))] = True
    # The cells of different kinds are independent; the last kind changes fastest.
    return np.array([np.stack(kinds) for kinds in itertools.product(cells, repeat=len(space.kinds))])


def with_paths(space: SearchSpace, choices: np.ndarray) -> np.ndarray:
    """Return a mask (choices,) of the choices that connect an input to every output and have the required skip-only paths."""
    reached = paths(space, choices, [name for name in space.columns if name != "none"]) > 0
    found = reached.all((1, 2))
    if space.skip_paths == "one":
        found &= (paths(space, choices, ["skip_connect"]) == 1).all((1, 2))
    return np.asarray(found)


def paths(space: SearchSpace, choices: np.ndarray, carrying: list[str]) -> np.ndarray:
    """Return the number of paths from the inputs to each output over the primitives in `carrying`, (choices, kinds, outputs).

    The n-th power of an adjacency matrix counts the paths of n edges.
    """
    carries = choices[..., [space.columns[name] for name in carrying]].any(-1)
    states = space.inputs + space.nodes
    steps = np.zeros((*carries.shape[:2], states, states), dtype=int)
    for edge, (node, source) in enumerate(space.edges):
        steps[..., source, space.inputs + node] = carries[..., edge]
    number = np.stack([np.linalg.matrix_power(steps, length) for length in range(1, states)]).sum(0)
    return np.asarray(number[..., : space.inputs, list(space.outputs)].sum(-2))

"""All genotypes of a small space, as one-hot choices, and which of them are connected: by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np

from rapdarts.architecture.space import SearchSpace


def every_choice(space: SearchSpace) -> np.ndarray:
    """All genotypes of a space with all candidates open, (genotypes, kinds, edges, primitives) of bool."""
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
    # The last kind changes fastest; what two kinds choose is independent.
    return np.array([np.stack(kinds) for kinds in itertools.product(cells, repeat=len(space.kinds))])


def with_paths(space: SearchSpace, choices: np.ndarray) -> np.ndarray:
    """Whether each choice leads from the inputs to every output: by the number of its paths, (choices,) of bool."""
    carries = choices[..., [column for other, column in space.columns.items() if other != "none"]].any(-1)
    states = space.inputs + space.nodes
    steps = np.zeros((*carries.shape[:2], states, states), dtype=int)
    for edge, (node, source) in enumerate(space.edges):
        steps[..., source, space.inputs + node] = carries[..., edge]
    paths = sum(np.linalg.matrix_power(steps, length) for length in range(1, states))
    return np.asarray((paths[..., : space.inputs, list(space.outputs)].sum(-2) > 0).all((1, 2)))

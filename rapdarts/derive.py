"""From architecture parameters to a genotype with its exact costs: what a search ends with, and what `derive` does again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.cost.expected import PriceTable
from rapdarts.errors import DamagedError, InputError
from rapdarts.genotype import Genotype
from rapdarts.space import KINDS, SearchSpace, Skeleton
from rapdarts.strategy.architecture import Architecture
from rapdarts.strategy.discretize import Candidate, candidates, discretize

FORMAT, VERSION = "rapdarts-alphas", 1

RULES = {
    "pdarts": "on each edge the strongest primitive but none, each node's strongest edges, at most {max_skips} skips in the normal cell",
    "darts": "on each edge the strongest primitive but none, each node's strongest edges, no cap on skips",
}
"""The rules by which a genotype is read off, in words for the user; `max_skips` is filled in."""


@dataclass(frozen=True)
class Derivation:
    """The chosen genotype with its exact costs at the skeleton; every genotype some cap gives; and the rule in words."""

    genotype: Genotype
    skeleton: Skeleton
    candidates: list[Candidate]
    rule: str

    def candidates_json(self) -> list[dict[str, Any]]:
        """The candidates as plain values, the loosest cap first, for candidates.json."""
        return [
            {
                "max_skips": candidate.max_skips,
                "chosen": candidate.genotype.cells == self.genotype.cells,
                "score": candidate.score if np.isfinite(candidate.score) else None,
                "costs": dict(candidate.genotype.costs),
                "genotype": json.loads(candidate.genotype.to_json()),
            }
            for candidate in self.candidates
        ]


def derive(
    space: SearchSpace, weights: np.ndarray, table: PriceTable, rule: str, max_skips: int, provenance: Mapping[str, Any]
) -> Derivation:
    """The genotype that `rule` reads off the mixing `weights` (kinds, edges, primitives), and all candidates, with exact costs.

    Raises DivergedError if a weight is not finite, InputError if no cell meets `max_skips`.
    """
    words = RULES[rule].format(max_skips=max_skips)

    def complete(genotype: Genotype) -> Genotype:
        return replace(
            genotype, skeleton=table.skeleton, costs=table.exact(genotype), provenance={**provenance, "rule": words}
        )

    chosen = complete(discretize(space, weights, max_skips if rule == "pdarts" else None))
    found = [replace(candidate, genotype=complete(candidate.genotype)) for candidate in candidates(space, weights)]
    return Derivation(chosen, table.skeleton, found, words)


def mixing_weights(architecture: Architecture) -> np.ndarray:
    """The mixing weights of an architecture as a plain array (kinds, edges, primitives), float64."""
    with torch.no_grad():
        return np.asarray(architecture().weights.double().cpu().numpy())


def alphas_to_json(space: SearchSpace, skeleton: Skeleton, architecture: Architecture) -> str:
    """The final architecture parameters as text; every number reads back to the same bits."""
    alpha = architecture.alpha.detach().cpu().double().numpy()
    cells = {
        kind: [
            {
                "node": node,
                "input": source,
                "candidates": list(names),
                "alpha": [float(alpha[k, edge, space.columns[name]]) for name in names],
            }
            for edge, ((node, source), names) in enumerate(zip(space.edges, space.candidates[k], strict=True))
        ]
        for k, kind in enumerate(KINDS)
    }
    head = {"format": FORMAT, "version": VERSION, "space": space.name, "skeleton": asdict(skeleton), "cells": cells}
    return json.dumps(head, indent=1, allow_nan=False) + "\n"


def read_alphas(path: Path, space: SearchSpace) -> tuple[SearchSpace, Skeleton, Architecture]:
    """The narrowed space, the deployment skeleton and the architecture that a search ended with.

    Raises InputError if the file is not there, DamagedError if it is not whole or belongs to another space.
    """
    if not path.is_file():
        raise InputError(f"there is no {path}; the search has not finished.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or found["version"] != VERSION or found["space"] != space.name:
            raise DamagedError(
                f"{path} holds {found['format']} {found['version']} of the space {found['space']}, not {FORMAT} {VERSION} of {space.name}."
            )
        skeleton = Skeleton(**{**found["skeleton"], "image": tuple(found["skeleton"]["image"])})
        mask = np.zeros_like(space.mask)
        alpha = torch.zeros(mask.shape)
        for k, kind in enumerate(KINDS):
            for edge, (place, entry) in enumerate(zip(space.edges, found["cells"][kind], strict=True)):
                if (entry["node"], entry["input"]) != place or not entry["candidates"]:
                    raise ValueError(f"{kind} edge {edge} is not the space's")
                for name, value in zip(entry["candidates"], entry["alpha"], strict=True):
                    mask[k, edge, space.columns[name]] = True
                    alpha[k, edge, space.columns[name]] = value
        if not bool(torch.isfinite(alpha).all()):
            raise ValueError("an alpha is not finite")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({type(error).__name__}: {error}).") from None
    narrowed = space.narrowed(mask)
    architecture = Architecture(narrowed)
    architecture.load_state_dict({"alpha": alpha})
    return narrowed, skeleton, architecture

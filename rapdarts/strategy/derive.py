"""From architecture parameters to a genotype with its exact costs: what a search ends with, and what `derive` does again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.resources import costs_line, show, within
from rapdarts.cost.expected import PriceTable
from rapdarts.errors import DamagedError, InputError
from rapdarts.files.json import Fault, as_object, strict_loads
from rapdarts.files.text import read_text
from rapdarts.strategy.budgets import budgets_on
from rapdarts.strategy.discretize import Candidate, candidates, discretize, score
from rapdarts.strategy.exact import Infeasible, cheapest, discretize_exactly
from rapdarts.strategy.relaxation import Architecture

FORMAT, VERSION = "rapdarts-alphas", 1
MAX_FILE_BYTES = 20_000_000


@dataclass(frozen=True, repr=False)
class Derivation:
    """The chosen genotype with its exact costs at the skeleton; what else could have been chosen; and the rule in words.

    `candidates` are, by the rule `exact`, the best genotypes, best first; by the others every genotype that some cap
    gives, the loosest first. `budgets` are the bounds that were kept, by resource.
    """

    genotype: Genotype
    skeleton: Skeleton
    candidates: list[Candidate]
    rule: str
    budgets: Mapping[str, float]

    def candidates_json(self) -> list[dict[str, Any]]:
        """The candidates as plain values, for candidates.json."""
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

    def best_first(self) -> list[dict[str, Any]]:
        """Return the chosen candidate, then the others by their scores; those without one (a weight of 0) last."""
        return best_first(self.candidates_json())

    def describe(self, count: int = 1) -> str:
        """Return the rule, the chosen genotype and its costs, and the other candidates up to `count`, for the eye."""
        lines = [f"rule: {self.rule}", self.genotype.line, costs_line(self.genotype.costs)]
        if count > 1:
            lines[1] = f"1. score {self.candidates[0].score:.4f}: {lines[1]}"
            lines[2] = f"   {lines[2]}"
        for number, other in enumerate(self.candidates[1:count], 2):
            lines.append(
                f"{number}. score {other.score:.4f}: {other.genotype.line}\n   {costs_line(other.genotype.costs)}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.describe()

    @property
    def costs(self) -> dict[str, float]:
        """Every additive resource of the genotype's network."""
        return dict(self.genotype.costs)

    @property
    def used(self) -> dict[str, float]:
        """How much of each budget the genotype uses, 0 to 1."""
        return {name: self.genotype.costs[name] / budget for name, budget in self.budgets.items()}


def best_first(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the chosen candidate, then the others by their scores; those without one (a weight of 0) last."""
    return sorted(candidates, key=lambda one: (not one["chosen"], one["score"] is None, -(one["score"] or 0)))


def derive(
    space: SearchSpace,
    weights: np.ndarray,
    table: PriceTable,
    rule: str,
    max_skips: int,
    provenance: Mapping[str, Any],
    limits: Mapping[str, float] | None = None,
    count: int = 1,
) -> Derivation:
    """The genotype that `rule` reads off the mixing `weights` (kinds, edges, primitives), and all candidates, with exact costs.

    With `limits`, budgets by resource, and for `count` above 1 the rule is `exact`; under the rule darts without a cap.
    Raises DivergedError if a weight is not finite, InputError if no cell meets `max_skips`, Infeasible if no genotype
    is within the limits.
    """
    limits = limits or {}
    cap = None if rule == "darts" else max_skips
    exact = bool(limits) or count > 1 or rule == "exact"
    skips = "" if cap is None else f", at most {cap} skips in the normal cell"
    if exact:
        within = "".join(f", {name} at most {show(limit, name)}" for name, limit in limits.items())
        words = f"the cells of the largest product of mixing weights{within}{skips}"
    else:
        but_none = "" if space.derive_none else " but none"
        words = (
            f"on each edge the strongest primitive{but_none}, each node's strongest edges{skips or ', no cap on skips'}"
        )

    def complete(candidate: Candidate) -> Candidate:
        genotype = candidate.genotype
        facts = {**provenance, "rule": words}
        genotype = replace(genotype, skeleton=table.skeleton, costs=table.exact(genotype), provenance=facts)
        return replace(candidate, genotype=genotype)

    if exact:
        found = discretize_exactly(space, weights, budgets_on(table, limits), cap, count)
        chosen = found[0]
    else:
        found = candidates(space, weights)
        genotype = discretize(space, weights, cap)
        chosen = Candidate(genotype, cap, score(space, weights, genotype))
    return Derivation(complete(chosen).genotype, table.skeleton, [complete(one) for one in found], words, limits)


@contextmanager
def where_infeasible(
    full: SearchSpace, left: SearchSpace, table: PriceTable, limits: Mapping[str, float], max_skips: int | None
) -> Iterator[None]:
    """Within, an Infeasible says what the candidates that a search left cost at the least, and what those of the full space do."""
    try:
        yield
    except Infeasible as error:
        budgets = budgets_on(table, limits)
        if budgets is None or not error.floors:  # it is the cap on skips that cannot be met
            raise
        floors = [
            {name: table.exact(cheapest(space, budgets, name, max_skips))[name] for name in limits}
            for space in (left, full)
        ]
        of_left, of_full = (
            " or ".join(f"{show(cost, name)} {name}" for name, cost in found.items()) for found in floors
        )
        capped = "" if max_skips is None else f" with at most {max_skips} skips in its normal cell"
        anew = ", or search anew within it" if all(floors[1][name] <= limits[name] for name in limits) else ""
        raise InputError(
            f"no genotype of the candidates that this search left meets {within(limits)}{capped}: they cost {of_left} at"
            f" the least, the full space {of_full}{', each taken alone' if len(limits) > 1 else ''}; raise the budget{anew}."
        ) from None


def mixing_weights(architecture: Architecture) -> np.ndarray:
    """The mixing weights of an architecture, edge weights multiplied in, as a plain array (kinds, edges, primitives), float64."""
    with torch.no_grad():
        return np.asarray(architecture().joint.double().cpu().numpy())


def alphas_to_json(space: SearchSpace, skeleton: Skeleton, architecture: Architecture) -> str:
    """The final architecture parameters as text; every number reads back to the same bits."""
    alpha = architecture.alpha.detach().cpu().double().numpy()
    beta = None if architecture.beta is None else architecture.beta.tolist()
    cells = {
        kind: [
            {
                "node": node,
                "input": source,
                "candidates": list(names),
                "alpha": [float(alpha[k, edge, space.columns[name]]) for name in names],
                **({} if beta is None else {"beta": beta[k][edge]}),
            }
            for edge, ((node, source), names) in enumerate(zip(space.edges, space.candidates[k], strict=True))
        ]
        for k, kind in enumerate(space.kinds)
    }
    head = {"format": FORMAT, "version": VERSION, "space": space.name, "skeleton": asdict(skeleton), "cells": cells}
    return json.dumps(head, indent=1, allow_nan=False) + "\n"


def space_of_alphas(path: Path) -> str:
    """The name of the space that an alphas.json belongs to. Raises as `read_alphas` does."""
    name = _tree(path).get("space")
    if not isinstance(name, str):
        raise DamagedError(f"{path} is damaged (it names no space).")
    return name


def _tree(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"there is no {path}; the search has not finished, or {path.parent} is a run of another command."
        )
    try:
        text = read_text(path, "it", MAX_FILE_BYTES, f"has more than {MAX_FILE_BYTES:,} bytes")
        return as_object(strict_loads(text), "it")
    except (InputError, Fault) as error:
        raise DamagedError(f"{path} is damaged ({str(error).rstrip('.')}).") from None


def read_alphas(path: Path, space: SearchSpace) -> tuple[SearchSpace, Skeleton, Architecture]:
    """The narrowed space, the deployment skeleton and the architecture that a search ended with.

    Raises InputError if the file is not there, DamagedError if it is not whole or belongs to another space.
    """
    found = _tree(path)
    try:
        if found["format"] != FORMAT or found["version"] != VERSION or found["space"] != space.name:
            raise DamagedError(
                f"{path} holds {found['format']} {found['version']} of the space {found['space']}, not {FORMAT} {VERSION} of {space.name}."
            )
        skeleton = Skeleton(**{**found["skeleton"], "image": tuple(found["skeleton"]["image"])})
        if set(found["cells"]) != set(space.kinds):
            raise ValueError("its kinds of cell are not the space's")
        mask = np.zeros_like(space.mask)
        alpha = torch.zeros(mask.shape, dtype=torch.float64)
        beta, weighed = torch.zeros(mask.shape[:2], dtype=torch.float64), 0
        for k, kind in enumerate(space.kinds):
            for edge, (place, entry) in enumerate(zip(space.edges, found["cells"][kind], strict=True)):
                if (entry["node"], entry["input"]) != place or not entry["candidates"]:
                    raise ValueError(f"{kind} edge {edge} is not the space's")
                for name, value in zip(entry["candidates"], entry["alpha"], strict=True):
                    mask[k, edge, space.columns[name]] = True
                    alpha[k, edge, space.columns[name]] = value
                if "beta" in entry:
                    beta[k, edge] = entry["beta"]
                    weighed += 1
        if weighed not in (0, beta.numel()):
            raise ValueError("some edges have a beta, others have none")
        state = {"alpha": alpha.float(), "beta": beta.float()} if weighed else {"alpha": alpha.float()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
            raise ValueError("an alpha or beta is not finite")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({type(error).__name__}: {error}).") from None
    narrowed = space.narrowed(mask)
    architecture = Architecture(narrowed, edge_normalization=weighed > 0)
    architecture.load_state_dict(state)
    return narrowed, skeleton, architecture

"""alphas.json: the final architecture parameters of a search, for one replica or several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rapdarts.architecture.reading import read_skeleton
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.relaxation import RelaxationConfig
from rapdarts.errors import DamagedError, InputError
from rapdarts.files import seal
from rapdarts.files.json import Fault, as_object, strict_loads
from rapdarts.files.text import read_text
from rapdarts.strategy.relaxation import Architecture
from rapdarts.strategy.relaxations import RELAXATIONS
from rapdarts.strategy.relaxations.base import Relaxation

FORMAT, VERSION, REPLICATED_VERSION = "rapdarts-alphas", 1, 2
"""A file with one architecture has the key `cells` (version 1); a file with several has the list `replicas` (version 2)."""

DEFAULT = "softmax"
"""Relaxation of files without the key `relaxation`."""

MAX_FILE_BYTES = 20_000_000


def alphas_to_json(space: SearchSpace, skeleton: Skeleton, architectures: Sequence[Architecture]) -> str:
    """Return the final architecture parameters of all replicas as JSON text that preserves every number exactly."""
    cells = [_cells(space, one) for one in architectures]
    version = VERSION if len(cells) == 1 else REPLICATED_VERSION
    head = {"format": FORMAT, "version": version, "space": space.name, "skeleton": asdict(skeleton)}
    relaxation = architectures[0].relaxation.name
    if relaxation != DEFAULT:
        head["relaxation"] = relaxation
    learned = {"cells": cells[0]} if len(cells) == 1 else {"replicas": [{"cells": one} for one in cells]}
    return json.dumps(head | learned, indent=1, allow_nan=False) + "\n"


def _cells(space: SearchSpace, architecture: Architecture) -> dict[str, Any]:
    alpha = architecture.alpha.detach().cpu().double().numpy()
    beta = None if architecture.beta is None else architecture.beta.tolist()
    return {
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


def space_of_alphas(path: Path) -> str:
    """Return the name of the space that an alphas.json belongs to. Raises the errors of `read_alphas`."""
    name = _tree(path).get("space")
    if not isinstance(name, str):
        raise DamagedError(f"{path} is damaged (it does not name a space).")
    return name


def _tree(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"there is no {path}; the search has not finished, or {path.parent} is a run of another command."
        )
    try:
        text = read_text(path, "it", MAX_FILE_BYTES, f"has more than {MAX_FILE_BYTES:,} bytes")
        tree: dict[str, Any] = as_object(strict_loads(text), "it")
    except (InputError, Fault) as error:
        raise DamagedError(f"{path} is damaged ({str(error).rstrip('.')}).") from None
    if seal.KEY not in tree:
        seal.report_unsealed(path)
    return dict(seal.unseal(tree, path))


def read_alphas(path: Path, space: SearchSpace) -> tuple[SearchSpace, Skeleton, list[Architecture]]:
    """Read the narrowed space, the deployment skeleton and the final architectures of all replicas of a search.

    Raises InputError if the file does not exist, and DamagedError if it is damaged or belongs to another space.
    """
    found = _tree(path)
    try:
        versions = {VERSION: "cells", REPLICATED_VERSION: "replicas"}
        if found["format"] != FORMAT or found["version"] not in versions or found["space"] != space.name:
            raise DamagedError(
                f"{path} contains {found['format']} version {found['version']} for the space {found['space']}, but {FORMAT}"
                f" version {VERSION} or {REPLICATED_VERSION} for the space {space.name} is needed."
            )
        skeleton = read_skeleton(found["skeleton"], "its skeleton")
        if skeleton is None:
            raise ValueError("it has no skeleton")
        learned = [found] if found["version"] == VERSION else list(found["replicas"])
        relaxation = RELAXATIONS[found.get("relaxation", DEFAULT)]
        replicas = [_architecture(one["cells"], space, relaxation) for one in learned]
        if not replicas or any(narrowed.candidates != replicas[0][0].candidates for narrowed, _ in replicas):
            raise ValueError("its replicas do not have the same candidates")
    except InputError as error:
        raise DamagedError(f"{path} is damaged ({str(error).rstrip('.')}).") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({type(error).__name__}: {error}).") from None
    return replicas[0][0], skeleton, [architecture for _, architecture in replicas]


def _architecture(
    cells: Mapping[str, Any], space: SearchSpace, relaxation: type[Relaxation]
) -> tuple[SearchSpace, Architecture]:
    """Return the narrowed space and the architecture of one replica.

    Raises ValueError, KeyError or TypeError for invalid `cells`.
    """
    if set(cells) != set(space.kinds):
        raise ValueError("its kinds of cell do not match the space")
    mask = np.zeros_like(space.mask)
    alpha = torch.zeros(mask.shape, dtype=torch.float64)
    beta, weighed = torch.zeros(mask.shape[:2], dtype=torch.float64), 0
    for k, kind in enumerate(space.kinds):
        for edge, (place, entry) in enumerate(zip(space.edges, cells[kind], strict=True)):
            if (entry["node"], entry["input"]) != place or not entry["candidates"]:
                raise ValueError(f"{kind} edge {edge} does not match the space")
            for name, value in zip(entry["candidates"], entry["alpha"], strict=True):
                mask[k, edge, space.columns[name]] = True
                alpha[k, edge, space.columns[name]] = value
            if "beta" in entry:
                beta[k, edge] = entry["beta"]
                weighed += 1
    if weighed not in (0, beta.numel()):
        raise ValueError("some edges have a beta and others do not")
    state = {"alpha": alpha.float(), "beta": beta.float()} if weighed else {"alpha": alpha.float()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise ValueError("an alpha or beta is not finite")
    narrowed = space.narrowed(mask)
    architecture = Architecture(narrowed, edge_normalization=weighed > 0, relaxation=relaxation(RelaxationConfig()))
    architecture.load_state_dict(state)
    return narrowed, architecture

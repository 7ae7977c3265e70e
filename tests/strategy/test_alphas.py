"""alphas.json: a bit-identical round trip with one replica and with several, and strict validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DamagedError, InputError
from rapdarts.strategy.alphas import alphas_to_json, read_alphas, space_of_alphas
from rapdarts.strategy.progressive import prune
from rapdarts.strategy.relaxation import Architecture, mixing_weights

DARTS = named_space("darts")
SKELETON = Skeleton(3, 4, (1, 8, 8), 10)


def narrowed(seed: int) -> SearchSpace:
    """Return the space with three random candidates on each edge."""
    return prune(DARTS, np.random.default_rng(seed).random(DARTS.mask.shape), 3)


def architectures(space: SearchSpace, count: int, edge_weights: bool = False) -> list[Architecture]:
    torch.manual_seed(0)
    found = [Architecture(space, 1.0, edge_weights) for _ in range(count)]
    for one in found:
        if one.beta is not None:
            torch.nn.init.normal_(one.beta)
    return found


@pytest.mark.parametrize("edge_weights", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_architectures_read_back_bit_identically(count: int, edge_weights: bool, tmp_path: Path) -> None:
    space, path = narrowed(0), tmp_path / "alphas.json"
    learned = architectures(space, count, edge_weights)
    path.write_text(alphas_to_json(space, SKELETON, learned))
    left, skeleton, again = read_alphas(path, DARTS)
    assert (left, skeleton, len(again)) == (space, SKELETON, count) and space_of_alphas(path) == "darts"
    for one, other in zip(learned, again, strict=True):
        open_ = torch.as_tensor(space.mask)
        assert torch.equal(one.alpha[open_], other.alpha[open_])
        assert (one.beta is None) == (other.beta is None) == (not edge_weights)
        assert one.beta is None or other.beta is None or torch.equal(one.beta, other.beta)
        np.testing.assert_array_equal(mixing_weights(one), mixing_weights(other))


def test_one_architecture_is_written_as_version_1_and_several_as_version_2() -> None:
    space = narrowed(0)
    one, other = architectures(space, 2)
    alone, both = (json.loads(alphas_to_json(space, SKELETON, learned)) for learned in ([one], [one, other]))
    assert list(alone) == ["format", "version", "space", "skeleton", "cells"] and alone["version"] == 1
    assert list(both) == ["format", "version", "space", "skeleton", "replicas"] and both["version"] == 2
    assert both["replicas"][0] == {"cells": alone["cells"]} != both["replicas"][1]


def of_several(tmp_path: Path, change: Any) -> Path:
    """Write a file with three replicas, modified by `change`, and return its path."""
    space, path = narrowed(0), tmp_path / "alphas.json"
    tree = json.loads(alphas_to_json(space, SKELETON, architectures(space, 3)))
    change(tree)
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.update(replicas=[]),
        lambda tree: tree.update(replicas=None),
        lambda tree: tree.update(replicas=[1, 2, 3]),
        lambda tree: tree.pop("replicas"),
        lambda tree: tree.update(version=3),
        lambda tree: tree.update(version="2"),
        lambda tree: tree.update(version=1),
        lambda tree: tree.update(version=[2]),
        lambda tree: tree["replicas"][2].pop("cells"),
        lambda tree: tree["replicas"][2]["cells"].pop("reduce"),
        lambda tree: tree["replicas"][1]["cells"]["normal"][3].update(node=3),
        lambda tree: tree["replicas"][1]["cells"]["normal"][3]["alpha"].pop(),
        lambda tree: tree["replicas"][1]["cells"]["normal"][3].update(beta=0.5),
        lambda tree: tree["replicas"][1]["cells"]["normal"][3].update(alpha=["x", "y", "z"]),
        lambda tree: tree["replicas"][1]["cells"]["normal"][3].update(alpha=[1e300] * 3),
    ],
)
def test_damaged_replicas_are_refused(change: Any, tmp_path: Path) -> None:
    path = of_several(tmp_path, change)
    with pytest.raises(DamagedError) as refusal:
        read_alphas(path, DARTS)
    assert str(refusal.value).startswith(f"{path} ") and "\n" not in str(refusal.value)


def test_replicas_with_different_candidates_are_refused(tmp_path: Path) -> None:
    one, other = narrowed(0), narrowed(1)
    tree, strange = (json.loads(alphas_to_json(space, SKELETON, architectures(space, 2))) for space in (one, other))
    tree["replicas"][1] = strange["replicas"][1]
    path = tmp_path / "alphas.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(DamagedError, match=r"its replicas do not have the same candidates\)\.$"):
        read_alphas(path, DARTS)


def test_a_file_of_another_space_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = of_several(tmp_path, lambda tree: None)
    with pytest.raises(
        DamagedError,
        match="alphas version 2 for the space darts, but rapdarts-alphas version 1 or 2 for the space filters is needed",
    ):
        read_alphas(path, named_space("filters"))
    with pytest.raises(InputError, match="the search has not finished, or "):
        read_alphas(tmp_path / "none.json", DARTS)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"space": "darts", "space": "x"}', "line 1, column 20: the key 'space' is repeated in one object"),
        (b'{"space": "darts", "alpha": NaN}', "line 1, column 29: NaN is not a finite number"),
        (b"[" * 100_000, "line 1, column 51: values are nested deeper than 50 levels"),
        (b"[]", "it must be an object {...}, not []"),
        (b"\xff", "it is not UTF-8 text (invalid byte at offset 0); save it as UTF-8"),
    ],
)
def test_alphas_are_read_as_strict_json(raw: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "alphas.json"
    path.write_bytes(raw)
    with pytest.raises(DamagedError) as refusal:
        space_of_alphas(path)
    assert str(refusal.value) == f"{path} is damaged ({words})."

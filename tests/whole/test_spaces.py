"""Searching, pricing and deriving in every search space that ships, and in a user-defined space."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rapdarts.architecture.genotype import one_hot, random_genotype, validate
from rapdarts.architecture.space import Mixing, Skeleton
from rapdarts.cost.count import count_derived
from rapdarts.cost.expected import price_table
from rapdarts.deploy.space_lookup import named_space, space_from_file
from rapdarts.errors import DamagedError
from rapdarts.loops.search_record import heat_map
from rapdarts.networks.primitives import check_primitives
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.alphas import alphas_to_json, read_alphas
from rapdarts.strategy.derive import derive
from rapdarts.strategy.relaxation import Architecture, mixing_weights
from rapdarts.strategy.rule import Rule
from tests.spaces import NAMES, OWN


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my_space.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_space_is_searched_priced_and_derived(name: str, tmp_path: Path) -> None:
    """Covers the supernet, prices, derivation, and a round trip of alphas.json, on images with odd sides."""
    space, skeleton = named_space(name), Skeleton(3, 4, (3, 9, 7), 10)
    torch.manual_seed(0)
    architecture = Architecture(space, deviation=1.0)
    supernet = Supernet(space, skeleton)
    assert supernet(torch.ones(2, 3, 9, 7), architecture()).shape == (2, 10)
    table = price_table(space, skeleton)
    for rule in (Rule("pdarts", 1), Rule("darts")):
        derivation = derive(space, mixing_weights(architecture), table, rule, {})
        genotype = derivation.genotype
        validate(genotype, space, name)
        assert set(genotype.cells) == set(space.kinds)
        counted = count_derived(genotype, space, skeleton)
        assert genotype.costs == pytest.approx({name: counted[name] for name in genotype.costs}, rel=1e-12)
        chosen = Mixing(torch.as_tensor(one_hot(space, genotype)))
        np.testing.assert_allclose(table.expected(chosen).tolist(), list(table.exact(genotype).values()))
        assert ("except none" in derivation.rule) is not space.derive_none
    assert heat_map(architecture().weights).shape == (16 * space.mask[..., 0].size, 24 * len(space.primitives), 3)

    path = tmp_path / "alphas.json"
    path.write_text(alphas_to_json(space, skeleton, [architecture]))
    narrowed, found, (again,) = read_alphas(path, space)
    assert (narrowed, found) == (space, skeleton) and torch.equal(again.alpha, architecture.alpha)
    tree = json.loads(path.read_text())
    for cells in ({"normal": tree["cells"]["normal"]}, {**tree["cells"], "reduce": tree["cells"]["normal"]}):
        if set(cells) != set(space.kinds):
            path.write_text(json.dumps({**tree, "cells": cells}))
            with pytest.raises(DamagedError, match="its kinds of cell do not match the space"):
                read_alphas(path, space)


def test_a_user_space_is_searched_priced_and_derived(own: Path) -> None:
    space = space_from_file(own)
    assert (space.name, len(space.edges), list(space.primitives)[-1]) == ("mine", 9, "grouped")
    skeleton = Skeleton(3, 4, (1, 8, 8), 2)
    logits = Supernet(space, skeleton)(torch.ones(2, 1, 8, 8), Architecture(space)())
    assert logits.shape == (2, 2)
    table = price_table(space, skeleton)
    # The one normal cell has 8x8 pixels and 4 channels in two groups.
    assert table.prices[:2, 0, :, 3].tolist() == [[64 * 4 * 2 * 9] * 9, [4 * 2 * 9 + 2 * 4] * 9]
    genotype = random_genotype(space, np.random.default_rng(0))
    counted = count_derived(genotype, space, skeleton)
    assert table.exact(genotype) == pytest.approx({name: counted[name] for name in table.resources}, rel=1e-12)


def test_the_space_in_the_guide_works(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(guide.split("```python\n")[1].split("```")[0])
    space = space_from_file(tmp_path / "mine.py")
    check_primitives(space, "docs/search.md")
    assert "pointwise" in space.primitives

"""The random cells of a proof: drawn alike for the plan and for the proof, with remarks where the two differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rapdarts.architecture.space import SearchSpace
from rapdarts.config.experiment import Experiment
from rapdarts.config.resolve import resolve_experiment
from rapdarts.cost.expected import PriceTable
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops.launch import searched_space
from rapdarts.loops.opponents import differences_from_plan, planned_bounds, random_opponents
from rapdarts.loops.search import priced
from tests.tiny import TINY


@pytest.fixture(scope="module")
def setting() -> tuple[Experiment, SearchSpace, PriceTable]:
    pairs = [tuple(pair.split("=", 1)) for pair in [*TINY, "budget.params=5k"]]
    config = resolve_experiment("digits", pairs, "search")  # type: ignore[arg-type]
    space = searched_space(config.search, named_space(config.search.space))
    return config, space, priced(config, space, load_dataset(config.data, torch.device("cpu"), 0))


def test_equal_arguments_draw_equal_cells_and_fewer_are_the_first(
    setting: tuple[Experiment, SearchSpace, PriceTable],
) -> None:
    config, space, table = setting
    bounds = planned_bounds(config, space, table)
    assert bounds is not None and (bounds.floors.tolist(), bounds.bounds.tolist()) == ([4500.0], [5000.0])
    cells = random_opponents(config, space, bounds, 6)
    assert len(cells) == 6 and len({cell.line for cell in cells}) == 6
    assert all(4500 <= table.exact(cell)["params"] <= 5000 for cell in cells)
    assert random_opponents(config, space, planned_bounds(config, space, table), 6) == cells
    assert random_opponents(config, space, bounds, 2) == cells[:2]
    assert random_opponents(replace(config, seed=1), space, bounds, 2) != cells[:2]


def test_a_proof_with_other_cells_than_planned_says_so(setting: tuple[Experiment, SearchSpace, PriceTable]) -> None:
    config, space, table = setting
    bounds = planned_bounds(config, space, table)
    assert bounds is not None
    assert differences_from_plan(config, space, table, bounds, 8, 8) == []
    relaxed = replace(bounds, floors=np.array([4250.0]))
    assert differences_from_plan(config, space, table, relaxed, 5, 8) == [
        "the random cells have the cost bounds of the derived cell (params at least 4,250 and at most 5,000), which differ from"
        " those of the plan (params at least 4,500 and at most 5,000)",
        "5 random cells instead of 8 meet these bounds, so they get less compute than the search",
    ]

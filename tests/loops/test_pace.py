"""The pace of this machine is measured on the search's own step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rapdarts.config.experiment import Launch
from rapdarts.config.resolve import resolve_experiment
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops import search as searching
from rapdarts.loops.launch import searched_space
from rapdarts.loops.pace import measure_pace
from rapdarts.training.class_weights import class_weights
from rapdarts.training.session import open_run
from tests.tiny import TINY


@pytest.mark.parametrize(("setting", "graphed"), [("search.unrolled=false", True), ("search.unrolled=true", False)])
def test_the_pace_is_that_of_the_step_of_the_search(
    setting: str, graphed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [tuple(pair.split("=", 1)) for pair in [*TINY, setting, "search.class_weights=balanced"]]
    config = resolve_experiment("digits", pairs, "search")  # type: ignore[arg-type]
    space = searched_space(config.search, named_space(config.search.space))
    data = load_dataset(config.data, torch.device("cpu"), 0)
    table, network = searching.priced(config, space, data), ReferenceBlueprint("resnet20@4", data.image, data.classes)
    original, given, captured = searching.alternation, [], []

    def watched(*arguments: Any) -> Any:
        given.append(arguments)
        return original(*arguments)

    def graph(step: Any, *_: Any) -> Any:
        captured.append(step)
        return step

    monkeypatch.setattr(searching, "alternation", watched)
    monkeypatch.setattr(searching, "GraphedStep", graph)
    with open_run("find", config, Launch(run=str(tmp_path / "run")), "test", {}) as run:
        pace = measure_pace(config, space, data, table, [network], run)
    assert len(pace.stages) == len(given) == 2 and all(min(stage.both, stage.weights) > 0 for stage in pace.stages)
    expected = class_weights("balanced", data.train.labels, data.classes)
    assert expected is not None
    for arguments in given:
        torch.testing.assert_close(arguments[6], expected)
    assert len(captured) == (2 if graphed else 0)

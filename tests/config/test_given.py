"""Lookup of the experiment: a given one, that of the run to resume, or that of the run that the network comes from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rapdarts.config.experiment import DataConfig, Experiment
from rapdarts.config.given import find_experiment
from rapdarts.config.key_values import save_yaml
from rapdarts.errors import InputError


def run_folder(folder: Path, **changes: Any) -> Path:
    """Create a folder with the configuration of a run."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(save_yaml(replace(Experiment(), **changes)))
    return folder


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "search", seed=1)


def seed_of(*arguments: Any, **keys: Any) -> int:
    return find_experiment("retrain", *arguments, **keys).config.seed


def test_the_experiment_is_looked_up_in_order(origin: Path, tmp_path: Path) -> None:
    continued = run_folder(tmp_path / "net", seed=2)
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    resumed = {"run": continued, "resume": True}
    assert seed_of(tmp_path / "mine.yaml", None, {}, **resumed, origin=origin) == 3
    assert seed_of({}, {"seed": 4}, {}, **resumed, origin=origin) == 4
    assert seed_of("", None, {}, **resumed, origin=origin) == 2
    assert seed_of("", {"run": str(continued), "resume": "true"}, {}, origin=origin) == 2
    assert seed_of("", None, {}, run=tmp_path / "new", resume=True, origin=origin) == 1  # no run has started there
    assert seed_of("", None, {}, origin=origin) == 1
    assert seed_of("", None, {"seed": 5}, origin=origin) == 5
    assert seed_of("", {"data.name": "digits"}, {}) == 0
    assert find_experiment("search", "", None, {}, in_memory=True).config.data.name == "memory"


@pytest.mark.parametrize("verb", ["search", "retrain"])
def test_a_missing_experiment_is_rejected(verb: str, tmp_path: Path) -> None:
    for settings in (None, {"epochs": 3}, {"run": "new"}):
        with pytest.raises(InputError, match=f"rapdarts {verb} needs an experiment.*, such as digits"):
            find_experiment(verb, "", settings, {})
    with pytest.raises(InputError, match=r"new is not a run folder \(no config\.yaml\)"):
        find_experiment(verb, "", None, {}, run=tmp_path / "new", resume=True)


def test_a_ranking_is_not_an_experiment_to_train_with(tmp_path: Path) -> None:
    ranking = run_folder(tmp_path / "rank", seed=1)
    (ranking / "ranking.json").write_text("{}")
    with pytest.raises(
        InputError, match="rank is a ranking, which trains its networks only briefly; add the experiment"
    ):
        find_experiment("retrain", "", None, {}, origin=ranking)
    assert seed_of("digits", None, {}, origin=ranking) == 0


def test_data_other_than_the_runs_must_be_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.npz").touch()
    (tmp_path / "mine.yaml").write_text("data: {name: npz, path: mine.npz}\n")
    origin = run_folder(tmp_path / "search", data=DataConfig("npz", os.path.abspath("mine.npz")))
    assert find_experiment("retrain", "mine.yaml", None, {}, origin=origin).config.data.path == "mine.npz"
    for other in ("digits", {"data.path": "other.npz"}):
        with pytest.raises(InputError, match=r"search is a run on npz .*mine\.npz, but the experiment .* uses "):
            find_experiment("retrain", other, None, {}, origin=origin)
    confirmed = find_experiment("retrain", "digits", {"data.name": "digits"}, {}, origin=origin)
    assert confirmed.config.data.name == "digits"
    moved = find_experiment("retrain", "", {"data.path": "other.npz"}, {}, origin=origin)
    assert moved.config.data.path == "other.npz"

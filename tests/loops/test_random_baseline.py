"""The random baseline: genotypes at a given cost, trained by the retraining recipe."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.cli.main import main
from rapdarts.cost.count import count_derived
from rapdarts.cost.expected import price_table
from rapdarts.errors import InputError
from rapdarts.files.run_files import RUN_FILES
from rapdarts.loops.random_baseline import draw_genotypes
from rapdarts.training.checkpoint import load_checkpoint
from rapdarts.training.run import Run
from search_spaces.darts import SPACE

TINY = [
    "threads=1",
    "data.fraction=0.2",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "strategy=random",
    "random.count=3",
    "retrain.epochs=1",
    "retrain.batch=60",
]


def test_drawn_genotypes_meet_the_cost() -> None:
    table = price_table(SPACE, Skeleton(6, 8, (3, 16, 16), 10))
    center = np.median([table.exact(genotype)["macs"] for genotype in draw_genotypes(SPACE, table, 200, 0, 0.05, 1)])
    genotypes = draw_genotypes(SPACE, table, 20, center, 0.02, seed=3)
    assert all(abs(table.exact(genotype)["macs"] - center) <= 0.02 * center for genotype in genotypes)
    assert len({genotype.to_darts() for genotype in genotypes}) == 20
    assert draw_genotypes(SPACE, table, 20, center, 0.02, seed=3) == genotypes
    assert draw_genotypes(SPACE, table, 20, center, 0.02, seed=4) != genotypes


def test_a_cost_nobody_has_is_an_error_that_names_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapdarts.loops.random_baseline.MOST_DRAWS", 300)
    table = price_table(SPACE, Skeleton(3, 4, (1, 8, 8), 10))
    with pytest.raises(InputError, match=r"they have [\d,]+ to [\d,]+"):
        draw_genotypes(SPACE, table, 2, 10**12, 0.05, 0)


def baseline(folder: Path, *settings: str) -> int:
    return main(["search", "digits", *TINY, f"run={folder}", *settings])


def test_the_baseline_reports_mean_and_deviation_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert baseline(tmp_path / "whole") == 0
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    shares = [network["test_accuracy"] for network in result["networks"]]
    assert len(shares) == 3
    assert result["test_accuracy"] == pytest.approx(np.mean(shares))
    assert result["standard_deviation"] == pytest.approx(np.std(shares, ddof=1))
    said = capsys.readouterr().out
    assert "over 3 genotypes" in said
    assert said.endswith(f"\nwritten to {tmp_path / 'whole' / 'result.json'}\n")
    for number, share in enumerate(shares, 1):
        network = tmp_path / "whole" / "trained" / str(number)
        assert main(["evaluate", str(network / "network.safetensors" if number == 1 else network), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["test_accuracy"] == share
    assert {path.name for path in (tmp_path / "whole").iterdir()} <= {*RUN_FILES, "tensorboard", "trained"}

    original, logged = Run.log, 0

    def signal_at_second(self: Run, *shown: Any, **facts: Any) -> None:
        nonlocal logged
        logged += 1
        if logged == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *shown, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", signal_at_second)
        assert baseline(tmp_path / "cut") == 75
    assert baseline(tmp_path / "cut", "resume=true") == 0
    resumed = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert resumed["networks"] == result["networks"]
    # Of networks that are finished the checkpoint holds what they reached, not their weights.
    found = load_checkpoint(tmp_path / "cut" / "checkpoint", {})
    assert found is not None
    assert [facts["correct"] / facts["n"] for facts in found[0]["finished"]] == shares[:2]
    assert all(isinstance(value, int | float) for facts in found[0]["finished"] for value in facts.values())


def test_the_skeleton_may_be_that_of_a_genotype_which_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like = replace(LITERATURE["PDARTS"], skeleton=Skeleton(4, 2, (1, 8, 8), 10))
    (tmp_path / "like.json").write_text(like.to_json())
    settings = [f"random.like={tmp_path / 'like.json'}", "random.tolerance=1", "random.count=1"]
    assert baseline(tmp_path / "run", *settings) == 0
    assert (
        "\nbuilding 4 cells x 2 channels with the cifar stem, as the genotype was priced,"
        " not the experiment's 3 cells x 4 channels with the cifar stem; " in capsys.readouterr().err
    )


def test_the_cost_may_be_that_of_a_genotype(tmp_path: Path) -> None:
    assert baseline(tmp_path / "run", "random.like=PDARTS", "random.tolerance=0.1", "random.count=1") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    table = price_table(SPACE, Skeleton(3, 4, (1, 8, 8), 10))
    assert result["target_macs"] == table.exact(LITERATURE["PDARTS"])["macs"]
    assert abs(result["networks"][0]["costs"]["macs"] - result["target_macs"]) <= 0.1 * result["target_macs"]
    assert result["standard_deviation"] is None


def test_the_cost_may_be_that_of_a_genotype_that_no_search_finds(tmp_path: Path) -> None:
    """Some of its nodes have fewer than two edges: it has no price, and is counted."""
    assert baseline(tmp_path / "run", "random.like=FairDARTS_a", "random.tolerance=0.1", "random.count=1") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    counted = count_derived(LITERATURE["FairDARTS_a"], SPACE, Skeleton(3, 4, (1, 8, 8), 10))
    assert result["target_macs"] == counted["macs"]


def test_a_training_that_diverges_is_left_out_of_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, broken = Run.log, {1}

    def log(self: Run, *shown: Any, **facts: float) -> None:
        original(self, *shown, **facts, **({"train_loss": math.nan} if self.stage in broken else {}))

    monkeypatch.setattr(Run, "log", log)
    assert baseline(tmp_path / "some") == 0
    words, progress = capsys.readouterr()
    assert "network 2/3: train_loss is nan in epoch 1: the training diverged. Lower the learning rate" in progress
    assert "over 2 genotypes" in words
    result = json.loads((tmp_path / "some" / "result.json").read_text())
    first, second, third = (network["test_accuracy"] for network in result["networks"])
    assert second is None and result["test_accuracy"] == pytest.approx((first + third) / 2)
    broken |= {0, 2}
    assert baseline(tmp_path / "none") == 5
    assert (
        "none of the 3 networks could be trained: all diverged at retrain.lr=0.05. Lower it" in capsys.readouterr().err
    )

"""The retraining end to end on real digits: what it writes, that it repeats and resumes to the same bits, and each part of its recipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rapdarts.cli import main
from rapdarts.evaluate import Accuracy, load_network, read_trained
from rapdarts.literature import LITERATURE
from rapdarts.retrain import Best
from rapdarts.training.run import Run
from search_spaces.darts import SPACE

TINY = [
    "threads=1",
    "data.fraction=0.3",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "retrain.epochs=2",
    "retrain.batch=60",
    "retrain.drop_path=0.3",
    "retrain.auxiliary=0.4",
    "retrain.cutout=3",
    "retrain.label_smoothing=0.1",
]


def run_retrain(folder: Path, *settings: str) -> int:
    return main(["retrain", "PDARTS", "digits", *TINY, f"run={folder}", *settings])


def results(folder: Path) -> dict[str, Any]:
    """What must not depend on interruptions: every result file's bytes, and the record but for its times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds")
    names = ("network.safetensors", "best.safetensors", "genotype.json")
    return {"records": records, **{name: (folder / name).read_bytes() for name in names if (folder / name).exists()}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retraining with a held-out part that nobody interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run_retrain(folder, "retrain.validation_fraction=0.2") == 0
    return folder


def test_the_file_is_all_one_needs(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = read_trained(whole / "network.safetensors")
    assert trained.genotype.cells == LITERATURE["PDARTS"].cells
    assert trained.class_names == tuple("0123456789")
    network, _ = load_network(trained, SPACE)
    images = torch.randn(5, 1, 8, 8)
    assert network(images).shape == (5, 10)
    with safe_open(whole / "network.safetensors", "pt") as file:
        assert not any(name.startswith("auxiliary") for name in file.keys())  # noqa: SIM118


def test_evaluate_gives_the_accuracy_of_the_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert main(["evaluate", str(whole), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == result["n"] == 600
    assert found["test_accuracy"] == result["test_accuracy"]
    assert found["standard_error"] == pytest.approx(
        (found["test_accuracy"] * (1 - found["test_accuracy"]) / 600) ** 0.5
    )
    assert main(["evaluate", str(whole / "best.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == result["best"]["test_accuracy"]


def test_best_is_the_epoch_with_the_highest_validation_accuracy(whole: Path) -> None:
    shares = [record["validation_accuracy"] for record in results(whole)["records"]]
    last, best = (load_file(whole / name) for name in ("network.safetensors", "best.safetensors"))
    same = all(torch.equal(last[name], best[name]) for name in last)
    assert same == (shares[1] > shares[0])


def test_without_a_held_out_part_there_is_no_best(tmp_path: Path) -> None:
    assert run_retrain(tmp_path / "run", "retrain.epochs=1") == 0
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert "validation_accuracy" not in results(tmp_path / "run")["records"][0]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["auxiliary_pool"] == "adaptive 2x2"


@pytest.mark.parametrize("after", ["epoch 1", "step 2", "step 4"])
def test_an_interrupted_retraining_ends_in_the_same_bits(
    whole: Path, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, number = after.split()
    name = "log" if what == "epoch" else "_pause"
    original, seen = getattr(Run, name), 0

    def signal_after(self: Run, *shown: Any, **facts: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == int(number):
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *shown, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Run, name, signal_after)
        assert run_retrain(tmp_path / "cut", "retrain.validation_fraction=0.2") == 75
    assert not (tmp_path / "cut" / "network.safetensors").exists()
    assert run_retrain(tmp_path / "cut", "retrain.validation_fraction=0.2", "resume=true") == 0
    assert results(tmp_path / "cut") == results(whole)


def test_a_killed_retraining_ends_in_the_same_bits(whole: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "killed", ["retrain.validation_fraction=0.2", "save_seconds=0"]
    command = [sys.executable, "-m", "rapdarts", "retrain", "PDARTS", "digits", *TINY, f"run={folder}", *settings]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.previous").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert run_retrain(folder, *settings, "resume=true") == 0
    assert results(folder) == results(whole)


def test_resume_with_another_genotype_is_refused(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [*TINY, "retrain.validation_fraction=0.2", f"run={whole}", "resume=true"]
    assert main(["retrain", "DARTS_V2", "digits", *settings]) == 4
    assert "genotype" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        "retrain.drop_path=0",
        "retrain.auxiliary=0",
        "retrain.cutout=0",
        "retrain.label_smoothing=0",
        "retrain.lr=0.01",
        "retrain.lr_min=0.04",
        "retrain.momentum=0",
        "retrain.weight_decay=0",
        "retrain.clip=0.5",
        "data.crop=0",
        "data.flip=true",
        "seed=1",
    ],
)
def test_every_knob_of_the_recipe_reaches_the_weights(change: str, tmp_path: Path, base: bytes) -> None:
    assert run_retrain(tmp_path / "run", change) == 0
    assert results(tmp_path / "run")["network.safetensors"] != base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the recipe unchanged."""
    folder = tmp_path_factory.mktemp("base") / "run"
    assert run_retrain(folder) == 0
    content = results(folder)["network.safetensors"]
    assert isinstance(content, bytes)
    return content


def test_the_skeleton_that_was_priced_is_the_one_that_is_built(tmp_path: Path) -> None:
    priced = tmp_path / "genotype.json"
    text = json.loads(LITERATURE["PDARTS"].to_json())
    text["skeleton"] = {"layers": 4, "channels": 6, "stem": "cifar", "image": [1, 8, 8], "classes": 10}
    priced.write_text(json.dumps(text))
    small = [setting for setting in TINY if not setting.startswith("skeleton.")]
    assert main(["retrain", str(priced), "digits", *small, "retrain.epochs=1", f"run={tmp_path / 'own'}"]) == 0
    assert read_trained(tmp_path / "own" / "network.safetensors").genotype.skeleton.layers == 4  # type: ignore[union-attr]
    asked = ["skeleton.layers=3", "skeleton.channels=4", "retrain.epochs=1"]
    assert main(["retrain", str(priced), "digits", *small, *asked, f"run={tmp_path / 'asked'}"]) == 0
    assert read_trained(tmp_path / "asked" / "network.safetensors").genotype.skeleton.layers == 3  # type: ignore[union-attr]


def test_a_cut_network_file_is_named(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "network.safetensors"
    broken.write_bytes((whole / "network.safetensors").read_bytes()[:2000])
    assert main(["evaluate", str(broken)]) == 4
    assert str(broken) in capsys.readouterr().err


def test_accuracy_says_how_sure_it_is() -> None:
    assert str(Accuracy(97, 100, 0.1)) == "97.00 % +- 1.71 % (standard error, n = 100)"


def test_best_keeps_score_and_weights_together() -> None:
    best = Best(0.5, 3, {"w": torch.ones(2)})
    other = Best()
    other.load_state_dict(best.state_dict())
    assert (other.score, other.epoch) == (0.5, 3)
    assert other.weights is not None
    assert torch.equal(other.weights["w"], torch.ones(2))

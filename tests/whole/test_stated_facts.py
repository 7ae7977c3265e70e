"""Facts that a file states about a network are compared with the network, or with what a network can be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from safetensors import safe_open

from rapdarts.cli.main import main

RUNS = Path(__file__).with_name("runs_0_1_0")
SKELETONS: list[dict[str, Any]] = [
    {"image": [1, 8]},
    {"image": 8},
    {"image": [1, 8, -8]},
    {"channels": 10**17},
    {"layers": 10**9},
    {"classes": 0},
    {"classes": "10"},
    {"stem": "other"},
    {"width": 3},
]


@pytest.mark.parametrize("name", ["macs", "params", "bytes", "activations", "traffic", "energy"])
@pytest.mark.parametrize("command", [["cost"], ["retrain", "digits", "run=new"]], ids=["cost", "retrain"])
def test_costs_that_are_not_those_of_the_cells_are_refused(
    command: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = json.loads((RUNS / "search" / "genotype.json").read_text())
    tree["costs"][name] *= 1.01
    Path("cell.json").write_text(json.dumps(tree))
    assert main([command[0], "cell.json", *command[1:]]) == 4
    assert f"{name} is " in capsys.readouterr().err
    assert not Path("new").exists()
    del tree["costs"]
    Path("cell.json").write_text(json.dumps(tree))
    assert main(["cost", "cell.json"]) == 0


@pytest.mark.parametrize("change", SKELETONS, ids=str)
@pytest.mark.parametrize("file", ["search/genotype.json", "search/alphas.json", "network/network.safetensors"])
def test_a_skeleton_that_no_network_has_is_refused(
    file: str, change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    path = tmp_path / file
    if path.suffix == ".json":
        tree = json.loads(path.read_text())
        tree["skeleton"].update(change)
        path.write_text(json.dumps(tree))
    else:
        with safe_open(path, "pt") as opened:
            card = json.loads(opened.metadata()["rapdarts"])
        genotype = json.loads(card["genotype"])
        genotype["skeleton"].update(change)
        weights = safetensors.torch.load_file(path)
        safetensors.torch.save_file(weights, path, {"rapdarts": json.dumps({**card, "genotype": json.dumps(genotype)})})
    command = ["derive", str(path.parent)] if "alphas" in file else ["cost", str(path)]
    assert main(command) in (2, 4)
    assert "internal error" not in capsys.readouterr().err

"""Run folders of rapdarts 0.1.0 still work: they can be resumed, derived from, retrained, tested, exported and reported.

`runs_0_1_0` contains five of them, on the digits and as small as possible: a search stopped by SIGTERM in the middle of its
second stage, a finished search, a retraining stopped in its second epoch, a finished retraining, and a ranking.
environment.json records the commands. Only the stopped runs have a checkpoint; lock files, TensorBoard files and machine
names were removed.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import rapdarts
from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.reading import read_genotype
from rapdarts.cli.main import main
from rapdarts.config import resolve
from tests.bits import Machine, file_sha256, recorded, weights_sha256

RUNS = Path(__file__).with_name("runs_0_1_0")
ENDS: dict[Machine, dict[str, str]] = {
    ("AVX512", "AuthenticAMD", "2.13.0+cpu"): {
        "alphas": "e06670c5a1141e04ad2172ca2bd1ecaea8c75de869cea10e90f1fe09b2dccccf",
        "weights": "6fbbead93d18b332bbf59c16ad361be2bdf9d5ff40db50397b21301d0292f886",
    },
}
"""Results from the two checkpoints: hashes of the retraining's weights by 0.1.0 itself, and of the search's alphas.

The alphas were recorded on 2026-11-30. In 0.1.0, the later stages of a search saw the batches of the first again, and multipliers
had another rule below a budget.
"""


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the run folders and change to the copy: the commands name their runs by relative paths."""
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resumed(run: str) -> Path:
    """Resume a run until it is finished, with the command that started it."""
    command = json.loads(Path(run, "environment.json").read_text())["command"]
    assert main([*command, "resume=true"]) == 0
    assert json.loads(Path(run, "status.json").read_text()) == {"state": "done", "exit_code": 0}
    return Path(run)


def result(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """Return the JSON output of a command."""
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_stopped_search_is_resumed_and_finished(capsys: pytest.CaptureFixture[str]) -> None:
    folder = resumed("stopped_search")
    assert "resuming stage 2/3 at epoch 2, step 6" in capsys.readouterr().err
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in lines] == [
        (stage, epoch) for stage in range(3) for epoch in (0, 1)
    ]
    assert result(folder)["budgets"] == {"params": 2200}
    assert read_genotype(folder / "genotype.json").costs["params"] <= 2200


def test_a_stopped_retraining_is_resumed_and_finished(capsys: pytest.CaptureFixture[str]) -> None:
    folder = resumed("stopped_network")
    assert "resuming retraining at epoch 2, step 5" in capsys.readouterr().err
    assert result(folder)["n"] == 600
    assert result(folder)["costs"] == result(Path("network"))["costs"]
    assert rapdarts.load(folder).training is False


def test_the_resumed_search_is_bit_identical() -> None:
    expected = recorded(ENDS)["alphas"]
    assert file_sha256(resumed("stopped_search") / "alphas.json") == expected


def test_the_resumed_retraining_is_bit_identical() -> None:
    expected = recorded(ENDS)["weights"]
    assert weights_sha256(resumed("stopped_network") / "network.safetensors") == expected


def test_a_different_configuration_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    command = json.loads(Path("stopped_search/environment.json").read_text())["command"]
    assert main([*command, "budget.params=3k", "resume=true"]) == 2
    assert re.search(
        r"started with a different configuration \(search\.budget\.params: \S+ -> 3k\)", capsys.readouterr().err
    )


def test_the_derivation_keeps_the_settings_of_the_original_run(capsys: pytest.CaptureFixture[str]) -> None:
    """That run has explicit values where a new run has auto, and its budgets have no lower bound."""
    before = resolve.experiment_of_run(Path("stopped_search")).search
    resumed("stopped_search")
    after = resolve.experiment_of_run(Path("stopped_search")).search
    assert (after.rule, after.max_skips, after.spend) == (before.rule, before.max_skips, 0) == ("pdarts", 2, 0)
    assert "at least" not in result(Path("stopped_search"))["rule"]
    assert resumed("stopped_search") == resumed("stopped_search")  # resuming it again changes nothing
    command = json.loads(Path("stopped_search/environment.json").read_text())["command"]
    for key, change in (
        ("rule=exact", "rule: pdarts -> exact"),
        ("max_skips=3", "max_skips: 2 -> 3"),
        ("spend=0.9", "spend: 0.0 -> 0.9"),
    ):
        capsys.readouterr()
        assert main([*command, key, "resume=true"]) == 2
        assert f"started with a different configuration (search.{change})" in capsys.readouterr().err


def test_a_genotype_is_derived_from_the_finished_search(capsys: pytest.CaptureFixture[str]) -> None:
    best = answer(capsys, "derive", "search")[0]
    own = read_genotype(Path("search/genotype.json"))
    assert parsed(best["genotype"]).cells == own.cells
    assert best["costs"] == own.costs


def test_a_genotype_is_derived_from_the_finished_search_with_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    best = answer(capsys, "derive", "search", "budget.params=1.8k")[0]
    costs = {"macs": 23264, "params": 1776, "bytes": 7104, "activations": 3306, "traffic": 59480}
    assert {name: best["costs"][name] for name in costs} == costs
    assert (
        parsed(best["genotype"]).cells
        == rapdarts.read(
            "Genotype(normal=[('dil_conv_3x3', 0), ('max_pool_3x3', 1), ('dil_conv_3x3', 1), ('max_pool_3x3', 2),"
            " ('max_pool_3x3', 0), ('max_pool_3x3', 3), ('sep_conv_3x3', 0), ('max_pool_3x3', 1)],"
            " normal_concat=range(2, 6), reduce=[('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0),"
            " ('sep_conv_3x3', 1), ('max_pool_3x3', 1), ('max_pool_3x3', 2), ('max_pool_3x3', 0), ('dil_conv_3x3', 3)],"
            " reduce_concat=range(2, 6))"
        ).cells
    )


def parsed(tree: Any) -> Genotype:
    return rapdarts.read(json.dumps(tree))


def test_the_genotype_of_the_search_is_retrained(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["retrain", "search", "digits", "retrain.epochs=1", "data.fraction=0.1", "device=cpu", "run=new"]
    found = answer(capsys, *command)
    own = read_genotype(Path("search/genotype.json"))
    assert found["costs"]["params"] == own.costs["params"]
    assert read_genotype(Path("new/genotype.json")).skeleton == own.skeleton


def test_the_trained_network_is_tested(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "evaluate", "network", "device=cpu", "threads=1", "timing=false")
    own = result(Path("network"))
    assert found["n"] == own["n"] == 600
    assert abs(found["test_accuracy"] - own["test_accuracy"]) <= 2 / 600  # rounding differs between machines
    assert found["test_loss"] == pytest.approx(own["test_loss"], rel=1e-4)


def test_the_trained_network_is_exported_to_safetensors() -> None:
    assert main(["export", "network", "to=safetensors", "out=net.safetensors"]) == 0
    assert weights_sha256(Path("net.safetensors")) == weights_sha256(Path("network/network.safetensors"))


def test_the_trained_network_is_exported_to_onnx(capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    assert answer(capsys, "export", "network", "to=onnx", "out=net.onnx")["largest_difference"] < 1e-4
    assert Path("net.onnx").stat().st_size > 0


def test_the_ranking_is_exported_and_tested(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "rank/best.json", "to=darts"]) == 0
    ranked = json.loads(Path("rank/ranking.json").read_text())
    assert rapdarts.read(capsys.readouterr().out).cells == parsed(ranked[0]["genotype"]).cells
    found = answer(capsys, "evaluate", "rank/trained/2", "device=cpu", "timing=false")
    assert (found["n"], found["costs"]["macs"]) == (600, ranked[1]["costs"]["macs"])


def test_the_runs_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "search", "network", "rank"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[:7] for row in rows[2:5]] == [
        ["search", "search", "digits", "0", "pdarts, darts cost.macs=0.2", "1,884", "24,128"],
        ["network", "retrain", "digits (0.2 of it)", "0", "2 epochs", "1,884", "24,128"],
        ["rank", "rank, best of 2", "digits (0.2 of it)", "0", "1 epoch", "1,884", "24,128"],
    ]


def test_the_run_folders_contain_no_machine_names() -> None:
    for file in RUNS.glob("*/environment.json"):
        facts = json.loads(file.read_text())
        assert (facts["platform"], facts["gpu"], facts["rapdarts"]) == ("Linux", None, "0.1.0")
        assert not any("/" in word for word in facts["command"])

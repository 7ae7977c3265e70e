"""`rapdarts find` on the digits: its steps, its result, its proof, and the same bits after it is stopped anywhere."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.architecture.reading import read_genotype
from rapdarts.cli.main import main
from rapdarts.config.given import find_experiment
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy.model_file import deployed, read_trained
from rapdarts.loops.pace import Pace, Sizes, StagePace
from rapdarts.loops.plan import Plan, Round
from rapdarts.training.device import device_named
from rapdarts.training.intervals import compare
from rapdarts.training.metrics import predict
from tests.bits import file_sha256, weights_sha256
from tests.edited import plain
from tests.evidence.found import facts
from tests.mutations import stop
from tests.pages import ROOT
from tests.tiny import TINY

PLAN = Plan(0.5, 2, 2, 1, (Round(3, 2), Round(2, 3)), 3, (Round(4, 2), Round(2, 3)))
PACE = Pace((StagePace(0.1, 0.1, 0.1), StagePace(0.1, 0.1, 0.1)), 0.1, 0.1, 0.001)
SETTINGS = {
    **dict(setting.split("=") for setting in TINY),
    "search.layers": "[3]",
    "search.candidates": "[0]",
    "search.skip_dropout": "[0.3]",
    "data.fraction": "0.3",
    "retrain.batch": "30",
    "rank.train_fraction": "0.6",
    "find.replicas": "2",
    "budget.params": "5k",
}
"""A budget that the most expensive cell of the tiny skeleton exceeds, and that one in ten random cells spends."""


def words(**changed: str) -> list[str]:
    """Return the settings, with changes, as they are written on a command line; an empty value leaves a setting out."""
    settings = {**SETTINGS, **{key.replace("__", "."): value for key, value in changed.items()}}
    return ["digits", *(f"{key}={value}" for key, value in settings.items() if value)]


def plan_file(folder: Path, plan: Plan, **settings: str) -> Path:
    """Write the plan of the tiny experiment into a folder."""
    config = find_experiment("find", "digits", {**SETTINGS, **settings}, {}).config
    file = folder / "given_plan.json"
    data = load_dataset(config.data, device_named("cpu", 1), config.seed)
    file.write_text(plan.to_json(config, Sizes.of(config, data), PACE), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a proof."""
    folder = tmp_path_factory.mktemp("find")
    plan = plan_file(folder, PLAN)
    assert main(["find", *words(plan=str(plan), proof="true"), f"run={folder / 'run'}"]) == 0
    return folder / "run"


def result(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return facts


def test_every_step_is_a_run_of_its_own_and_follows_the_plan(proven: Path) -> None:
    names = ["search", "rank-1", "rank-2", "network", "export"]
    names += ["random/rank-1", "random/rank-2", "random/network", "reference"]
    assert [step["name"] for step in result(proven)["steps"]] == names
    trained = {name: result(proven / name) for name in names if name != "export"}
    ranked = [(trained[name]["count"], trained[name]["epochs"]) for name in names if "rank" in name]
    assert ranked == [(3, 2), (2, 3), (4, 2), (2, 3)]
    lines = (proven / "search" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 2  # replicas x epochs
    for name in ("network", "random/network", "reference"):
        assert len((proven / name / "metrics.jsonl").read_text().splitlines()) == 3
    for before, after in (("rank-1", "rank-2"), ("random/rank-1", "random/rank-2")):
        best = [network["genotype"] for network in trained[before]["networks"][:2]]
        assert {network["genotype"] for network in trained[after]["networks"]} == set(best)
    for name in ("", "random/"):
        winner = trained[f"{name}rank-2"]["networks"][0]["genotype"]
        assert read_genotype(proven / f"{name}network" / "genotype.json").line == winner


def test_every_cell_is_named_after_the_searches_or_as_random(proven: Path) -> None:
    for name, source in (("rank-1", "candidate {} of the averaged searches"), ("random/rank-1", "random cell {}")):
        networks = result(proven / name)["networks"]
        expected = sorted(source.format(number) for number in range(1, len(networks) + 1))
        assert sorted(one for network in networks for one in network["sources"]) == expected


def test_the_advice_names_the_keys_of_find(proven: Path) -> None:
    notes, own = (" ".join(result(folder)["notes"]) for folder in (proven, proven / "search"))
    assert "the two replicas agree on " in notes and "search." not in notes
    assert notes.partition("This is mostly noise")[0] == own.partition("This is mostly noise")[0]


def test_the_network_spends_its_budget_and_so_do_the_random_cells(proven: Path) -> None:
    facts = result(proven)
    assert 0.9 * 5000 <= facts["costs"]["params"] <= 5000
    assert facts["used"] == {"params": facts["costs"]["params"] / 5000}
    for network in result(proven / "random" / "rank-1")["networks"]:
        assert 0.9 * 5000 <= network["costs"]["params"] <= 5000
    assert result(proven / "reference")["costs"]["params"] <= 5000


def test_the_proof_compares_the_networks_on_the_same_test_images(proven: Path) -> None:
    config = find_experiment("find", "digits", SETTINGS, {}).config
    data = load_dataset(config.data, device_named("cpu", 1), config.seed)
    correct = {}
    for name in ("network", "random/network", "reference"):
        network = deployed(read_trained(proven / name / "network.safetensors"))
        logits, labels = predict(network, [(data.test.fetch(torch.arange(600)) / 255, data.test.labels)])
        correct[name] = (logits.argmax(1) == labels).numpy()
        assert correct[name].mean() == pytest.approx(result(proven / name)["test_accuracy"])
    proof = result(proven)["proof"]
    for name, where in (("random", "random/network"), ("reference", "reference")):
        expected = compare(correct["network"], correct[where])
        found = proof[name]["compared"]
        assert found["difference"] == expected.difference and found["p"] == expected.p
        assert (found["first_only"], found["second_only"]) == (expected.first_only, expected.second_only)
    assert proof["cells"] == 4 and proof["reference_network"].startswith("resnet20@")

    kept = facts(proven)  # of the comparisons in docs/evidence.md
    names = {"found": "network", "random": "random/network", "reference": "reference"}
    assert {one: kept[one]["test_accuracy"] for one in names} == {
        one: result(proven / name)["test_accuracy"] for one, name in names.items()
    }
    assert kept["choosing_seconds"] == proof["choosing_seconds"] and len(kept["seconds"]) == 9


def test_the_onnx_file_runs_in_onnxruntime_alone(proven: Path) -> None:
    config = find_experiment("find", "digits", SETTINGS, {}).config
    data = load_dataset(config.data, device_named("cpu", 1), config.seed)
    images = proven.parent / "images.npz"
    np.savez(
        images, pixels=(data.test.fetch(torch.arange(600)) / 255).numpy().astype(np.float32), labels=data.test.labels
    )
    code = (
        "import sys\nsys.modules['rapdarts'] = sys.modules['torch'] = None\nimport numpy as np, onnxruntime\n"
        "data = np.load(sys.argv[2])\nsession = onnxruntime.InferenceSession(sys.argv[1])\n"
        "(logits,) = session.run(None, {session.get_inputs()[0].name: data['pixels']})\n"
        "print((logits.argmax(1) == data['labels']).mean())"
    )
    command = [sys.executable, "-c", code, str(proven / "network" / "network.onnx"), str(images)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert float(printed) == pytest.approx(result(proven)["test_accuracy"], abs=0.002)
    assert (proven / "network" / "network.onnx.md").read_text().startswith("---\nlibrary_name: rapdarts")


def test_the_page_says_what_was_done(proven: Path) -> None:
    text = (proven / "report.md").read_text(encoding="utf-8")
    facts = result(proven)
    assert text.startswith("# A network for digits\n") and facts["genotype"] in text
    assert f"{facts['costs']['params']:,}" in text and "of the params budget (5,000) is used" in text
    assert "best of 4 random cells of the same cost" in text and "McNemar p = " in text
    assert "A single comparison says nothing about searches in general" in text
    assert "Round 1: 3 cells, 2 epochs on " in text and "Round 2: 2 cells, 3 epochs on " in text
    assert (proven / "cell.svg").read_text().startswith("<svg")


def test_the_folder_stands_for_its_network_and_its_search(proven: Path, tmp_path: Path) -> None:
    evaluated = rapdarts.evaluate(proven, timing=False)
    assert evaluated.accuracy == result(proven)["test_accuracy"]
    assert rapdarts.costs(str(proven))["params"] == result(proven)["costs"]["params"]
    assert rapdarts.read(proven).line == result(proven)["genotype"]
    derived = rapdarts.derive(proven, {"budget.params": "6k"}, progress=False)
    assert 0.9 * 6000 <= derived.costs["params"] <= 6000
    table = rapdarts.report([proven, proven / "search"]).text
    assert (
        f"| {proven} | find | digits (0.3 of it) | 0 | pdarts, darts budget.params=5k effort=0.5, 3 epochs |" in table
    )


def test_a_plan_of_a_file_is_followed(proven: Path) -> None:
    written, given = (plain(file) for file in (proven / "plan.json", proven.parent / "given_plan.json"))
    assert {**written, "pace": 0} == {**given, "pace": 0}


# --- stopping and resuming ---------------------------------------------------------------------------------------


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rapdarts", "find", *words(effort="0.05"), f"run={folder}", *more]


def bits(folder: Path) -> dict[str, Any]:
    """Return everything that a run computed, without times and the machine's pace."""
    facts = {
        name: value
        for name, value in result(folder).items()
        if name not in ("seconds", "steps", "quality", "export", "files", "sha256")
    }
    facts["rounds"] = [{**one, "seconds": 0, "step_seconds": 0} for one in facts["rounds"]]
    return {
        **facts,
        "alphas": file_sha256(folder / "search" / "alphas.json"),
        "weights": weights_sha256(folder / "network" / "network.safetensors"),
        "onnx": file_sha256(folder / "network" / "network.onnx"),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run that was never stopped, and the time that it took, in seconds."""
    folder, began = tmp_path_factory.mktemp("whole") / "run", time.monotonic()
    subprocess.run(command(folder), check=True, capture_output=True, env=ENVIRONMENT, timeout=600)
    return folder, time.monotonic() - began


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped in its search."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    stop(*command(folder)[3:], saves=2)
    return folder


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_killed_and_resumed_gives_the_same_bits(
    seed: int, whole: tuple[Path, float], tmp_path: Path
) -> None:
    folder, seconds = tmp_path / "run", whole[1]
    process = subprocess.Popen(command(folder), env=ENVIRONMENT, stderr=subprocess.PIPE)
    time.sleep(random.Random(seed).uniform(0.3, 0.9) * seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = subprocess.run(
        command(folder, "resume=true"), env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert bits(folder) == bits(whole[0])


@pytest.mark.proof
def test_a_signal_stops_the_whole_run_and_names_its_folder(whole: tuple[Path, float], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(command(folder), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not (folder / "search" / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 75, printed
    assert "stopped by SIGTERM" in printed and f"run={folder} resume=true" in printed.splitlines()[-1]
    assert json.loads((folder / "status.json").read_text())["state"] == "preempted"
    assert main([*command(folder, "resume=true")[3:]]) == 0
    assert bits(folder) == bits(whole[0])
    search = next(step for step in result(folder)["steps"] if step["name"] == "search")
    assert search["seconds"] >= result(folder / "search")["seconds"]  # which is the time of all epochs
    assert main([*command(folder, "resume=true")[3:]]) == 0  # a finished run is written again
    assert bits(folder) == bits(whole[0])


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"budget__params": ""},
            "rapdarts find needs a budget; add one, such as budget.params=100k or budget.macs=5M.",
        ),
        ({"time": "30"}, "find.time=30 is not a duration; write a number with its unit, such as 90s, 30m or 2h."),
        (
            {"time": "30m", "effort": "1"},
            "only one key can set the amount of work; keep either find.time or find.effort.",
        ),
        ({"time": "5x"}, "find.time=5x is not a duration; write a number with its unit, such as 90s, 30m or 2h."),
        ({"time": "0s"}, "find.time=0s must be above 0; write a duration such as 90s, 30m or 2h."),
        ({"time": "1s"}, "find.time is too short: on this machine, even the shortest plan takes "),
        ({"search.replicas": "4"}, "rapdarts find does not use search.replicas=4; set find.replicas=4 instead."),
        ({"rank.epochs": "4"}, "rapdarts find sets rank.epochs itself; leave it out"),
        ({"effort": "0"}, "find.effort=0.0 is out of range; it must be auto, or 0.001 to 32."),
        ({"strategy": "random"}, "search.strategy=random does not search"),
        (
            {"budget__params": "1"},
            "no genotype of the space darts with at most 2 skips in its normal cell meets params <= 1:",
        ),
        ({"plan": "absent.json"}, "find.plan=absent.json cannot be read"),
        ({"data__fraction": "0.03"}, "retrain.batch=30 is larger than the 20 of 39 training images"),
        ({"data__fraction": "0.02", "retrain__batch": "4"}, "class 0 has a single image, too few to split; "),
        ({"retrain__batch": "300"}, "retrain.batch=300"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing_that_blocks_the_folder(
    changed: dict[str, str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find", *words(**changed), f"run={tmp_path / 'run'}"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rapdarts: ")]
    assert line.startswith("rapdarts: error: ") and sentence in line
    assert not (tmp_path / "run").exists()


def test_a_folder_with_files_of_the_user_stays(tmp_path: Path) -> None:
    for kept in ((), ("notes.txt",)):
        folder = tmp_path / f"run-{len(kept)}"
        folder.mkdir()
        for name in kept:
            (folder / name).touch()
        assert main(["find", *words(time="1s"), f"run={folder}"]) == 2
        assert folder.is_dir() and not (folder / "plan.json").exists()
        assert all((folder / name).exists() for name in kept)


def test_a_wrong_time_is_refused_before_the_data_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for time_given in ("5", "5x"):
        assert main(["find", *words(time=time_given), f"run={tmp_path / 'run'}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_its_budget_is_resumed_as_a_whole(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stopped
    assert main(["find", "digits", f"run={folder}", "resume=true"]) == 2
    assert capsys.readouterr().err == (
        f"rapdarts: error: the budget of the run in {folder} is missing from this command; resume it with rapdarts find"
        f" run={folder} resume=true, or repeat the whole command with resume=true.\n"
    )
    assert main(["find", "digits", f"run={folder / 'absent'}", "resume=true"]) == 2
    assert capsys.readouterr().err == (
        f"rapdarts: error: {folder / 'absent'} contains no run to resume; check its path. To start a new run there, add a budget, such"
        " as budget.params=100k or budget.macs=5M.\n"
    )
    assert main(["search", "digits", f"run={folder}", "resume=true"]) == 2
    assert capsys.readouterr().err == (
        f"rapdarts: error: {folder} is a run of rapdarts find; use rapdarts find run={folder} resume=true.\n"
    )


def test_a_run_is_resumed_with_its_own_budget_and_its_own_plan_only(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = stopped, (stopped / "search" / "checkpoint").read_bytes()
    assert main(["find", *words(effort="0.05"), f"run={folder}"]) == 2
    assert f"{folder} already holds a run; add resume=true" in capsys.readouterr().err
    for changed, words_of_change in (
        ({"effort": "0.05", "budget__params": "6k"}, "search.budget.params: 5k -> 6k"),
        ({"effort": "0.1"}, "find.effort: 0.05 -> 0.1"),
        ({"effort": "0.05", "seed": "3"}, "seed: 0 -> 3"),
    ):
        assert main(["find", *words(**changed), f"run={folder}", "resume=true"]) == 2
        assert f"was started with a different configuration ({words_of_change})" in capsys.readouterr().err
    assert (folder / "search" / "checkpoint").read_bytes() == before


def test_the_plan_of_another_budget_is_refused(
    proven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(plan=str(proven / "plan.json"), proof="true", budget__params="6k")
    assert main(["find", *given, f"run={tmp_path / 'run'}"]) == 2
    assert "is the plan of another experiment or budget" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    again = replace(PLAN, random=())
    file = plan_file(tmp_path, again)
    assert main(["find", *words(plan=str(file), proof="true"), f"run={tmp_path / 'run'}"]) == 2
    assert "has no random cells, but find.proof=true needs them" in capsys.readouterr().err

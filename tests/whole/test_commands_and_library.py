"""Every command gives the same result as the library function of the same name: one table, on the digits."""

from __future__ import annotations

import json
import math
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.cli import commands
from rapdarts.cli.commands import COMMANDS
from rapdarts.cli.main import main
from rapdarts.errors import InputError

TINY = {
    "search.layers": "[2]",
    "search.candidates": "[0]",
    "search.skip_dropout": "[0.1]",
    "search.channels": "4",
    "search.epochs": "2",
    "search.warmup_epochs": "1",
    "search.subset": "0.3",
    "search.batch": "16",
    "skeleton.layers": "3",
    "skeleton.channels": "4",
    "retrain.epochs": "1",
    "retrain.auxiliary": "0",
    "data.fraction": "0.2",
    "threads": "1",
    "seed": "3",
}
"""Settings for a search and a training that take a second each."""

FOUND = {"budget.params": "5k", "find.effort": "0.01", "find.replicas": "1"}
RANDOM = {"random.count": "2", "random.macs": "0"}
DERIVED = {"max_skips": "1", "count": "2"}
RANKED = {"rank.count": "2", "rank.epochs": "1"}
MEASURED = {"space": "nasbench201", "layers": "3", "channels": "2", "input": "1x8x8", "rounds": "4", "networks": "6"}

Row = tuple[Callable[[Path], list[str]], Callable[[Path], Any]]
"""The arguments of a command, and the result of the library for the same task, as functions of a folder that both write to."""


def words(*plain: object, **settings: str) -> list[str]:
    return [*map(str, plain), *(f"{key}={value}" for key, value in settings.items())]


ROWS: dict[str, Row] = {
    "find": (
        lambda at: words("find", "digits", **TINY, **FOUND, run=at / "cli-find"),
        lambda at: rapdarts.find("digits", {**TINY, **FOUND}, run=at / "lib-find", progress=False).report,
    ),
    "search": (
        lambda at: words("search", "digits", **TINY, run=at / "cli-search"),
        lambda at: rapdarts.search("digits", TINY, run=at / "lib-search", progress=False).report,
    ),
    "search strategy=random": (
        lambda at: words("search", "digits", **TINY, **RANDOM, strategy="random", run=at / "cli-random"),
        lambda at: rapdarts.random_baseline("digits", {**TINY, **RANDOM}, run=at / "lib-random", progress=False).report,
    ),
    "derive": (
        lambda at: words("derive", at / "search", **DERIVED),
        lambda at: rapdarts.derive(at / "search", DERIVED, progress=False).best_first(),
    ),
    "retrain": (
        lambda at: words("retrain", at / "search", epochs="2", run=at / "cli-net"),
        lambda at: rapdarts.retrain(at / "search", epochs=2, run=at / "lib-net", progress=False).report,
    ),
    "rank": (
        lambda at: words("rank", at / "search", "PDARTS", **RANKED, run=at / "cli-rank"),
        lambda at: rapdarts.rank([at / "search", "PDARTS"], RANKED, run=at / "lib-rank", progress=False).report,
    ),
    "evaluate": (
        lambda at: words("evaluate", at / "net", timing="false"),
        lambda at: rapdarts.evaluate(at / "net", timing=False).report,
    ),
    "export": (
        lambda at: words("export", at / "net", to="pt2", out=at / "cli.pt2"),
        lambda at: rapdarts.export(at / "net", "pt2", out=at / "lib.pt2").report,
    ),
    "cost": (
        lambda at: words("cost", "PDARTS", channels="8", layers="3"),
        lambda at: rapdarts.costs("PDARTS", channels=8, layers=3),
    ),
    "measure": (
        lambda at: words("measure", **MEASURED, out=at / "cli.json"),
        lambda at: rapdarts.measure("", MEASURED, out=at / "lib.json", progress=False).table.head(),
    ),
    "report": (
        lambda at: words("report", at / "search", at / "net"),
        lambda at: rapdarts.report([at / "search", at / "net"]).text,
    ),
}

FILES = {
    "find": [
        (f"cli-find/network/{name}", f"lib-find/network/{name}") for name in ("network.safetensors", "network.onnx")
    ],
    "search": [("cli-search/alphas.json", "lib-search/alphas.json")],
    "retrain": [("cli-net/network.safetensors", "lib-net/network.safetensors")],
    "rank": [("cli-rank/best.json", "lib-rank/best.json")],
}
"""Files of the command and of the library that must be identical."""

VOLATILE: dict[str, set[str]] = {
    "find": {"seconds", "step_seconds", "planned_seconds", "timing", "file", "card"},
    "search": {"seconds"},
    "search strategy=random": {"seconds"},
    "retrain": {"seconds"},
    "rank": {"seconds"},
    "export": {"sha256", "file", "bytes"},
    "measure": {"fixed_s", "scale", "check"},
}
"""Values of each row that depend on a clock or on the path of a file."""


def plain(value: Any, volatile: set[str]) -> Any:
    """Return a result as JSON would load it, without the values that differ between runs."""
    if isinstance(value, dict):
        return {key: plain(part, volatile) for key, part in value.items() if key not in volatile}
    if isinstance(value, float) and math.isnan(value):
        return None
    return [plain(part, volatile) for part in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search and a retraining that was started with the result of the search."""
    at = tmp_path_factory.mktemp("runs")
    found = rapdarts.search("digits", TINY, run=at / "search", progress=False)
    rapdarts.retrain(found, run=at / "net", progress=False)
    return at


def test_the_table_covers_every_command() -> None:
    assert {name.split()[0] for name in ROWS} == set(COMMANDS)
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert modules == set(COMMANDS)
    assert all(callable(getattr(rapdarts, {"cost": "costs"}.get(name, name))) for name in COMMANDS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.proof] if name == "find" else []) for name in ROWS]
)
def test_a_command_and_its_function_agree(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, function = ROWS[name]
    capsys.readouterr()
    as_text = name == "report"
    assert main([*command(runs), *([] if as_text else ["--json"])]) == 0
    out = capsys.readouterr().out
    by_command, by_library = out if as_text else json.loads(out), function(runs)
    if name == "cost":  # the command also lists the layers
        by_command = {resource: by_command[resource] for resource in by_library}
    assert by_command
    volatile = VOLATILE.get(name, set())
    assert plain(by_command, volatile) == plain(by_library, volatile)
    for by_cli, by_function in FILES.get(name, ()):
        assert (runs / by_cli).read_bytes() == (runs / by_function).read_bytes()


def test_results_are_accepted_by_the_next_function(runs: Path) -> None:
    found = rapdarts.derive(runs / "search", progress=False)
    assert rapdarts.read(runs / "search").cells == found.genotype.cells == rapdarts.read(found).cells
    assert rapdarts.costs(found)["macs"] == found.costs["macs"]
    assert rapdarts.export(found, "darts").content.startswith("# space: darts")
    assert sum(weight.numel() for weight in rapdarts.derived(found).parameters()) == found.costs["params"]
    trained = rapdarts.retrain(found, "digits", TINY, run=runs / "again", progress=False)
    assert rapdarts.evaluate(trained, timing=False).accuracy == trained.test.accuracy
    assert rapdarts.export(trained, "pt2").file == trained.folder / "exported.pt2"
    assert rapdarts.costs(trained) == trained.costs
    once_more = rapdarts.retrain(trained, run=runs / "once-more", progress=False)
    assert once_more.test == trained.test
    ranked = rapdarts.rank([runs / "search", found, trained], RANKED, run=runs / "ranked", progress=False)
    assert rapdarts.read(ranked).cells == ranked.genotype.cells
    assert rapdarts.load(trained)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert rapdarts.report([trained]).text.count("\n") == 3
    for shown in (found, trained):
        assert 1 <= repr(shown).count("\n") + 1 <= 12


def test_arrays_are_accepted_by_every_function(tmp_path: Path) -> None:
    """Search, rank, retrain, evaluate and export all take data from memory."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (120, 1, 8, 8), dtype=np.uint8), np.arange(120) % 3
    tiny = {**TINY, "data.fraction": "1", "search.subset": "1", "retrain.batch": "8"}
    found = rapdarts.search("digits", tiny, data=data, run=tmp_path / "search", progress=False)
    ranked = rapdarts.rank(found, {**RANKED, "retrain.batch": 8}, data=data, run=tmp_path / "rank", progress=False)
    trained = rapdarts.retrain(ranked, tiny, data=data, run=tmp_path / "net", progress=False)
    assert rapdarts.evaluate(trained, data=data, timing=False).accuracy == trained.test.accuracy
    exported = rapdarts.export(trained, "pt2", data=data)
    assert exported.report["compared_on"].endswith("test images of memory")
    with pytest.raises(InputError, match=r"refers to images passed by a program; pass them again with data="):
        rapdarts.evaluate(trained)


@pytest.mark.parametrize("given", [None, 3, ["PDARTS"], object()])
def test_values_that_are_not_networks_are_refused(given: Any) -> None:
    for function in (rapdarts.read, rapdarts.costs, rapdarts.derived, lambda one: rapdarts.retrain(one, "digits")):
        with pytest.raises(InputError, match="a network must be a genotype, a name, a file, or the folder or result"):
            function(given)
    for function in (rapdarts.load, rapdarts.evaluate):
        with pytest.raises(
            InputError, match="a trained network must be a file, or the folder or result of a retraining"
        ):
            function(given)


def test_the_files_of_a_run_are_not_overwritten(runs: Path) -> None:
    network, alphas = runs / "net" / "network.safetensors", runs / "search" / "alphas.json"
    before = network.read_bytes(), alphas.read_bytes()
    calls: list[Callable[[], Any]] = [
        lambda: rapdarts.derive(runs / "search", out=alphas),
        lambda: rapdarts.export(runs / "net", "safetensors", out=network),
        lambda: rapdarts.export(runs / "net", "pt2", out=network),
        lambda: rapdarts.export("PDARTS", out=runs / "search" / "genotype.json"),
        lambda: rapdarts.report(runs / "net", out=runs / "net" / "result.json"),
        lambda: rapdarts.measure("", MEASURED, out=alphas),
    ]
    for call in calls:
        with pytest.raises(
            InputError, match="is part of the record of a run and would be overwritten; choose another file"
        ):
            call()
    assert (network.read_bytes(), alphas.read_bytes()) == before
    copy = rapdarts.export(
        rapdarts.retrain(runs / "search", "digits", TINY, run=runs / "copied", progress=False), "safetensors"
    )
    assert copy.file == runs / "copied" / "exported.safetensors"


def test_the_state_of_torch_is_restored(runs: Path) -> None:
    threads = torch.get_num_threads()
    calls: list[Callable[[], Any]] = [
        lambda: rapdarts.evaluate(runs / "net", threads=threads + 1, timing=False),
        lambda: rapdarts.export(runs / "net", "pt2", out=runs / "left.pt2"),
        lambda: rapdarts.measure("", {**MEASURED, "threads": threads + 1}, out=runs / "left.json", progress=False),
    ]
    for call in calls:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        call()
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.rand(3), expected)


def test_a_name_that_is_also_a_folder_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lenet").symlink_to(runs / "search")
    with pytest.raises(InputError, match=r"write \./lenet for the file or folder, or LENET for the network"):
        rapdarts.costs("lenet")
    assert rapdarts.costs("LENET")["params"] != rapdarts.costs("./lenet")["params"]
    assert main(["retrain", "lenet", "--print-config"]) == 2
    assert "lenet names both a network and a file or folder here" in capsys.readouterr().err


def test_a_trained_network_is_retrained_with_the_experiment_of_its_run(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for network in (runs / "net" / "network.safetensors", runs / "net"):
        assert main(["retrain", str(network), "--print-config"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] == (runs / "net" / "config.yaml").read_text().partition("\n")[2]  # without its hash
    ranked = rapdarts.rank(runs / "search", RANKED, run=runs / "short", progress=False)
    for network in (ranked, ranked.folder):
        with pytest.raises(
            InputError, match="short is a ranking, which trains its networks only briefly; add the experiment"
        ):
            rapdarts.retrain(network)
    assert main(["retrain", str(ranked.folder), "--print-config"]) == 2


def test_empty_lists_are_refused() -> None:
    with pytest.raises(InputError, match="rapdarts report needs run folders"):
        rapdarts.report([])
    with pytest.raises(InputError, match="rapdarts rank needs the folder of a finished search"):
        rapdarts.rank([])

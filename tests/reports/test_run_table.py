"""Reports: a row for each finished run, the numbers that the run wrote, and messages for folders that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rapdarts.cli.main import main
from rapdarts.config.experiment import BudgetConfig, CostCoefficients, DataConfig, Experiment, RankConfig, SearchConfig
from rapdarts.config.key_values import save_yaml
from rapdarts.errors import DamagedError, InputError
from rapdarts.reports.run_table import COLUMNS, run_table
from tests.edited import without_remarks

COSTS = {"macs": 1_418_496, "params": 102_426, "bytes": 409_704}
ENVIRONMENT: dict[str, Any] = {"command": [], "rapdarts": "0.1.0", "threads": 4, "gpu": None}
RESULTS: dict[str, dict[str, Any]] = {
    "search": {
        "rule": "the strongest",
        "genotype": "Genotype(...)",
        "expected": {name: cost + 0.5 for name, cost in COSTS.items()},
        "priced": COSTS,
        "counted": COSTS,
        "train_accuracy": 0.8,
        "search_loss": 0.6,
        "seconds": 59.4,
    },
    "retrain": {
        "test_accuracy": 0.9875,
        "standard_error": 0.00454,
        "n": 10_000,
        "test_loss": 0.1,
        "costs": COSTS,
        "seconds": 7_199.0,
        "auxiliary_pool": "5x5",
        "best": {"test_accuracy": 0.99, "standard_error": 0.004, "n": 10_000, "test_loss": 0.1},
    },
    "random": {
        "target_macs": 0.0,
        "count": 2,
        "test_accuracy": 0.5,
        "standard_deviation": 0.015,
        "networks": [
            {"genotype": "Genotype(...)", "costs": COSTS, "test_accuracy": 0.51},
            {"genotype": "Genotype(...)", "costs": {**COSTS, "macs": 1_400_000}, "test_accuracy": 0.49},
        ],
        "seconds": 90_000.0,
        "summary": "random baseline",
    },
    "rank": {
        "count": 2,
        "validation_images": 25_000,
        "networks": [
            {"validation_accuracy": 0.9, "standard_error": 0.00123, "costs": COSTS},
            {"validation_accuracy": 0.8, "standard_error": 0.00123, "costs": {**COSTS, "macs": 1}},
        ],
        "seconds": 60.0,
    },
}
CONFIG = save_yaml(Experiment())
EVERY_VERB = pytest.mark.parametrize("verb", RESULTS)


def run_folder(folder: Path, verb: str, config: Experiment | None = None, **environment: Any) -> Path:
    """Create the parts of a run folder of this command that a report reads."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(save_yaml(config) if config else CONFIG, encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({"verb": verb, **ENVIRONMENT, **environment}), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(RESULTS.get(verb, {})), encoding="utf-8")
    return folder


def change(folder: Path, **facts: Any) -> None:
    """Change fields of the result; None removes a field."""
    result = {**json.loads((folder / "result.json").read_text(encoding="utf-8")), **facts}
    kept = {name: value for name, value in result.items() if value is not None}
    (folder / "result.json").write_text(json.dumps(kept), encoding="utf-8")


def rows(*folders: Path) -> list[dict[str, str]]:
    head, line, *body = run_table(folders)[0].splitlines()
    assert head == f"| {' | '.join(COLUMNS)} |" and set(line) == set("|- ")
    cells = [row.removeprefix("| ").removesuffix(" |").split(" | ") for row in body]
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells]


# --- contents of a row -------------------------------------------------------------------------------------------


def test_row_of_a_search(tmp_path: Path) -> None:
    settings = SearchConfig(cost=CostCoefficients(macs=0.25), budget=BudgetConfig(params=100e3))
    config = Experiment(seed=3, device="cpu", search=settings)
    folder = run_folder(tmp_path / "a", "search", config)
    assert rows(folder) == [
        {
            "run": str(folder),
            "what": "search",
            "data": "digits",
            "seed": "3",
            "settings": "pdarts, darts cost.macs=0.25 budget.params=100k",
            "params": "102,426",
            "MACs": "1,418,496",
            "test accuracy": "",
            "n": "",
            "time": "59 s",
            "machine": "CPU, 4 threads",
        }
    ]


def test_row_of_a_retraining(tmp_path: Path) -> None:
    config = Experiment(data=DataConfig("cifar10", fraction=0.1))
    (row,) = rows(run_folder(tmp_path / "a", "retrain", config, gpu="NVIDIA H200", threads=1))
    assert row["what"] == "retrain" and row["data"] == "cifar10 (0.1 of it)" and row["settings"] == "600 epochs"
    assert (row["params"], row["MACs"]) == ("102,426", "1,418,496")
    assert (row["test accuracy"], row["n"]) == ("98.75 % (95 % interval 98.51 to 98.95 %)", "10,000")
    assert (row["time"], row["machine"]) == ("2.0 h", "NVIDIA H200, 1 thread")


def test_row_of_a_random_baseline(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", "random")
    (row,) = rows(folder)
    assert row["what"] == "random baseline, N = 2"
    assert (row["params"], row["MACs"]) == ("102,426", "1,400,000 to 1,418,496")
    assert (
        row["test accuracy"]
        == "50.00 % (95 % interval 37.29 to 62.71 %, mean of 2 genotypes, standard deviation 1.41 %)"
    )
    assert row["time"] == "25.0 h"
    one = RESULTS["random"]["networks"][:1]
    (folder / "result.json").write_text(
        json.dumps({**RESULTS["random"], "count": 1, "standard_deviation": None, "networks": one}), encoding="utf-8"
    )
    (row,) = rows(folder)
    assert (row["what"], row["test accuracy"]) == ("random baseline, N = 1", "51.00 % (a single genotype)")


def test_row_of_a_ranking(tmp_path: Path) -> None:
    config = Experiment(rank=RankConfig(epochs=100))
    (row,) = rows(run_folder(tmp_path / "a", "rank", config))
    assert (row["what"], row["settings"], row["n"]) == ("rank, best of 2", "100 epochs", "25,000")
    assert row["test accuracy"] == "on held-out training images: 90.00 % (95 % interval 89.62 to 90.37 %)"
    assert (row["params"], row["MACs"]) == ("102,426", "1,418,496")


def test_row_of_a_network_found_has_the_budget_and_the_plan_of_its_run(tmp_path: Path) -> None:
    config = Experiment(search=SearchConfig(budget=BudgetConfig(macs=2e6)))
    found = run_folder(tmp_path / "a", "find", config)
    change(found, **RESULTS["retrain"], plan={"effort": 0.25, "retrain_epochs": 4})
    (row,) = rows(found)
    assert (row["what"], row["settings"]) == ("find", "pdarts, darts budget.macs=2M effort=0.25, 4 epochs")


def test_an_unused_gpu_is_not_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", "retrain", Experiment(device="cpu"), gpu="NVIDIA H200")
    assert rows(folder)[0]["machine"] == "CPU, 4 threads"


def test_rows_keep_the_given_order(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / name, verb) for name, verb in zip("cabd", RESULTS, strict=True)]
    assert [row["run"] for row in rows(*folders)] == [str(folder) for folder in folders]


def test_names_are_escaped_in_the_table(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a|b \\| <b>\nc", "retrain", gpu="G|PU")
    text, _ = run_table([folder])
    assert len(text.splitlines()) == 3
    row = text.splitlines()[2]
    assert "a\\|b \\\\\\| &lt;b> c" in row and "G\\|PU" in row
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == len(COLUMNS) + 1


# --- unreadable folders ------------------------------------------------------------------------------------------


@pytest.fixture
def any_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip reading config.yaml, which would take most of a test's time."""
    monkeypatch.setattr("rapdarts.config.resolve.experiment_of_run", lambda folder: Experiment())


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", "search")
    (folder / "result.json").unlink()
    with pytest.raises(
        InputError, match=r"a contains no finished run \(no result.json\); leave it out, or finish the run"
    ):
        run_table([folder])


def test_other_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(InputError, match="is not a run folder"):
            run_table([path])


def test_finished_runs_are_tabulated_and_other_folders_are_listed(tmp_path: Path) -> None:
    unfinished, damaged, nowhere = tmp_path / "a", tmp_path / "b", tmp_path / "nowhere"
    for folder in (unfinished, damaged):
        run_folder(folder, "search")
    (unfinished / "result.json").unlink()
    (damaged / "result.json").write_text("{}", encoding="utf-8")
    whole = [run_folder(tmp_path / name, verb) for name, verb in (("c", "search"), ("d", "retrain"))]
    text, left_out = run_table([unfinished, whole[0], damaged, nowhere, whole[1]])
    assert text == run_table(whole)[0]
    assert left_out == [
        f"{unfinished} contains no finished run (no result.json)",
        f"{damaged} is damaged ('counted' is missing)",
        f"{nowhere} is not a run folder (no config.yaml)",
    ]
    with pytest.raises(
        InputError, match=rf"^none of these 2 folders contains a finished run: {unfinished} contains .*; {nowhere} is"
    ):
        run_table([unfinished, nowhere])


def test_the_command_reports_in_one_line_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, file = run_folder(tmp_path / "a", "search"), tmp_path / "file"
    file.write_text("")
    assert main(["report", str(whole), str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == run_table([whole])[0]
    assert without_remarks(err) == f"left out: {file} is not a run folder (no config.yaml)\n"


@pytest.mark.usefixtures("any_config")
@pytest.mark.parametrize("name", ["result.json", "environment.json"])
@pytest.mark.parametrize("content", [b"", b'{"seconds": 1', b"[]", b"null", b"\xff\xfe{}", b"[" * 100_000, b"{}"])
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", "retrain")
    (folder / name).write_bytes(content)
    with pytest.raises(DamagedError, match=rf"^{tmp_path}/a.*; leave (it|the run) out, or run it again\.$"):
        run_table([folder])


def test_a_missing_environment_is_reported(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", "search")
    (folder / "environment.json").unlink()
    with pytest.raises(DamagedError, match=r"environment.json cannot be read \(No such file"):
        run_table([folder])


@pytest.mark.usefixtures("any_config")
@EVERY_VERB
def test_a_missing_field_is_reported_unless_it_is_not_needed(verb: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", verb)
    whole = run_table([folder])
    for name in RESULTS[verb]:
        change(folder, **{**RESULTS[verb], name: None})
        try:
            assert run_table([folder]) == whole
        except DamagedError as error:
            assert f"'{name}' is missing" in str(error)
    change(folder, **RESULTS[verb])
    assert run_table([folder]) == whole


@pytest.mark.usefixtures("any_config")
@pytest.mark.parametrize("value", ["many", [], {}])
@EVERY_VERB
def test_values_of_a_wrong_type_are_reported(verb: str, value: Any, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", verb)
    for name in ("seconds", {"search": "counted", "retrain": "costs", "random": "networks", "rank": "networks"}[verb]):
        change(folder, **{**RESULTS[verb], name: value})
        with pytest.raises(DamagedError, match="is damaged"):
            run_table([folder])


def test_a_run_of_an_unknown_command_is_reported(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", "dream")
    with pytest.raises(DamagedError, match="there is no command 'dream'"):
        run_table([folder])

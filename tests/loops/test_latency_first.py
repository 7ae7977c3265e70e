"""A price or a budget on latency without a table: the device is measured first, once for each run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rapdarts.cli.main import main
from rapdarts.config.command_options import MeasureConfig
from rapdarts.cost.latency import read_latency_table
from rapdarts.loops import latency_first
from tests.tiny import TINY

SAID = "latency has a price or a budget, but search.latency is not set: measuring this device first"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Measure with few rounds; return the tables that were measured."""
    measured = []
    plain = latency_first.measure_skeleton

    def measure(*arguments: Any) -> Any:
        measured.append(plain(*arguments))
        return measured[-1]

    monkeypatch.setattr(latency_first, "MeasureConfig", partial(MeasureConfig, rounds=4, networks=6))
    monkeypatch.setattr(latency_first, "measure_skeleton", measure)
    threads = torch.get_num_threads()
    yield measured
    torch.set_num_threads(threads)


def test_a_search_measures_its_deployment_skeleton_first(
    tmp_path: Path, quick: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["search", "digits", *TINY, "budget.latency=20ms", f"run={run}"]
    assert main(arguments) == 0
    (table,) = quick
    assert SAID in capsys.readouterr().err
    assert table.skeleton.channels == 4 and table.skeleton.image == (1, 8, 8) and table.threads == 1
    assert replace(read_latency_table(run / "latency.json"), where=table.where) == table
    result = json.loads((run / "result.json").read_text())
    assert 0 < result["expected"]["latency"] < 0.02
    assert any(
        note.startswith("latency is predicted by the latency table of this run, with a") for note in result["notes"]
    )

    # Resumed, it uses its own table; so does every other derivation from it.
    before = (run / "genotype.json").read_bytes()
    assert main([*arguments, "resume=true"]) == 0
    assert main(["derive", str(run), "budget.latency=19ms"]) == 0
    assert len(quick) == 1 and SAID not in capsys.readouterr().err
    assert (run / "genotype.json").read_bytes() == before

    # A folder that is taken is rejected before anything is measured.
    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err and len(quick) == 1


def test_a_price_on_latency_is_measured_too_and_a_derivation_measures_for_its_budget(
    tmp_path: Path, quick: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["search", "digits", *TINY, f"run={run}"]) == 0
    assert quick == [] and not (run / "latency.json").exists()
    capsys.readouterr()
    assert main(["derive", str(run), "budget.latency=20ms", "--json"]) == 0
    out, err = capsys.readouterr()
    assert SAID in err and len(quick) == 1
    assert 0 < json.loads(out)[0]["costs"]["latency"] < 0.02
    assert not (run / "latency.json").exists()  # a derivation does not change the run
    assert main(["search", "digits", *TINY, "cost.latency=0.2", f"run={tmp_path / 'priced'}"]) == 0
    lines = capsys.readouterr().err.splitlines()
    about = [place for place, line in enumerate(lines) if " test images, 1x8x8, 10 classes (" in line]
    assert len(about) == 1 and about[0] < next(
        place for place, line in enumerate(lines) if SAID in line
    )  # the data are described once, before anything is measured
    assert len(quick) == 2 and (tmp_path / "priced" / "latency.json").exists()


def test_a_random_baseline_measures_for_its_budget_only(tmp_path: Path, quick: list[Any]) -> None:
    keys = [*TINY[:4], "strategy=random", "random.count=1", "retrain.epochs=1", "retrain.batch=60"]
    arguments = ["search", "digits", *keys, f"run={tmp_path / 'run'}"]
    assert main([*arguments, "budget.latency=20ms"]) == 0
    assert len(quick) == 1 and (tmp_path / "run" / "latency.json").exists()
    assert main([*arguments, "budget.latency=20ms", "resume=true"]) == 0
    assert main([*arguments[:-1], "cost.latency=1", f"run={tmp_path / 'other'}"]) == 0
    assert len(quick) == 1


@pytest.mark.parametrize(
    "keys, words",
    [
        (
            ["budget.latency=20ms", "skeleton.channels=auto"],
            "skeleton.channels=auto cannot be used with a price or a budget on latency",
        ),
        (
            ["budget.latency=20ms", "precision=8"],
            "latency is measured in fp32 and cannot be combined with search.precision=8",
        ),
        (
            ["cost.latency=1", "latency_of=phone"],
            "search.latency_of=phone needs a latency table",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_first(
    keys: list[str], words: str, tmp_path: Path, quick: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "digits", *TINY, *keys, f"run={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and quick == [] and not (tmp_path / "run").exists()

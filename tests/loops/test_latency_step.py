"""`rapdarts find` with a budget on latency and no table: measuring is its first step, which may also choose the width."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cli.main import main
from rapdarts.config.command_options import MeasureConfig
from rapdarts.config.experiment import Experiment, Launch
from rapdarts.config.resolve import resolve_experiment
from rapdarts.cost.latency import Check, LatencyTable, Timing, builds_of, read_latency_table
from rapdarts.cost.prices import prices
from rapdarts.data.dataset import DataSet, load_dataset
from rapdarts.deploy import skeletons
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError, Preempted
from rapdarts.loops import finding, latency_first, latency_step
from rapdarts.loops.find import Agenda
from rapdarts.loops.latency_step import MeasuredLatency, measure_latency, width_without_latency
from rapdarts.loops.launch import searched_space
from rapdarts.strategy.budgets import average_costs
from rapdarts.training.log import Screen
from rapdarts.training.session import open_run
from tests.bits import file_sha256, weights_sha256
from tests.loops.test_find import SETTINGS, result

EACH = 7.0
"""Time of a measurement on the made-up clock, in seconds."""
CHECK = Check(20, 40, 0.001, 0.002, 0.99, 0.02, 0.05, 0.01, 0.01)


def made_up(space: SearchSpace, skeleton: Skeleton) -> LatencyTable:
    """Return the table of a device on which every primitive takes 1 µs per channel, so that latency is proportional to the width."""
    times = {build: Timing(*3 * [1e-6 * build[1]], n=10) for build in builds_of(space, skeleton)}
    facts = ("a made-up device", 1, torch.__version__, 1, "float32", "channels_last", "thread", 1.0, 0.0)
    return LatencyTable(space.name, skeleton, *facts, times, CHECK)


class Device:
    """The made-up device: it records the widths that are measured, moves the clock, and sends a signal during the n-th measurement."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.widths: list[int] = []
        self.now, self.stop_at = 0.0, 0
        patch.setattr(latency_step, "measured_table", self.measure)
        patch.setattr(latency_step, "expected_time", lambda *_: 10.0)
        patch.setattr(latency_step, "time", SimpleNamespace(monotonic=lambda: self.now))

    def measure(
        self, space: SearchSpace, skeleton: Skeleton, _device: str, _screen: Screen, pause: Any
    ) -> LatencyTable:
        self.widths.append(skeleton.channels)
        self.now += EACH
        if len(self.widths) == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        pause()
        return made_up(space, skeleton)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def setting(*pairs: str) -> tuple[Experiment, SearchSpace, DataSet]:
    """Return the experiment of the tests of find with other budgets, its space, and its data."""
    given = {**SETTINGS, "find.effort": "0.01", **dict(pair.split("=") for pair in pairs)}
    config = resolve_experiment("digits", [(key, value) for key, value in given.items() if value], "find")
    space = searched_space(config.search, named_space(config.search.space))
    return config, space, load_dataset(config.data, torch.device("cpu"), 0)


def per_channel() -> float:
    """Return the latency of the average cell of the tiny skeleton per channel of its width, in seconds."""
    config, space, data = setting("budget.latency=1s")
    skeleton = skeletons.of_experiment(config.skeleton, data.image, data.classes)
    table = prices(config.search, space, skeleton, measured=made_up(space, skeleton))
    return average_costs(table)["latency"] / skeleton.channels


def measured_in(folder: Path, *pairs: str, resume: bool = False) -> MeasuredLatency:
    """Take the step in a run folder."""
    config, space, data = setting(*pairs)
    top = width_without_latency(config, space, data)
    with open_run("find", config, Launch(run=str(folder), resume=resume), "test", {}) as run:
        return measure_latency(config, space, data, top, run, Agenda({}, run.screen))


def budget(channels: float) -> str:
    """Return the budget that the average cell of this width meets exactly, if the width is a whole number."""
    return f"budget.latency={1e6 * per_channel() * channels * (1 + 1e-9)!r}us"


def test_a_given_width_is_measured_once(tmp_path: Path, device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured_in(tmp_path / "run", budget(9))
    assert (device.widths, found.widths, found.planned, found.seconds) == ([4], (4,), 10.0, EACH)
    assert replace(read_latency_table(tmp_path / "run" / "latency.json"), where=found.table.where) == found.table
    err = capsys.readouterr().err
    assert "step 1: latency (about 10 s; the other steps are planned afterwards)" in err
    assert found.facts == {"device": "a made-up device", "channels": [4], "step_seconds": EACH}


@pytest.mark.parametrize(
    ("pairs", "latency", "widths", "planned"),
    [
        (["budget.params="], 6.1, [16, 6], 50.0),
        (["budget.params="], 100.5, [16, 64, 128, 100], 50.0),
        (["budget.params=30k"], 20, [9], 30.0),  # the other budget binds
        (["budget.params=30k"], 6.1, [9, 4, 6], 30.0),
        (["budget.params=30k"], 1.5, [9, 2], 30.0),  # the average cell fits at no width
    ],
)
def test_the_widest_network_whose_average_cell_fits(
    pairs: list[str], latency: float, widths: list[int], planned: float, tmp_path: Path, device: Device
) -> None:
    found = measured_in(tmp_path / "run", "skeleton.channels=auto", *pairs, budget(latency))
    assert (device.widths, found.widths, found.planned) == (widths, tuple(widths), planned)
    assert found.table.skeleton.channels == widths[-1]
    assert found.seconds == EACH * len(widths)


def test_a_price_alone_is_measured_at_the_width_of_the_budgets(tmp_path: Path, device: Device) -> None:
    pairs = ("skeleton.channels=auto", "budget.params=30k", "cost.latency=0.2")
    found = measured_in(tmp_path / "run", *pairs)
    assert found.widths == (9,) and found.planned == 10.0


@pytest.mark.parametrize(
    "stop_at", [pytest.param(1, marks=pytest.mark.proof), 2, pytest.param(3, marks=pytest.mark.proof)]
)
def test_a_step_that_is_stopped_measures_no_width_twice(
    stop_at: int, tmp_path: Path, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = ("skeleton.channels=auto", "budget.params=30k", budget(6.1))
    device.stop_at = stop_at
    with pytest.raises(Preempted, match="stopped by SIGTERM during the measurement of latency at "):
        measured_in(tmp_path / "run", *pairs)
    done, again = device.widths[: stop_at - 1], device.widths[stop_at - 1 :]  # the last one was not finished
    assert [*done, *again] == [9, 4, 6][:stop_at]
    device.widths, device.stop_at = [], 0
    capsys.readouterr()
    found = measured_in(tmp_path / "run", *pairs, resume=True)
    assert device.widths == [9, 4, 6][stop_at - 1 :] and found.widths == (9, 4, 6)
    assert found.seconds == 3 * EACH
    assert "step 1: latency (about 30 s; " in capsys.readouterr().err
    device.widths = []
    assert measured_in(tmp_path / "run", *pairs, resume=True).table == found.table and device.widths == []
    assert "step 1" not in capsys.readouterr().err


# --- whole runs --------------------------------------------------------------------------------------------------


def words(*pairs: str) -> list[str]:
    settings = {**SETTINGS, "find.effort": "0.01", **dict(pair.split("=") for pair in pairs)}
    return ["find", "digits", *(f"{key}={value}" for key, value in settings.items() if value)]


@pytest.mark.proof
def test_a_run_with_a_width_chosen_by_latency(
    tmp_path: Path, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    run, limit = tmp_path / "run", budget(6.1)
    arguments = words("skeleton.channels=auto", "budget.params=30k", limit)
    assert main([*arguments, f"run={run}"]) == 0
    out, err = capsys.readouterr()
    facts = result(run)
    assert facts["latency"] == {"device": "a made-up device", "channels": [9, 4, 6]}
    assert facts["steps"][0] == {"name": "latency", "planned_seconds": 30.0, "seconds": 3 * EACH}
    assert [step["name"] for step in facts["steps"][1:]] == ["search", "rank-1", "network", "export"]
    assert facts["seconds"] == pytest.approx(sum(step["seconds"] for step in facts["steps"]), abs=0.3)
    assert json.loads((run / "plan.json").read_text())["pace"]["latency"] == 30.0
    assert facts["costs"]["params"] <= 30_000 and facts["used"]["latency"] <= 1
    assert json.loads((run / "network" / "genotype.json").read_text())["skeleton"]["channels"] == 6
    lines = err.splitlines()
    for line in (
        "step 1: latency (about 30 s; the other steps are planned afterwards)",
        "skeleton.channels=6: the widest network whose average cell fits the budgets",
    ):
        assert line in lines
    assert [line.split(" (")[0] for line in lines if line.startswith("step ")][1:] == [
        f"step {number} of 5: {name}" for number, name in enumerate(("search", "rank-1", "network", "export"), 2)
    ]
    said = "latency was measured on a made-up device (widths: 9, 4, 6 channels)"
    page = (run / "report.md").read_text()
    assert said in out and f"- {said}\n" in page and "| latency | 30 s | 21 s |" in page
    assert (run / "search" / "latency.json").read_text() == (run / "latency.json").read_text()

    # A finished run is written again, without another measurement.
    before = weights_sha256(run / "network" / "network.safetensors"), file_sha256(run / "search" / "alphas.json")
    assert main([*arguments, f"run={run}", "resume=true"]) == 0
    assert device.widths == [9, 4, 6] and result(run) == facts
    assert before == (
        weights_sha256(run / "network" / "network.safetensors"),
        file_sha256(run / "search" / "alphas.json"),
    )


def test_the_given_time_includes_the_measurement(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The measurement takes 7 s on its made-up clock, and less than that on the real one."""
    spent: list[float] = []

    def refuse(_seconds: float, already: float, *_: Any) -> Any:
        spent.append(already)
        raise InputError("find.time is too short.")

    monkeypatch.setattr(finding, "fitting", refuse)
    run = tmp_path / "run"
    arguments = [*words("find.effort=", "find.time=30m", "budget.params=", budget(9)), f"run={run}"]
    assert main(arguments) == 2
    assert main([*arguments, "resume=true"]) == 2
    assert len(spent) == 2 and all(EACH <= one < EACH + 60 for one in spent) and len(device.widths) == 1
    again = f"start a new run with search.latency={run / 'latency.json'} skeleton.channels=4."
    assert capsys.readouterr().err.count(f"To change the settings without measuring latency again, {again}") == 2


def test_a_budget_on_latency_that_cannot_be_met_is_refused_after_the_measurement(
    tmp_path: Path, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([*words("budget.params=", "budget.latency=1ns"), f"run={run}"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rapdarts: error: ")]
    assert "meets latency <= 1 ns" in line
    assert line.endswith(f"start a new run with search.latency={run / 'latency.json'} skeleton.channels=4.")
    assert device.widths == [4] and not (run / "plan.json").exists()


def test_other_budgets_are_checked_before_the_measurement(
    tmp_path: Path, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words("budget.params=1", "budget.latency=20ms"), f"run={tmp_path / 'run'}"]) == 2
    assert "meets params <= 1:" in capsys.readouterr().err
    assert device.widths == [] and not (tmp_path / "run").exists()


def test_a_real_measurement_with_few_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency_first, "MeasureConfig", partial(MeasureConfig, rounds=4, networks=6))
    threads = torch.get_num_threads()
    found = measured_in(tmp_path / "run", "budget.params=", "budget.latency=20ms")
    assert torch.get_num_threads() == threads
    assert found.table.skeleton.channels == 4 and found.table.check.rounds == 4
    assert 0 < found.planned < 60 and 0 < found.seconds < 60
    assert np.all([timing.median_s >= 0 for timing in found.table.places.values()])
    assert f"on {found.table.device}" in capsys.readouterr().err

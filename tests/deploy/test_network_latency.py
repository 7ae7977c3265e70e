"""Tests of the latency of single networks: what runs, what is reported, and what is rejected."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rapdarts
from rapdarts.cli.main import main
from rapdarts.cost import measure as stopwatch
from rapdarts.deploy import network_latency
from rapdarts.deploy.network_latency import NetworkLatency

OWN = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(in_channels, 4, 3), nn.Linear(4 + 5, 2)

    def forward(self, x, more):
        return self.linear(torch.cat([self.conv(x).mean((2, 3)), more], 1))

class Fails(nn.Conv2d):
    def forward(self, x):
        if not x.is_meta:
            raise ValueError("not today.")
        return super().forward(x)

def fails():
    return Fails(3, 4, 3)

def meta():
    return nn.Conv2d(3, 4, 3, device="meta")
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in a folder with a module `own_latencies`, and restore the number of threads."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_latencies", raising=False)
    (tmp_path / "own_latencies.py").write_text(OWN)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def measured(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that measures a network and returns its JSON report."""

    def command(*arguments: str) -> dict[str, Any]:
        assert main(["measure", *arguments, "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    return command


@pytest.mark.parametrize(
    "arguments, shape",
    [
        (["PDARTS", "layers=3", "channels=4", "input=1x9x8"], [1, 9, 8]),
        (["FairDARTS_a", "layers=3", "channels=4"], [3, 32, 32]),
        (["lenet", "input=1x16x16", "classes=3"], [1, 16, 16]),
        (["own_latencies:Two", "input=2x9x8,5"], [[2, 9, 8], [5]]),
    ],
)
def test_any_network_is_measured(arguments: list[str], shape: list[Any], measured: Any, elsewhere: Path) -> None:
    state = torch.get_rng_state()
    found = measured(*arguments, "rounds=5", "batch=2")
    assert torch.equal(state, torch.get_rng_state())
    assert (found["target"], found["input"], found["batch"], found["threads"]) == (arguments[0], shape, 2, 1)
    assert (found["precision"], found["clock"], found["latency"]["n"]) == ("float32", "thread", 5)
    latency = found["latency"]
    assert 0 < latency["p10_s"] <= latency["median_s"] <= latency["p90_s"]
    assert found["images_per_second"] == 2 / latency["median_s"]
    assert [path.name for path in elsewhere.iterdir() if path.name != "__pycache__"] == ["own_latencies.py"]


class Counts(nn.Module):
    """A network that counts its calls, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3).double()
        self.seen: list[tuple[torch.Size, torch.dtype, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:
            self.seen.append((x.shape, x.dtype, self.training))
        return self.layer(x)


def test_what_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy runs in eval mode, some rounds to warm up and then those that are timed; the user's own module is unchanged."""
    copies: list[Counts] = []
    clock = iter([3.0, 1.0, 2.0, 2.0])

    def time_of(run: Any) -> float:
        run()
        copies.append(run.args[0])
        return next(clock)

    monkeypatch.setattr(network_latency, "timer", lambda device: time_of)
    network = Counts().train()
    found = rapdarts.measure(network, input="3x8x8", batch=5, rounds=4, progress=False)
    assert isinstance(found, NetworkLatency)
    assert copies[0].seen == [(torch.Size([5, 3, 8, 8]), torch.float64, False)] * (stopwatch.WARM_UP + 4)
    assert network.training and network.seen == [] and copies[0] is not network
    assert (found.timing.median_s, found.precision, found.target) == (2.0, "float64", "a Counts")
    assert repr(found).startswith(
        "a Counts: a batch of 5 of 3x8x8 takes 2 s (10th to 90th percentile of 4 rounds: 1.3 s to 2.7 s), 2 images"
    )


def test_results_and_trained_networks_are_measured(measured: Any, elsewhere: Path) -> None:
    (elsewhere / "cell.json").write_text(rapdarts.read("PDARTS").to_json())
    found = measured("cell.json", "layers=3", "channels=4", "input=1x8x8", "rounds=4")
    assert found["target"] == "cell.json"
    genotype = rapdarts.measure(rapdarts.read("PDARTS"), layers=3, channels=4, rounds=4, progress=False)
    assert isinstance(genotype, NetworkLatency) and genotype.inputs == (3, 32, 32)


@pytest.mark.parametrize(
    "line, words",
    [
        ("PDART", "there is no network 'PDART'"),
        ("digit", "there is no experiment 'digit'; the nearest is digits"),
        ("lenet networks=7", "rapdarts measure lenet does not use networks=; leave it out."),
        ("lenet out=t.json", "rapdarts measure lenet does not use out=; leave it out."),
        ("lenet layers=3", "rapdarts measure lenet does not use layers=; leave it out."),
        ("PDARTS space=darts", "rapdarts measure PDARTS does not use space=; leave it out."),
        ("lenet rounds=2", "rounds=2 is out of range; it must be 4 to 100000."),
        ("lenet input=3x", "input=3x is not an image shape"),
        ("own_latencies:Two", "missing 1 required positional argument"),
        ("own_latencies:fails", "own_latencies:fails fails when it runs: not today; fix the network or change input=."),
        ("own_latencies:meta", "own_latencies:meta cannot be copied to cpu: "),
        ("missing.json", "there is no file or folder missing.json; pass an existing path or the name of a network."),
    ],
)
def test_mistakes_are_reported_in_one_line(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err

"""The demo's own search and retraining, with the demo's own settings, on the digits that ship with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rapdarts.cli.main import main


@pytest.mark.slow
def test_the_demo_finds_and_trains_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search, network = tmp_path / "search", tmp_path / "network"
    assert main(["search", "digits", "cost.macs=0.2", "cost.bytes=0.2", "seed=0", f"run={search}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("macs", "params", "bytes", "activations", "traffic"):
        assert found["priced"][name] == found["counted"][name]
    assert found["counted"]["macs"] < 2_080_172  # what the average network of the space takes
    assert main(["retrain", str(search), "digits", "seed=0", f"run={network}", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["costs"] == found["counted"]
    assert trained["n"] == 600
    assert trained["test_accuracy"] >= 0.97

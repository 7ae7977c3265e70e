"""The search and retraining of the demo, with its own settings, on the digits that ship with the package."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rapdarts
from rapdarts.architecture.reading import read_genotype
from rapdarts.cli.main import main
from tests.bits import Machine, file_sha256, recorded, weights_sha256

GENOTYPE = (
    "Genotype(normal=[('dil_conv_3x3', 0), ('dil_conv_5x5', 1), ('max_pool_3x3', 1), ('avg_pool_3x3', 2),"
    " ('dil_conv_3x3', 0), ('avg_pool_3x3', 2), ('avg_pool_3x3', 0), ('avg_pool_3x3', 2)], normal_concat=range(2, 6),"
    " reduce=[('dil_conv_3x3', 0), ('sep_conv_5x5', 1), ('avg_pool_3x3', 0), ('avg_pool_3x3', 2), ('avg_pool_3x3', 1),"
    " ('avg_pool_3x3', 3), ('dil_conv_3x3', 1), ('dil_conv_5x5', 4)], reduce_concat=range(2, 6))"
)
BITS: dict[Machine, dict[str, str]] = {
    ("AVX512", "AuthenticAMD", "2.13.0+cpu"): {
        "alphas": "e496cf29cb13f9e513fb36704e26c1198fd7d69751c11ff7d0f7c2b106a4446d",
        "weights": "67b6562c17ece2552e75630eb71377b60d0d9e2d88a2622254519961d8ab9b06",
        "genotype": GENOTYPE,
    },
}
"""Results of rapdarts 0.1.0 by machine. Add a line only for a machine on which 0.1.0 was run."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder of both runs, and the JSON output of the two commands."""
    folder = tmp_path_factory.mktemp("demo")
    search, network = folder / "search", folder / "network"
    answers = []
    for command in (
        ["search", "digits", "cost.macs=0.2", "cost.bytes=0.2", "seed=0", f"run={search}", "--json"],
        ["retrain", str(search / "genotype.json"), "digits", "seed=0", f"run={network}", "--json"],
    ):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(command) == 0
        answers.append(json.loads(out.getvalue()))
    return folder, answers[0], answers[1]


@pytest.mark.slow
def test_the_demo_finds_and_trains_a_network(demo: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    _, found, trained = demo
    for name in ("macs", "params", "bytes", "activations", "traffic"):
        assert found["priced"][name] == found["counted"][name]
    assert found["counted"]["macs"] < 2_080_172  # the cost of the average network of the space
    assert trained["costs"] == found["counted"]
    assert trained["n"] == 600
    assert trained["test_accuracy"] >= 0.97


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the hashes are from a CPU, and the demo uses the GPU")
def test_the_demo_is_bit_identical_to_0_1_0(demo: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    folder, bits = demo[0], recorded(BITS)
    assert file_sha256(folder / "search" / "alphas.json") == bits["alphas"]
    assert read_genotype(folder / "search" / "genotype.json").cells == rapdarts.read(bits["genotype"]).cells
    assert weights_sha256(folder / "network" / "network.safetensors") == bits["weights"]

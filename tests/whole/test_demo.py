"""The commands of the README, with their own settings, on the digits that ship with the package: the demo, and its steps one by one."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import rapdarts
from rapdarts.architecture.reading import read_genotype
from rapdarts.cli.main import main
from tests.bits import Machine, file_sha256, recorded, weights_sha256
from tests.pages import ROOT, session

GENOTYPE = (
    "Genotype(normal=[('dil_conv_3x3', 0), ('avg_pool_3x3', 1), ('dil_conv_3x3', 0), ('avg_pool_3x3', 2),"
    " ('avg_pool_3x3', 1), ('dil_conv_3x3', 3), ('avg_pool_3x3', 0), ('avg_pool_3x3', 1)], normal_concat=range(2, 6),"
    " reduce=[('avg_pool_3x3', 0), ('avg_pool_3x3', 1), ('dil_conv_5x5', 1), ('max_pool_3x3', 2), ('dil_conv_5x5', 2),"
    " ('max_pool_3x3', 3), ('avg_pool_3x3', 0), ('max_pool_3x3', 3)], reduce_concat=range(2, 6))"
)
BITS: dict[Machine, dict[str, str]] = {
    ("AVX512", "AuthenticAMD", "2.13.0+cpu"): {
        "alphas": "2ae9c99724bd353c18b5347a0293077d00c5da277497563bf601076a1abaf006",
        "weights": "c0e92a3d3911e3ff5fd44fda1e5cb50aad33832c6870374af48679d03eaeba2a",
        "genotype": GENOTYPE,
    },
}
"""Results by machine, recorded on 2026-11-30. Add a line for another machine only if these pass on this one."""


NUMBER = re.compile(r"\d[\d,.]*(e[+-]\d+)?")


def masked(line: str) -> str:
    """Return a line without the parts that depend on the processor: numbers, genotypes and the width of columns."""
    line = re.sub(r"^Genotype\(.*", "Genotype(...)", line)
    return " ".join(NUMBER.sub("#", line).split())


README = list(session((ROOT / "README.md").read_text(encoding="utf-8"), "text"))
"""The commands shown in the README, in order, each with the lines of output shown after it."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """Run the README's commands in an empty folder; return its folder runs, and the printed lines by command."""
    folder, printed = tmp_path_factory.mktemp("demo"), {}
    with contextlib.chdir(folder):
        for command, _ in README:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert main(command.split()) == 0
            printed[command] = out.getvalue().splitlines()
    return folder / "runs", printed


def differences(shown: list[str], printed: list[str]) -> Iterator[str]:
    """Yield the lines of `shown` that `printed` does not have in the same place; a line of `...` stands for any number of lines."""
    rest, anywhere = [masked(line) for line in printed], False
    for line in shown:
        if line == "...":
            anywhere = True
        elif masked(line) in (rest if anywhere else rest[:1]):
            rest, anywhere = rest[rest.index(masked(line)) + 1 :], False
        else:
            yield line
    if rest and not anywhere:
        yield f"the output continues: {rest[0]}"


@pytest.mark.slow
def test_the_commands_of_the_readme_print_what_it_shows(demo: tuple[Path, dict[str, list[str]]]) -> None:
    """Compare everything except numbers and genotypes."""
    found = {command: list(differences(shown, demo[1][command])) for command, shown in README}
    assert len(found) >= 4
    assert {command: lines for command, lines in found.items() if lines} == {}


def test_differences_are_found() -> None:
    printed = ["rule: a", "macs 1,234", "params 5", "written"]
    assert list(differences(["rule: a", "...", "params 99", "written"], printed)) == []
    assert list(differences(["...", "macs 7", "..."], printed)) == []
    assert list(differences(["macs 7", "..."], printed)) == ["macs 7"]
    assert list(differences(["rule: a", "params 5", "..."], printed)) == ["params 5"]
    assert list(differences(["rule: a"], printed)) == ["the output continues: macs #"]


@pytest.mark.slow
def test_make_demo_runs_a_command_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndemo:")[1].split("\n\n")[0]
    commands = re.findall(r"\.venv/bin/rapdarts (.+)", makefile)
    assert len(commands) == 1 and set(commands) <= {command for command, _ in README}


@pytest.mark.slow
def test_the_demo_finds_a_network_that_fits_and_is_exported(demo: tuple[Path, dict[str, list[str]]]) -> None:
    found = json.loads((demo[0] / "demo" / "result.json").read_text())
    assert 90_000 <= found["costs"]["params"] <= 100_000
    assert found["n"] == 600 and found["test_accuracy"] >= 0.95
    assert (demo[0] / "demo" / "network" / "network.onnx").is_file()


@pytest.mark.slow
def test_the_steps_find_and_train_a_network(demo: tuple[Path, dict[str, list[str]]]) -> None:
    folder = demo[0] / "steps"
    found, trained = (json.loads((folder / name / "result.json").read_text()) for name in ("search", "network"))
    for name in ("macs", "params", "bytes", "activations", "traffic"):
        assert found["priced"][name] == found["counted"][name]
    assert found["counted"]["macs"] < 2_080_172  # the cost of the average network of the space
    assert trained["costs"] == found["counted"]
    assert trained["n"] == 600
    assert trained["test_accuracy"] >= 0.97


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the hashes are from a CPU, but here the demo uses the GPU")
def test_the_steps_are_bit_identical_to_the_recorded_ones(demo: tuple[Path, dict[str, list[str]]]) -> None:
    folder, bits = demo[0] / "steps", recorded(BITS)
    assert file_sha256(folder / "search" / "alphas.json") == bits["alphas"]
    assert read_genotype(folder / "search" / "genotype.json").cells == rapdarts.read(bits["genotype"]).cells
    assert weights_sha256(folder / "network" / "network.safetensors") == bits["weights"]

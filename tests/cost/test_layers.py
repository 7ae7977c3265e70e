"""Tests of `rapdarts cost`: figures from the literature, rows that add up, other conventions, user networks, spaces, and plots."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import thop
import torch
from PIL import Image
from torch import nn

import rapdarts
from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cli.main import main
from rapdarts.config.experiment import Experiment
from rapdarts.config.key_values import save_yaml
from rapdarts.cost import layers, spaces
from rapdarts.cost.count import COUNTERS, HOROWITZ_45NM, count_derived
from rapdarts.cost.expected import price_table
from rapdarts.cost.layers import LAYERS, module_of, rows_of
from rapdarts.cost.trace import trace
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.reference import REFERENCE
from rapdarts.reports import plots
from search_spaces import nasbench201
from tests.edited import without_remarks
from tests.networks.test_reference import ALEXNET

OWN = """
import torch
from torch import nn
from torch.nn import functional as F

print("imported")

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 7))

def sized(image, classes=10):
    return nn.Sequential(nn.Conv2d(image[0], 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))

def positional(shape, number):
    return sized(shape, number)

def named(num_classes, in_channels, input_size: int):
    side = nn.Conv2d(in_channels, 1, input_size)
    return nn.Sequential(side, nn.Flatten(), nn.Linear(1, num_classes))

def tupled(input_size, width=4):
    return nn.Sequential(nn.Conv2d(input_size[0], width, input_size[1:]), nn.Flatten())

def by_size(input_size=(9, 8), in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, 2, input_size), nn.Flatten())

def of_its_own(image=(1, 9, 8), num_classes=100):
    return nn.Sequential(nn.Flatten(), nn.Linear(image[0] * image[1] * image[2], num_classes))

class Two(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(in_channels, 4, 3), nn.Linear(4 + 5, 2)

    def forward(self, x, more):
        return self.linear(torch.cat([self.conv(x).mean((2, 3)), more], 1))

def picky(num_classes):
    return [][num_classes]

def scripted():
    return torch.jit.script(nn.Conv2d(3, 4, 3))

def partly_scripted():
    return nn.Sequential(nn.Flatten(), torch.jit.script(nn.Linear(3072, 4)))

def traced():
    return torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))

def exported():
    return torch.export.export(nn.Conv2d(3, 4, 3), (torch.zeros(1, 3, 8, 8),))

def exported_module():
    return exported().module()

def parallel():
    return nn.DataParallel(nn.Conv2d(3, 4, 3))

class Functional(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.weight, self.bias = nn.Parameter(torch.zeros(width, 3, 3, 3)), nn.Parameter(torch.zeros(width))
        self.inside, self.unused = nn.ModuleList([nn.Linear(width, 7)]), nn.Linear(3, 3)

    def forward(self, x):
        print("running")
        return self.inside[0](F.conv2d(self.norm(x), self.weight, self.bias).mean((2, 3)))

class Places:
    instance = Functional(2)

class Uncopied(nn.Conv2d):
    def __deepcopy__(self, memo):
        raise RuntimeError("there is only one")

    def forward(self, x):
        return super().forward(x).mean((2, 3))

def uncopied():
    return Uncopied(3, 4, 3)

def lazy():
    return nn.LazyLinear(3)

def fails():
    raise ValueError("no luck.")

def pair():
    return nn.LSTM(32, 4)

number = 3
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run commands in a folder with a module `own_networks`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    (tmp_path / "own_networks.py").write_text(OWN)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs `rapdarts cost` and returns its output."""

    def command(*arguments: str) -> str:
        code = main(["cost", *arguments])
        out, err = capsys.readouterr()
        assert code == 0, err
        assert set(without_remarks(err).split()) <= {"imported", "running"}
        return out

    return command


@pytest.fixture
def cost(run: Any) -> Any:
    """Return a function like `run` that returns the parsed output of --json."""
    return lambda *arguments: json.loads(run(*arguments, "--json"))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the count by thop, which takes most of the time."""
    monkeypatch.setattr(layers, "second_opinion", lambda network, image: "not asked")


# --- figures -----------------------------------------------------------------------------------------------------


def test_literature(cost: Any, alone: None) -> None:
    figures = {
        "NASNet": (3_830_950, 603_452_448, 457_994),
        "AmoebaNet": (3_145_078, 488_931_552, 457_994),
        "DARTS_V1": (3_169_414, 500_987_520, 476_426),
        "DARTS_V2": (3_349_342, 528_359_040, 476_426),
        "PDARTS": (3_433_798, 532_174_464, 476_426),
        "PC_DARTS_cifar": (3_634_678, 556_670_592, 476_426),
        "FairDARTS_a": (2_360_782, 371_455_200, 476_426),
        "FairDARTS_b": (3_407_878, 536_487_552, 476_426),
        "FairDARTS_c": (2_598_814, 399_987_936, 476_426),
        "FairDARTS_d": (3_365_542, 532_506_240, 476_426),
        "FairDARTS_e": (2_643_742, 414_696_672, 476_426),
        "FairDARTS_f": (3_151_054, 497_614_464, 476_426),
        "FairDARTS_g": (2_899_054, 453_376_224, 476_426),
    }
    assert list(figures) == list(LITERATURE)
    for found in cost(*figures):
        params, macs, extra = figures[found["target"]]
        assert (found["params"], found["macs"], found["bytes"]) == (params, macs, 4 * params)
        assert found["auxiliary_head"] == {"params": extra}
        assert found["skeleton"] == {"layers": 20, "channels": 36, "image": [3, 32, 32], "classes": 10, "stem": "cifar"}
        assert found["thop_macs"] is None and found["thop_error"] == "not asked"
        adds_up(found)


def test_the_conventions_of_the_literature_on_imagenet(cost: Any) -> None:
    """The network has 542.8 M MACs; the published figure, 557 M, also counts batch norms and ReLUs."""
    found = cost("PDARTS", "input=3x224x224", "classes=1000", "layers=14", "channels=48")
    assert found["macs"] == found["thop_macs"] == 542_819_328
    assert found["macs_with_bn_relu"] == 557_119_488
    assert found["skeleton"]["stem"] == "imagenet"


def test_reference_networks(cost: Any) -> None:
    figures = {
        "alexnet_two_group": (60_965_224, 665_784_864 + 58_621_952),
        "alexnet_d2l": (46_787_978, 1_005_890_688),
        "googlenet_d2l": (5_983_802, 1_581_658_112),
        "nin": (2_015_398, 830_041_864),
        "vgg11_d2l": (128_807_306, 7_605_035_008),
    }
    for found in cost(*figures):
        reference = REFERENCE[found["target"]]
        assert (found["params"], found["macs"]) == figures[found["target"]]
        assert found["thop_macs"] == found["macs"]
        assert (found["input"], found["classes"]) == (list(reference.image), reference.classes)
        assert "skeleton" not in found and "auxiliary_head" not in found
        adds_up(found)


def test_alexnet_layer_by_layer(cost: Any, alone: None) -> None:
    found = cost("AlexNet")
    rows = {row["layer"]: (row["output_bytes"] / 1024, row["weights"], row["macs"]) for row in found["layers"]}
    assert rows == ALEXNET
    first, last = found["layers"][0], found["layers"][-1]
    assert (first["shape"], first["kind"], first["biases"]) == ([64, 56, 56], "conv", 64)
    assert (last["shape"], last["kind"], last["params"]) == ([1000], "linear", 4_097_000)
    assert first["share"] == 72_855_552 / 716_767_232


def test_kinds_of_alexnet(cost: Any, alone: None) -> None:
    d2l, grouped = cost("alexnet_d2l", "alexnet_two_group")
    kinds = d2l["by_kind"]
    assert (kinds["conv"]["params"], kinds["linear"]["params"]) == (3_747_200, 43_040_778)
    assert (kinds["conv"]["macs"], kinds["linear"]["macs"]) == (962_858_112, 43_032_576)
    kinds = grouped["by_kind"]
    assert (kinds["conv"]["macs"], kinds["linear"]["macs"]) == (665_784_864, 58_621_952)
    assert kinds["linear"]["weights"] == 58_621_952
    millijoules = {kind: [1e3 * kinds[kind][of] for of in ("energy_macs", "energy_weights")] for kind in kinds}
    assert millijoules["conv"] == pytest.approx([3.06, 1.49], abs=0.005)
    assert millijoules["linear"] == [pytest.approx(0.270, abs=5e-4), pytest.approx(37.5, abs=0.05)]
    assert millijoules["other"] == [0, 0]


# --- rows --------------------------------------------------------------------------------------------------------


def adds_up(found: dict[str, Any]) -> None:
    """Check that rows and kinds add up to the totals, and that all counts are integers."""
    rows, kinds = found["layers"], found["by_kind"].values()
    for name in ("macs", "params"):
        assert sum(row[name] for row in rows) == sum(kind[name] for kind in kinds) == found[name]
    assert sum(row["output_bytes"] for row in rows) == sum(kind["output_bytes"] for kind in kinds)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert sum(kind["energy_macs"] + kind["energy_weights"] for kind in kinds) == pytest.approx(found["energy"])
    assert sum(row["weights"] for row in rows) == sum(kind["weights"] for kind in kinds)
    assert all(row["weights"] + row["biases"] <= row["params"] for row in rows)
    for name in set(COUNTERS) - {"energy"} | {"macs_with_bn_relu", "classes"}:
        assert isinstance(found[name], int)


@pytest.mark.parametrize("name", ["densenet121", "shufflenet_v1", "lenet"])
def test_rows_add_up(name: str, cost: Any, alone: None) -> None:
    image = "1x28x28" if name == "lenet" else "3x64x64"
    found = cost(name, f"input={image}", "classes=3")
    adds_up(found)
    assert all(row["layer"] and row["kind"] in LAYERS for row in found["layers"])
    assert found["layers"][-1]["shape"] == [found["classes"]] == [3]


def test_precision(cost: Any, alone: None) -> None:
    full, half = (cost("resnet18", "input=3x64x64", f"precision={bits}") for bits in (32, 16))
    for name in ("bytes", "traffic"):
        assert full[name] == 2 * half[name]
    assert full["energy"] > 2 * half["energy"]
    for name in ("macs", "params", "activations", "peak_memory"):
        assert full[name] == half[name]
    assert [row["output_bytes"] for row in full["layers"]] == [2 * row["output_bytes"] for row in half["layers"]]
    assert (full["precision"], half["precision"]) == (32, 16)
    adds_up(half)


def test_parameters_are_listed_with_the_layer_that_reads_them() -> None:
    """Batch norms belong to the row before them, or else to the first; layer norms have their own rows; unused parameters come last."""
    network = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.LayerNorm(6), nn.Flatten()
    )
    network.append(nn.Linear(144, 2, bias=False))
    network.unused = nn.Conv2d(1, 1, 1)
    network.forward = lambda x: nn.Sequential.forward(nn.Sequential(*list(network)[:7]), x)  # type: ignore[method-assign]
    rows = [
        (row.layer, row.kind, row.params, row.weights, row.biases)
        for row in rows_of(network, trace(network, (3, 8, 8)).ops)
    ]
    assert rows == [
        ("1", "conv", 6 + 112 + 8, 108, 4),
        ("4", "other", 12, 0, 0),
        ("6", "linear", 288, 288, 0),
        ("(rest)", "other", 2, 0, 0),
    ]
    only = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    assert [(row.layer, row.params) for row in rows_of(only, trace(only, (3, 8, 8)).ops)] == [("(rest)", 6)]


def test_macs_of_shared_layers_are_counted_as_often_as_they_run() -> None:
    layer = nn.Conv2d(3, 3, 1)
    network = nn.Sequential(layer, layer)
    assert [(row.params, row.macs) for row in rows_of(network, trace(network, (3, 4, 4)).ops)] == [(12, 144), (0, 144)]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_steps_of_a_recurrent_layer_are_one_row(kind: type[nn.RNNBase]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.out = kind(24, 6, batch_first=True), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.recurrent(x.transpose(1, 2).flatten(2))[0][:, -1])

    network = Twice()
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    recurrent, out = rows_of(network, trace(network, (3, 8, 8)).ops)
    assert (recurrent.layer, recurrent.kind, recurrent.params) == ("recurrent", "linear", gates * 6 * (24 + 6 + 2))
    assert recurrent.macs == 8 * gates * 6 * (24 + 6)
    assert (out.layer, out.params, out.macs) == ("out", 35, 30)


def test_module_of_a_layer() -> None:
    with torch.device("meta"):
        network = REFERENCE["googlenet"].build((3, 224, 224), 1000)
    names = {
        name: module_of(network, name)
        for name in ("inception3a.branch1.0.conv", "conv1.conv", "conv2.expand.norm", "fc")
    }
    assert list(names.values()) == ["inception3a", "conv1", "conv2.expand", "fc"]


# --- text output -------------------------------------------------------------------------------------------------


def test_text_of_one_network(run: Any) -> None:
    head, names, *lines = run("nin").splitlines()
    assert head == "nin: 3x224x224, 10 classes"
    assert names.split() == ["layer", "kind", "output", "memory", "KiB", "params", "MACs", "%", "of", "MACs"]
    table, totals = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert table[0].split() == ["mlpconv1.0", "conv", "96x54x54", "1,093.50", "34,944", "101,616,768", "12.2"]
    assert table[-1].split() == ["total", "16", "layers", *table[-1].split()[3:4], "2,015,398", "830,041,864", "100.0"]
    assert len({len(line) for line in [names, *table]}) == 1  # aligned
    assert totals[0].split() == ["nin"]
    assert [line.split()[0] for line in totals[1:]] == [*COUNTERS, "macs_with_bn_relu", "thop_macs"]
    assert totals[1].startswith("macs") and " 830,041,864  multiply-accumulates for one image" in totals[1]
    assert " 8,061,592 B  params at 32 bits" in totals[3]
    assert all(line.partition("  ")[2].strip() for line in totals[1:])


def test_many_layers_are_shown_by_module(run: Any, alone: None) -> None:
    lines = run("PDARTS", "input=1x16x16", "layers=6", "channels=4").splitlines()
    assert lines[0] == "PDARTS: 6 cells x 4 channels, 1x16x16, 10 classes, cifar stem"
    table = {line.split()[0]: line.split() for line in lines[2 : lines.index("")]}
    assert list(table) == ["stem", *(f"cells.{i}" for i in range(6)), "classifier", "total"]
    assert table["cells.0"][1:4] == ["22", "layers", "16x16x16"]
    assert sum(int(row[-3].replace(",", "")) for row in table.values()) == 2 * int(table["total"][-3].replace(",", ""))
    assert (
        " -  macs of convolution and linear modules, as counted by thop (thop.profile also counts norms and pools)"
        in lines[-2]
    )
    assert lines[-1].startswith("if retrain.auxiliary is above 0, training adds an auxiliary head with ")
    assert lines[-1].endswith(" params to PDARTS")
    everything = run("PDARTS", "input=1x16x16", "layers=6", "channels=4", "rows=all")
    assert "cells.5.edges.7.2 " in everything and everything.count("\n") > 130
    assert run("PDARTS", "input=1x16x16", "layers=6", "channels=4", "rows=none").splitlines() == [
        lines[0],
        *lines[lines.index("") + 1 :],
    ]


def test_the_auxiliary_head_of_a_run_depends_on_its_setting(run: Any, alone: None, elsewhere: Path) -> None:
    folder = elsewhere / "run"
    folder.mkdir()
    text = replace(LITERATURE["PDARTS"], skeleton=Skeleton(6, 4, (1, 16, 16), 10)).to_json()
    (folder / "genotype.json").write_text(text, encoding="utf-8")
    for weight, heads in ((0.0, 0), (0.4, 1)):
        config = replace(Experiment(), retrain=replace(Experiment().retrain, auxiliary=weight))
        (folder / "config.yaml").write_text(save_yaml(config), encoding="utf-8")
        shown = run("run", "PDARTS", "input=1x16x16", "layers=6", "channels=4", "rows=none")
        assert shown.count("auxiliary head") == heads + 1
        assert shown.splitlines()[-1].endswith(" params to PDARTS")


def test_text_of_several_networks(run: Any, alone: None) -> None:
    lines = run("lenet", "nin", "own_networks:plain").splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["lenet", "nin"]
    assert lines[2] == "own_networks:plain: 3x32x32, 7 classes"
    assert lines[3].split() == ["lenet", "nin", "own_networks:plain"]
    assert lines[4].split()[:4] == ["macs", "416,520", "830,041,864", "122,400"]
    everything = run("lenet", "nin", "rows=all")
    assert everything.count("layer ") == everything.count("\ntotal ") == 2


BENCH = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
)


def test_known_accuracies(run: Any, cost: Any, alone: None, elsewhere: Path) -> None:
    genotype = rapdarts.read(BENCH[0])
    known = {"cifar10": 0.9366, "cifar100": 0.7029, "imagenet16_120": 0.4403}
    (elsewhere / "run").mkdir()
    (elsewhere / "run" / "genotype.json").write_text(
        replace(genotype, skeleton=Skeleton(5, 8, (1, 8, 8), 10)).to_json()
    )
    (elsewhere / "cell.txt").write_text(BENCH[0])
    for name in (BENCH[0], "cell.txt", "run", "run/genotype.json"):
        assert cost(name)["known_accuracy"] == known  # at any skeleton
    assert rapdarts.costs(genotype, (1, 8, 8), channels=4).known_accuracy == known
    assert [one.get("known_accuracy") for one in cost("PDARTS", BENCH[0], "lenet")] == [None, known, None]
    for name in ("PDARTS", "lenet", "own_networks:plain"):
        assert "known_accuracy" not in cost(name) and "known_accuracy" not in run(name)
        assert rapdarts.costs(name).known_accuracy is None


def test_text_of_known_accuracies(run: Any, alone: None) -> None:
    words = (
        "test accuracy in % on CIFAR-10 / CIFAR-100 / ImageNet16-120, from NAS-Bench-201's training of the cell: 200 epochs,"
        " 15 cells + 2 residual blocks x 16 channels, mean over its seeds"
    )
    (row,) = [line for line in run(BENCH[0]).splitlines() if words in line]
    assert row == f"known_accuracy     93.66 / 70.29 / 44.03  {words}"
    lines = run(BENCH[0], "PDARTS", BENCH[1]).splitlines()
    table = [line for line in lines if line.startswith(("macs ", "thop_macs", "known_accuracy"))]
    assert table[-1] == f"known_accuracy     93.66 / 70.29 / 44.03              -  10.00 / 1.00 / 0.83  {words}"
    columns = [re.search(r"  (?=[a-z]{4})", line) for line in table]
    assert len({column.start() for column in columns if column}) == 1  # the column at which the descriptions begin


def test_a_user_space_has_no_known_accuracies(cost: Any, alone: None, elsewhere: Path) -> None:
    """A space with the same names but other primitives has none, and neither has a renamed copy; a shorter original keeps them."""
    own = dict(nasbench201.SPACE.primitives)
    own["none"], own["avg_pool_3x3"] = own["avg_pool_3x3"], own["none"]
    assert rapdarts.costs(BENCH[1], space=replace(nasbench201.SPACE, primitives=own)).known_accuracy is None
    fewer = nasbench201.SPACE.only(["none", "skip_connect"])
    assert rapdarts.costs(BENCH[1], space=fewer).known_accuracy == rapdarts.costs(BENCH[1]).known_accuracy
    (elsewhere / "mine.py").write_text(
        "from dataclasses import replace\nfrom search_spaces import nasbench201\nSPACE = replace(nasbench201.SPACE, name='mine')\n"
    )
    (elsewhere / "cell.json").write_text(replace(rapdarts.read(BENCH[0]), space="mine").to_json())
    assert "known_accuracy" not in cost("cell.json", "--space", "mine.py")


# --- user networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, keys, image, classes, params",
    [
        ("plain", (), [3, 32, 32], 7, 112 + 8 + 3600 * 7 + 7),
        ("sized", (), [3, 32, 32], 10, 112 + 50),
        ("sized", ("input=1x9x8", "classes=3"), [1, 9, 8], 3, 40 + 15),
        ("named", (), [3, 32, 32], 10, 3 * 32 * 32 + 1 + 20),
        ("named", ("input=2x5x5", "classes=4"), [2, 5, 5], 4, 2 * 25 + 1 + 8),
        ("tupled", ("input=2x5x6",), [2, 5, 6], 4, 2 * 30 * 4 + 4),
        ("by_size", (), [1, 9, 8], 2, 2 * 72 + 2),
        ("by_size", ("input=3x5x6",), [3, 5, 6], 2, 2 * 3 * 30 + 2),
        ("of_its_own", (), [1, 9, 8], 100, 7200 + 100),
        ("of_its_own", ("input=1x2x2", "classes=3"), [1, 2, 2], 3, 12 + 3),
        ("Two", ("input=3x9x8,5",), [[3, 9, 8], [5]], 2, 112 + 18 + 2),
        ("Functional", ("input=3x9x8",), [3, 9, 8], 7, 6 + 112 + 35 + 12),
        ("Places.instance", (), [3, 32, 32], 7, 6 + 56 + 21 + 12),
    ],
)
def test_user_networks(
    name: str, keys: tuple[str, ...], image: list[int], classes: int, params: int, cost: Any
) -> None:
    found = cost(f"own_networks:{name}", *keys)
    assert (found["input"], found["classes"], found["params"]) == (image, classes, params)
    assert found["target"] == f"own_networks:{name}"
    adds_up(found)


def test_thop_counts_neither_norms_nor_pools() -> None:
    """The description of `thop_macs` says so, because thop.profile counts them unless it is told otherwise."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AvgPool2d(2))
    whole = int(thop.profile(copy.deepcopy(network), (torch.zeros(1, 3, 32, 32),), verbose=False)[0])
    assert layers.second_opinion(network, (3, 32, 32)) == 3 * 9 * 4 * 30 * 30 < whole
    assert layers.CONVENTIONS["thop_macs"] == (
        "macs of convolution and linear modules, as counted by thop (thop.profile also counts norms and pools)"
    )


def test_networks_that_thop_cannot_count(cost: Any) -> None:
    functional, uncopied = cost("own_networks:Functional", "own_networks:uncopied")
    assert functional["thop_macs"] == 28 < functional["macs"]
    assert [(row["layer"], row["kind"]) for row in functional["layers"]] == [
        ("", "conv"),
        ("", "pool"),
        ("inside.0", "linear"),
        ("(rest)", "other"),
    ]
    assert uncopied["thop_macs"] is None and uncopied["thop_error"] == "RuntimeError: there is only one"
    assert uncopied["macs"] == 900 * 108


# --- the designs of a filter -------------------------------------------------------------------------------------


def test_filter_designs(cost: Any, run: Any) -> None:
    """Count AlexNet's fifth convolution in five designs."""
    found = cost("filters", "input=384x13x13", "channels=256")
    assert {
        name: tuple(design[one] for one in ("macs", "params", "bytes")) for name, design in found["designs"].items()
    } == {
        "3x3": (149_520_384, 884_736, 3_538_944),
        "5x5": (415_334_400, 2_457_600, 9_830_400),
        "3x1 + 1x3": (99_680_256, 589_824, 2_359_296),
        "5x1 + 1x5": (166_133_760, 983_040, 3_932_160),
        "1x1 to 64, 3x3": (29_073_408, 172_032, 688_128),
    }
    assert all(set(design) == set(COUNTERS) for design in found["designs"].values())
    assert (found["input"], found["outputs"]) == ([384, 13, 13], 256)
    assert cost("filters") == found
    assert "3x1 + 1x3        99,680,256" in run("filters")
    small = cost("filters", "input=2x4x5", "channels=3", "precision=8")["designs"]
    assert small["1x1 to 1, 3x3"]["macs"] == 20 * (2 + 27)
    assert small["1x1 to 1, 3x3"]["bytes"] == small["1x1 to 1, 3x3"]["params"] == 29


# --- spaces ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def darts() -> dict[str, Any]:
    """Return the JSON costs of the space `darts` at its deployment skeleton."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setattr(spaces, "BUILT", 3)
        assert main(["cost", "space=darts", "--json"]) == 0
    return dict(json.loads(printed.getvalue()))


def params_macs(found: dict[str, Any]) -> tuple[int, int]:
    return found["params"], found["macs"]


def test_extremes_and_cells_of_one_primitive(darts: dict[str, Any]) -> None:
    assert params_macs(darts["floor"]) == (1_370_134, 227_272_320)
    assert params_macs(darts["ceiling"]) == (5_144_086, 817_833_600)
    assert {name: params_macs(amounts) for name, amounts in darts["one_primitive"].items()} == {
        "max_pool_3x3": (1_370_134, 227_272_320),
        "avg_pool_3x3": (1_370_134, 227_272_320),
        "skip_connect": (1_580_950, 248_505_984),
        "sep_conv_3x3": (4_701_718, 711_665_280),
        "sep_conv_5x5": (5_144_086, 817_833_600),
        "dil_conv_3x3": (3_035_926, 469_468_800),
        "dil_conv_5x5": (3_257_110, 522_552_960),
    }
    assert darts["skeleton"] == {"layers": 20, "channels": 36, "image": [3, 32, 32], "classes": 10, "stem": "cifar"}


def test_mean_costs(darts: dict[str, Any]) -> None:
    assert round(darts["expected"]["macs"] / 1e6, 3) == 459.566
    assert round(darts["expected"]["params"] / 1e6, 3) == 2.912
    assert round(darts["plain_sum"]["macs"] / 1e6) == 583


def test_distribution_of_costs(darts: dict[str, Any]) -> None:
    """The sample has 20,000 genotypes; tolerances are about three standard errors."""
    sample = darts["sample"]
    assert (sample["n"], sample["seed"]) == (20_000, 0)
    weights, macs = ({fact: value / 1e6 for fact, value in sample[name].items()} for name in ("params", "macs"))
    assert weights["mean"] == pytest.approx(2.912, abs=0.01)
    assert weights["sd"] == pytest.approx(0.459, abs=0.007)
    assert [weights["quantile_05"], weights["quantile_95"]] == pytest.approx([2.163, 3.680], abs=0.02)
    assert macs["mean"] == pytest.approx(459.566, abs=1.6)
    assert macs["sd"] == pytest.approx(72.8, abs=1.1)
    assert sample["correlation_macs_params"] == pytest.approx(0.997, abs=5e-4)


def test_prices(darts: dict[str, Any]) -> None:
    prices = darts["prices"].items()
    assert {name: {kind: params_macs(found) for kind, found in kinds.items()} for name, kinds in prices} == {
        name: dict(zip(("normal", "reduce_stride_2", "reduce_stride_1"), figures, strict=True))
        for name, figures in {
            "none": [(0, 0)] * 3,
            "max_pool_3x3": [(0, 0)] * 3,
            "avg_pool_3x3": [(0, 0)] * 3,
            "skip_connect": [(0, 0), (26_352, 2_654_208), (0, 0)],
            "sep_conv_3x3": [(359_856, 54_743_040), *[(56_592, 5_806_080)] * 2],
            "sep_conv_5x5": [(408_240, 67_129_344), *[(63_504, 6_690_816)] * 2],
            "dil_conv_3x3": [(179_928, 27_371_520), *[(28_296, 2_903_040)] * 2],
            "dil_conv_5x5": [(204_120, 33_564_672), *[(31_752, 3_345_408)] * 2],
        }.items()
    }


@pytest.mark.parametrize("layers, params", [(5, 1_275_834), (8, 1_930_618), (11, 2_585_146), (17, 3_894_202)])
def test_supernet_params(layers: int, params: int, cost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "BUILT", 1)
    found = cost("space=darts", f"layers={layers}", "channels=16")
    assert found["supernet"] == {"params": params}


def test_text_of_a_space_with_one_kind_of_cell(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "BUILT", 2)
    lines = run("space=nasbench201").splitlines()
    assert lines[0] == "nasbench201: 17 cells x 16 channels, 3x32x32, 10 classes, cifar stem, 32 bits"
    assert lines[2].split()[:4] == ["cheapest", "genotype", "7,783,040", "73,306"]
    assert lines[3].split()[:5] == ["most", "expensive", "genotype", "220,119,680", "1,531,546"]
    assert any(line.startswith("nor_conv_1x1 only ") and " 241,306 " in line for line in lines)
    assert any(line.startswith("nor_conv_3x3, normal ") for line in lines)
    assert not any("reduce" in line for line in lines)
    assert any(line.startswith("peak memory: ") and line.endswith("in 2 random networks") for line in lines)


def test_a_user_space(cost: Any, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "BUILT", 1)
    (elsewhere / "mine.py").write_text(
        "from rapdarts.networks.primitives import choose\nfrom rapdarts import SearchSpace\n"
        'SPACE = SearchSpace("mine", choose("none", "skip_connect"), nodes=1)\n'
    )
    found = cost("--space", "mine.py", "layers=3", "channels=4", "precision=16")
    assert found["space"] == "mine" and found["floor"] == found["ceiling"]
    assert found["sample"]["correlation_macs_params"] is None
    assert list(found["prices"]["skip_connect"]) == ["normal", "reduce_stride_2"]


def every_genotype(space: SearchSpace) -> list[Genotype]:
    """Return all genotypes of a small space."""
    primitives = [name for name in space.primitives if space.derive_none or name != "none"]
    nodes = []
    for node in range(space.nodes):
        pairs = list(itertools.product(primitives, range(space.inputs + node)))
        drawn = itertools.combinations(pairs, space.edges_kept(node))
        nodes.append([edges for edges in drawn if len({source for _, source in edges}) == len(edges)])
    cells = [Cell(space.inputs, choice, space.outputs) for choice in itertools.product(*nodes)]
    kinds = itertools.product(cells, repeat=len(space.kinds))
    return [Genotype(space.name, dict(zip(space.kinds, choice, strict=True))) for choice in kinds]


@pytest.mark.parametrize("keep", [1, 2, None])
def test_extremes_match_an_enumeration_of_all_genotypes(keep: int | None) -> None:
    space = named_space("darts").only(["none", "max_pool_3x3", "dil_conv_3x3"])
    space = replace(space, nodes=2, keep=keep, candidates=())
    table = price_table(space, Skeleton(3, 2, (3, 8, 8), 10))
    costs = np.array([list(table.exact(genotype).values()) for genotype in every_genotype(space)])
    assert spaces.extreme(table, most_expensive=False) == pytest.approx(costs.min(0), rel=1e-12)
    assert spaces.extreme(table, most_expensive=True) == pytest.approx(costs.max(0), rel=1e-12)
    drawn = spaces.drawn_costs(table, 4000, np.random.default_rng(0))
    assert set(drawn[:, 0]) == set(costs[:, 0])
    assert np.abs(drawn.mean(0) - costs.mean(0)).max() == pytest.approx(
        0, abs=5 * (drawn.std(0) / math.sqrt(4000)).max()
    )


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_peak_of_few_layers_equals_that_of_many(name: str) -> None:
    space = named_space(name)
    for seed in range(2):
        skeleton = Skeleton(13 + seed, 4, (3, 16, 16), 10)
        genotype = random_genotype(space, np.random.default_rng(seed))
        expected = count_derived(genotype, space, skeleton)["peak_memory"]
        assert spaces.peak_of_random(space, skeleton, np.random.default_rng(seed)) == expected


# --- plots -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, start", [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")])
def test_plot(name: str, start: bytes, run: Any, alone: None, elsewhere: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    words = run(*["lenet", "own_networks:plain"][: 1 + name.endswith("png")], f"plot={name}")
    assert words.endswith(f"\nwritten to {name}\n")
    assert (elsewhere / name).read_bytes().startswith(start)
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    assert {path.name for path in elsewhere.iterdir()} <= {name, "own_networks.py", "__pycache__"}
    if start == b"<?xml":
        assert "output memory, KiB" in (elsewhere / name).read_text()


def test_a_plot_of_very_many_layers() -> None:
    many = plots.Panels("many", [f"layer{i}" for i in range(250)], {"a": range(250), "b": [0] * 250})
    none = plots.Panels("none", [], {"a": [], "b": []})
    (Path("many.png")).write_bytes(plots.draw_bars([many, none], ".png"))
    with Image.open("many.png") as image:
        assert image.width < 6000 and image.height < 2000


# --- user errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, words",
    [
        ("", "rapdarts cost needs a network, or space=NAME; see rapdarts cost --help."),
        (
            "alexnett",
            "there is no network 'alexnett': it is neither a file, package.module:callable nor a known name; the nearest is alexnet.",
        ),
        ("pdart", "the nearest is PDARTS."),
        (
            ".",
            ". has no genotype.json: its search has not finished, or it is not a run folder; pass the folder of a finished run.",
        ),
        ("own_networks:fails", "own_networks:fails cannot be built: ValueError: no luck; fix the code or its name."),
        (
            "own_networks:nothing",
            "own_networks:nothing cannot be built: AttributeError: module 'own_networks' has no attribute 'nothing'",
        ),
        (
            "no_networks:plain",
            "no_networks:plain cannot be built: ModuleNotFoundError: No module named 'no_networks'; fix the code or its name.",
        ),
        (
            "own_networks:number",
            "own_networks:number returns a value of type int; return a network (torch.nn.Module).",
        ),
        ("own_networks:lazy", "own_networks:lazy has lazy layers without weights; run it on an image first."),
        (
            "own_networks:positional",
            "own_networks:positional takes shape and number, but only arguments named image, input_size, in_channels, classes or"
            " num_classes are filled in; add defaults, or pass a function without arguments that returns the network.",
        ),
        (
            "own_networks:named input=3x9x8",
            "own_networks:named takes input_size as a single number, but input=3x9x8 is not square; let it take a tuple.",
        ),
        (
            "own_networks:tupled input=0x3",
            "input=0x3 is not the shape of an input; write CxHxW, such as 3x32x32, or 3x32x32,5",
        ),
        ("own_networks:tupled input=3x32x32,", "input=3x32x32, is not the shape of an input; write CxHxW"),
        ("own_networks:tupled input=3", "layer 0 (Conv2d) fails on an input of 3: Expected 3D (unbatched) or 4D"),
        (
            "own_networks:picky",
            "own_networks:picky cannot be built (called with num_classes=10): IndexError: list index out of range; fix the code",
        ),
        (
            "own_networks:Two",
            "missing 1 required positional argument: 'more'. Pass an input of another shape (input=CxHxW, or input=CxHxW,N for two"
            " inputs; in Python, image=(C, H, W), or image=((C, H, W), (N,))), or fix the network.",
        ),
        ("own_networks:Two input=3x9x8,6", "layer linear (Linear) fails on inputs of 3x9x8,6: "),
        ("PDARTS input=3x32x32,5", "input=3x32x32,5 is not an image shape; write CxHxW, such as 3x32x32."),
        (
            "own_networks:scripted",
            "own_networks:scripted is scripted, so its layers cannot be counted; pass the original module, not the"
            " result of torch.jit.script or torch.jit.trace.",
        ),
        (
            "own_networks:partly_scripted",
            "the layer 1 of own_networks:partly_scripted is scripted, so its layers cannot be",
        ),
        (
            "own_networks:traced",
            "own_networks:traced is scripted, so its layers cannot be counted; pass the original module",
        ),
        (
            "own_networks:exported",
            "own_networks:exported is an exported program, whose layers cannot be counted; pass the module that was exported.",
        ),
        (
            "own_networks:exported_module",
            "own_networks:exported_module is an exported program, whose layers cannot be counted",
        ),
        (
            "own_networks:parallel",
            "own_networks:parallel is wrapped in DataParallel; pass the wrapped network, its module attribute.",
        ),
        ("own_networks:pair", "the network (LSTM) "),
        ("own_networks:plain input=3x40x40", "layer 4 (Linear) fails on an image of 3x40x40: "),
        ("own_networks:plain classes=3", "rapdarts cost own_networks:plain does not use classes=; leave it out."),
        (
            "own_networks:sized nin layers=3",
            "rapdarts cost own_networks:sized nin does not use layers=; leave it out.",
        ),
        ("alexnet input=3x20x20", "alexnet cannot take an image of 3x20x20"),
        ("nin space=darts", "rapdarts cost nin does not use space=; leave it out."),
        ("nin input=3x", "input=3x is not an image shape; write CxHxW, such as 3x32x32."),
        ("nin precision=7", "precision cannot be 7; choose from 0, 32, 16, 8."),
        ("nin plot=a.gif", "plot=a.gif is not an image file; use a path that ends in one of .png, .svg, .pdf."),
        ("nin plot=.png", "plot=.png is not an image file; use a path that ends in one of "),
        (
            "nin plot=missing/a.png",
            "plot=missing/a.png: there is no folder missing; create it first, or choose another path.",
        ),
        ("filters layers=3", "rapdarts cost filters does not use layers=; leave it out."),
        ("filters nin", "rapdarts cost got an unexpected argument 'nin'"),
        ("space=dartz", "there is no search space 'dartz'; the nearest is darts (choose from "),
        ("space=darts plot=a.png", "rapdarts cost space=darts does not use plot=; leave it out."),
        (
            "PDARTS --space mine.py",
            "PDARTS: cell normal, node 0, edge 1: the space mine has no primitive 'dil_conv_3x3'; ",
        ),
        (
            "foreign.json",
            "foreign.json: cell normal, node 0, edge 0: the space darts has no primitive 'sep_conv_7x7'; the nearest is sep_conv_5x5",
        ),
    ],
)
def test_mistakes_are_reported_in_one_line(
    line: str, words: str, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    (elsewhere / "mine.py").write_text(
        "from rapdarts.networks.primitives import choose\nfrom rapdarts import SearchSpace\n"
        'SPACE = SearchSpace("mine", choose("none", "skip_connect"))\n'
    )
    foreign = LITERATURE["PDARTS"].to_json().replace('"skip_connect"', '"sep_conv_7x7"')
    (elsewhere / "foreign.json").write_text(foreign)
    assert main(["cost", *line.split()]) == 2
    out, err = capsys.readouterr()
    message = err.replace("imported\n", "").replace("running\n", "")
    assert out == "" and message.count("\n") == 1 and len(message) < 1000
    assert message.startswith("rapdarts: error: ") and words in message
    assert not list(elsewhere.glob("*.png"))


# --- any network -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Convolution:
    """A minimal CountedNetwork."""

    name: str = "one convolution"
    image: tuple[int, int, int] = (3, 8, 8)
    classes: int = 0

    def build(self) -> nn.Module:
        return nn.Conv2d(3, 5, 1)


def test_network_costs_accept_any_counted_network() -> None:
    skeleton = Skeleton(3, 4, (3, 8, 8), 5)
    plain = layers.network_costs(Convolution(), 16, HOROWITZ_45NM).to_json()
    assert (plain["target"], plain["input"], plain["classes"]) == ("one convolution", (3, 8, 8), 5 * 64)
    assert (plain["params"], plain["bytes"], plain["macs"]) == (20, 40, 3 * 5 * 64)
    assert "skeleton" not in plain and "auxiliary_head" not in plain
    shown = layers.network_costs(Convolution(), 16, HOROWITZ_45NM, skeleton=skeleton, auxiliary=7).to_json()
    assert shown == {**plain, "skeleton": vars(skeleton), "auxiliary_head": {"params": 7}}


def test_a_layer_on_tokens_shows_all_its_output() -> None:
    """PyTorch runs a linear layer on the tokens of one image as on a batch."""
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Linear(64, 5), nn.Linear(5, 6))
    rows = rows_of(network, trace(network, (3, 32, 32)).ops)
    assert [(row.layer, row.shape, row.output) for row in rows] == [
        ("0", (8, 8, 8), 512),
        ("2", (8, 5), 40),
        ("3", (8, 6), 48),
    ]

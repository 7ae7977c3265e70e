"""Genotypes and networks of other programs in the commands: counted, trained, exported, or rejected with what to pass instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rapdarts
from rapdarts.architecture.literature import LITERATURE
from rapdarts.cli.main import main
from rapdarts.errors import InputError
from tests.architecture.corpus import REPEATED, WITH_NONE, G, call, file_of_many
from tests.edited import without_remarks
from tests.pages import ROOT, session

RUNS = Path(__file__).with_name("runs_0_1_0")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *command: str, code: int = 2) -> str:
    capsys.readouterr()
    assert main([*command]) == code
    out, err = capsys.readouterr()
    err = without_remarks(err)
    assert out == "" and err.startswith("rapdarts: error: ") and err.endswith(".\n") and err.count("\n") == 1
    return err.removeprefix("rapdarts: error: ").rstrip("\n")


# --- counted, exported and trained -------------------------------------------------------------------------------

G_COMPACT = (
    "(((0, 3), (1, 6), (0, 2), (2, 3), (1, 4), (0, 0), (4, 3), (1, 2)),"
    " ((0, 0), (1, 0), (0, 0), (2, 2), (3, 2), (0, 5), (2, 2), (0, 0)))"
)
NASNET = LITERATURE["NASNet"].to_darts()
NASNET_COUNTS = 3_830_950, 603_452_448
AS_COMMAND = {
    "G": (call(G), G.params, G.macs),
    "G as a compact tuple": (G_COMPACT, G.params, G.macs),
    "none is the missing edge": (call(WITH_NONE), G.params, G.macs),
    "an input twice is two modules": (call(REPEATED), 3_450_214, 549_841_536),
    "five nodes need no header": (NASNET, *NASNET_COUNTS),
}


@pytest.mark.parametrize("case", AS_COMMAND)
def test_a_text_is_counted(case: str) -> None:
    text, params, macs = AS_COMMAND[case]
    Path("cell.txt").write_text(text)
    found = rapdarts.costs("cell.txt")
    assert (found["params"], found["macs"]) == (params, macs)
    assert rapdarts.read(text) == rapdarts.read("cell.txt")


def test_a_text_is_counted_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "cost", G_COMPACT)
    assert (found["params"], found["macs"], found["target"]) == (G.params, G.macs, "the genotype")


def test_one_of_many_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("genotypes.py").write_text(file_of_many())
    names = ("genotypes.py:LATER", "genotypes.py:LIGHT", "genotypes.py:8")
    found = answer(capsys, "cost", *names, "layers=3", "channels=4")
    assert [one["target"] for one in found] == [*names] and found[1]["params"] == found[2]["params"] != found[0][
        "params"
    ]
    listed = "9 genotypes: LIGHT (line 8), "
    assert f"genotypes.py contains {listed}" in refusal(capsys, "cost", "genotypes.py")
    assert f"genotypes.py has no genotype NASNET; it contains {listed}" in refusal(
        capsys, "cost", "genotypes.py:NASNET"
    )
    assert refusal(capsys, "cost", "models.py:NASNET").startswith("there is no file or folder models.py; ")
    overwritten = refusal(capsys, "export", "genotypes.py:LIGHT", "out=genotypes.py")
    assert "is an input of this command and would be overwritten" in overwritten
    untrained = refusal(capsys, "evaluate", "genotypes.py:LIGHT")
    assert "genotypes.py:LIGHT has a genotype but no weights; train it first" in untrained


def test_a_text_that_is_no_genotype_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "and it contains no genotype; supported formats are rapdarts JSON, Genotype(...)" in refusal(
        capsys, "cost", "f(x)"
    )
    assert "and it contains no genotype" in refusal(capsys, "retrain", "[1, 2]", "digits")


@pytest.mark.parametrize("cells", [REPEATED, WITH_NONE], ids=["repeated", "none"])
def test_a_cell_that_no_search_would_choose_is_trained_tested_and_exported(
    cells: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cell.txt").write_text(call(cells))
    tiny = (
        "retrain.epochs=1",
        "retrain.warmup_epochs=0",
        "skeleton.layers=3",
        "skeleton.channels=4",
        "fraction=0.1",
        "threads=1",
    )
    trained = answer(capsys, "retrain", "cell.txt", "digits", *tiny, "run=net")
    tested = answer(capsys, "evaluate", "net", "timing=false")
    assert tested["test_accuracy"] == trained["test_accuracy"]
    assert tested["costs"]["params"] == answer(capsys, "cost", "net")["params"]
    network = rapdarts.load("net")
    built = rapdarts.derived("cell.txt", channels=4, layers=3, image=(1, 8, 8))
    assert sum(weight.numel() for weight in network.parameters()) == sum(
        weight.numel() for weight in built.parameters()
    )
    assert main(["export", "cell.txt", "to=svg", "out=cell.svg"]) == 0
    assert main(["export", "net", "to=safetensors", "out=copy.safetensors"]) == 0


def test_an_input_that_is_used_twice_adds_both_outputs() -> None:
    """The two modules of the repeated input have their own weights, and the node is the sum of their outputs."""
    torch.manual_seed(0)
    network = rapdarts.derived(call(REPEATED), channels=4, layers=3, image=(3, 8, 8)).eval()
    cell = network.cells[0]  # a normal cell
    older, newer = torch.rand(2, 2, 12, 8, 8)
    first, second = cell.edges[6], cell.edges[7]
    assert not torch.equal(first[0][1].weight, second[0][1].weight)
    state = cell.newer(newer)
    torch.testing.assert_close(cell(older, newer)[:, -4:], first(state) + second(state))


# --- spaces ------------------------------------------------------------------------------------------------------

MINE = """
from torch import nn
from rapdarts import SearchSpace, choose

def sep_conv_3x3(channels, stride, affine):
    return nn.Conv2d(channels, channels, 1, stride, bias=False)

NAMES = ("skip_connect", "max_pool_3x3", "avg_pool_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
SPACE = SearchSpace("mine", {**choose(*NAMES), "sep_conv_3x3": sep_conv_3x3})
"""


def test_the_space_file_is_taken_at_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a header and with one, and where JSON names another space: the primitives are those of the file."""
    Path("mine.py").write_text(MINE)
    Path("cell.txt").write_text(call(G))
    Path("named.txt").write_text(f"# space: darts\n{call(G)}")
    assert main(["export", "cell.txt", "out=cell.json"]) == 0
    # On each of the three edges of the 18 normal cells, a 1x1 convolution takes the place of the primitive of 359,856 parameters.
    convolutions = 6 * 36**2 + 6 * 72**2 + 6 * 144**2
    expected = G.params - 3 * 359_856 + 3 * convolutions
    for name in ("named.txt", "cell.json"):
        assert rapdarts.costs(name, space=Path("mine.py"))["params"] == expected
    assert answer(capsys, "cost", "cell.txt", "--space", "mine.py")["params"] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NASNet", "nasnet"),
        ("AmoebaNet", "nasnet"),
        ("PDARTS", "darts"),
        ("FairDARTS_a", "darts"),
        ("DARTS_V2", "darts"),
    ],
)
def test_the_shipped_space_that_fits_is_found(name: str, expected: str) -> None:
    read = rapdarts.read(LITERATURE[name].to_darts())
    assert read.space == expected and read.cells == LITERATURE[name].cells


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("sep_conv_3x3", "conv_5x5", "filters"),
        ("dil_conv_5x5", "sep_conv_7x7", "nasnet"),
        ("sep_conv_3x3", "none", "darts"),
    ],
)
def test_the_space_is_found_by_the_primitives(old: str, new: str, expected: str) -> None:
    text = (
        call(G)
        .replace("dil_conv_3x3", "skip_connect")
        .replace("dil_conv_5x5", "sep_conv_5x5" if old != "dil_conv_5x5" else new)
    )
    assert rapdarts.read(text.replace(old, new)).space == expected
    assert rapdarts.read(text, space="other").space == "other"


def test_primitives_of_several_spaces_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    text = call(G).replace("sep_conv_3x3", "conv_3x3").replace("sep_conv_5x5", "sep_conv_7x7")
    assert "the space darts has no primitive 'conv_3x3'; " in refusal(capsys, "cost", text)


# --- files that are asked for a network --------------------------------------------------------------------------


@pytest.fixture
def runs(folder: Path) -> Path:
    shutil.copytree(RUNS, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "alphas.json", "config.yaml", "result.json", "environment.json", "status.json"]
)
def test_records_of_a_run_are_no_genotypes(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"search/{name} is a record of a run and contains no genotype to build; the genotype of this run is in search/genotype.json."
    for command in (("cost",), ("export",)):
        assert refusal(capsys, *command, f"search/{name}") == words
    assert refusal(capsys, "retrain", f"search/{name}", "digits") == words


@pytest.mark.parametrize("name", ["README.md", "metrics.jsonl", "config.yaml"])
def test_a_file_beside_a_genotype_names_it(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("alone").mkdir()
    shutil.copy("search/genotype.json", "alone/genotype.json")
    for folder, words in (
        ("alone", "; the genotype of this run is in alone/genotype.json."),
        (".", "; supported formats are "),
    ):
        Path(folder, name).write_text("# Results\n\nThe log of 5 epochs.\n")
        error = refusal(capsys, "cost", f"{folder}/{name}")
        assert "contains no genotype" in error and words in error


def test_files_of_many_genotypes_are_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "cost", "rank/ranking.json")
    assert "rank/ranking.json contains 2 genotypes: 0.genotype, 1.genotype; select one of them" in error
    assert (
        answer(capsys, "cost", "rank/ranking.json:0.genotype")["params"]
        == answer(capsys, "cost", "rank")["params"]
        == 1884
    )


def write_onnx(file: str, *more: tuple[str, str]) -> None:
    """Write a network of 1 x 8 x 8 pixels: a 3x3 convolution to 2 channels, their means, and a linear layer to 10 classes.

    `more` are further operators of the maps, each with the name of its node.
    """
    from onnx import TensorProto, helper, numpy_helper, save

    shapes = {"kernel": (2, 1, 3, 3), "bias": (2,), "matrix": (2, 10), "offset": (10,)}
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel", "bias"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["rows"]),
        helper.make_node("Gemm", ["rows", "matrix", "offset"], ["logits"]),
        *(helper.make_node(operator, ["maps"], [name], name=name) for operator, name in more),
    ]
    ends = {"pixels": ["n", 1, 8, 8], "logits": ["n", 10]}
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends.items())
    save(helper.make_model(helper.make_graph(nodes, "net", inputs, outputs, weights)), file)


def test_networks_are_taken_as_folders_and_files(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        answer(capsys, "cost", "network")["macs"]
        == answer(capsys, "cost", "network/network.safetensors")["macs"]
        == 24_128
    )
    assert (
        answer(capsys, "cost", "rank/trained/1")["macs"]
        == answer(capsys, "cost", "rank/trained/1/network.safetensors")["macs"]
    )
    assert (
        refusal(capsys, "evaluate", "rank")
        == "rank is a ranking, whose networks are in rank/trained; pass the folder of one, such as rank/trained/1."
    )
    assert "search has a genotype but no weights; train it first" in refusal(capsys, "evaluate", "search")


def test_an_onnx_file_is_counted_and_evaluated_only(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    write_onnx("net.onnx")
    expected = {"macs": 18 * 64 + 20, "params": 20 + 30, "bytes": 4 * 50}
    assert rapdarts.costs("net.onnx") == expected
    found = answer(capsys, "cost", "net.onnx", "lenet")
    assert found[0] == {
        "target": "net.onnx",
        **expected,
        "input": [1, 8, 8],
        "classes": 10,
        "not_counted": {},
        "layers": [],
    }
    assert found[1] == answer(capsys, "cost", "lenet")
    assert main(["cost", "net.onnx"]) == 0
    _, _, *table, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["macs", "params", "bytes"]
    assert table[2].endswith("  size of the weights as stored in the file")
    assert last == "net.onnx is an ONNX graph: its other costs are not counted"
    assert main(["cost", "net.onnx", "lenet", "precision=8"]) == 0
    table = capsys.readouterr().out.splitlines()[3:]
    names = [line.split()[0] for line in table]
    assert table[names.index("bytes")].endswith(
        "  params at 8 bits; of an ONNX file: size of the weights as stored in the file"
    )
    assert table[names.index("energy")].split()[1] == "-"
    assert "net.onnx is an ONNX graph: its other costs are not counted" in table
    write_onnx("more.onnx", ("Det", "volume"), ("Det", "again"))
    assert answer(capsys, "cost", "more.onnx")["not_counted"] == {"Det": ["volume", "again"]}
    assert rapdarts.costs("more.onnx") == expected and rapdarts.costs("more.onnx").not_counted == {
        "Det": ["volume", "again"]
    }
    assert main(["cost", "more.onnx"]) == 0
    assert "not counted in the macs of more.onnx (no formula): Det in " in capsys.readouterr().out
    words = "more.onnx is an ONNX file, which rapdarts measure does not run; use rapdarts evaluate more.onnx EXPERIMENT (in Python,"
    words += " rapdarts.evaluate) instead."
    assert refusal(capsys, "measure", "more.onnx") == words
    useless = refusal(capsys, "cost", "net.onnx", "classes=3")
    assert useless == "rapdarts cost net.onnx does not use classes=; leave it out."
    for command in (("export", "net.onnx"), ("retrain", "net.onnx", "digits")):
        words = "net.onnx is an ONNX file, and rapdarts cannot read a genotype from it; pass the run folder"
        assert words in refusal(capsys, *command)
    words = "net.onnx is an ONNX file, which works only with rapdarts evaluate and rapdarts cost; pass the run folder of its"
    assert words in refusal(capsys, "export", "net.onnx", "to=pt2", "out=net.pt2")
    with pytest.raises(InputError, match="works only with rapdarts evaluate and rapdarts cost"):
        rapdarts.load("net.onnx")


BINARY = {
    "weights.pt": "weights.pt is a binary file and contains no genotype: rapdarts reads genotypes from text; rapdarts derive FILE ",
    "alphas.npz": "alphas.npz is a binary file and contains no genotype: rapdarts reads genotypes from text; rapdarts derive FILE ",
    "net.pte": "net.pte is a binary file and contains no genotype: it is for another runtime; pass the run folder of the network, or its",
    "picture.png": "picture.png is a binary file, not text.",
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_files_are_called_binary(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.endswith(".pt"):
        torch.save({"weight": torch.rand(3)}, name)
    elif name.endswith(".npz"):
        np.savez(name, normal=np.zeros((14, 8)))
    else:
        Path(name).write_bytes(b"\x89ET12\xff\0\0\0\r\n\x1a\n")
    for command in (("cost", name), ("retrain", name, "digits"), ("export", name)):
        assert refusal(capsys, *command).startswith(BINARY[name])
    assert name in refusal(capsys, "evaluate", name)


@pytest.mark.parametrize("name", ["foreign.onnx", "foreign.safetensors"])
def test_damaged_networks_are_called_damaged(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_bytes(b"\x89not a network\0\0")
    for command in (("cost", name), ("evaluate", name, "digits")):
        assert "or is damaged" in refusal(capsys, *command, code=4)


# --- the examples of the pages -----------------------------------------------------------------------------------


def test_the_pages_show_what_the_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    """The examples of docs/export.md and docs/search.md that read files of other programs."""
    names = [f"{name} = {LITERATURE[name].to_darts()}" for name in ("DARTS_V1", "DARTS_V2")]
    definition = 'Genotype = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")'
    Path("genotypes.py").write_text(
        "\n".join(["from collections import namedtuple", "", definition, "", *names, "DARTS = DARTS_V2"])
    )
    rng = np.random.default_rng(0)
    np.savez("alphas.npz", alphas_normal=rng.normal(size=(14, 8)), alphas_reduce=rng.normal(size=(14, 8)))
    shown = [
        (command, lines)
        for page in ("export", "search")
        for command, lines in session((ROOT / f"docs/{page}.md").read_text(encoding="utf-8"), "text")
        if "genotypes.py" in command or "alphas.npz" in command
    ]
    assert len(shown) == 3
    for command, lines in shown:
        main(command.split())
        out, err = capsys.readouterr()
        printed = (out or err).splitlines()
        assert [line for line in lines if line != "..." and line not in printed] == []

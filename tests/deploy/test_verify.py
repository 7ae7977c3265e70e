"""Exported networks: every format opens without rapdarts and agrees with PyTorch, and failures are reported in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype
from rapdarts.cli.main import main
from rapdarts.config.experiment import DataConfig
from rapdarts.cost.quantized import bytes_in_int8_file
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy import runtimes as shipped
from rapdarts.deploy import verify
from rapdarts.deploy.model_card import history_of
from rapdarts.deploy.model_file import deployed, read_trained
from rapdarts.deploy.onnx import onnx_facts, onnx_network
from rapdarts.deploy.runtimes import Facts
from rapdarts.deploy.verify import RUNTIMES, agreement
from rapdarts.errors import DamagedError, InputError, RapdartsError, installation
from rapdarts.training.intervals import percent, wilson
from search_spaces.darts import SPACE

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ["threads=1", "skeleton.layers=3", "skeleton.channels=4", "retrain.epochs=1"]
ErrorLine = Callable[..., str]
Values = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a small network of cells, trained on the digits for one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "net"
    assert main(["retrain", "PDARTS", "digits", *SETTINGS, f"run={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a reference network, trained on noise that is no longer at its path."""
    folder = tmp_path_factory.mktemp("lenet")
    noise = np.random.default_rng(0).integers(0, 256, (60, 16, 16), np.uint8)
    np.savez(folder / "noise.npz", x=noise, y=np.arange(60) % 3)
    (folder / "noise.yaml").write_text(
        f"data:\n  name: npz\n  path: {folder / 'noise.npz'}\nretrain:\n  batch: 20\n  epochs: 1\n"
    )
    assert main(["retrain", "lenet", str(folder / "noise.yaml"), "threads=1", f"run={folder / 'run'}"]) == 0
    (folder / "noise.npz").rename(folder / "moved.npz")
    return folder / "run"


@pytest.fixture(scope="module")
def tested(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File with the test images of the digits (pixels in 0..1), their labels, and PyTorch's logits for them."""
    data = load_dataset(DataConfig(), torch.device("cpu"), 0)
    pixels = data.test.fetch(torch.arange(len(data.test))).float() / 255
    with torch.no_grad():
        logits = deployed(read_trained(run / "network.safetensors"))(pixels)
    file = tmp_path_factory.mktemp("tested") / "digits.npz"
    np.savez(file, pixels=pixels.numpy(), labels=data.test.labels.numpy(), logits=logits.numpy())
    return file


@pytest.fixture
def values(capsys: pytest.CaptureFixture[str]) -> Values:
    """Return a function that runs an export and returns its JSON report."""

    def export(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["export", *map(str, arguments), "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return export


@pytest.fixture
def error_line(capsys: pytest.CaptureFixture[str]) -> ErrorLine:
    """Return a function that runs an export that must fail and returns its one-line error, which a warning may precede."""

    def export(*arguments: object, code: int = 2) -> str:
        capsys.readouterr()
        assert main(["export", *map(str, arguments)]) == code
        out, err = capsys.readouterr()
        *warnings, error = err.splitlines(keepends=True)
        assert out == "" and not any("error" in warning for warning in warnings)
        return error

    return export


def elsewhere(code: str, *arguments: object) -> str:
    """Return the output of a program run in a separate process that cannot import rapdarts."""
    guard = "import sys\nsys.modules['rapdarts'] = None\n"
    return process(guard + code, *arguments)


def process(code: str, *arguments: object, cwd: Path = ROOT) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


COMPARE = """
import numpy
tested = numpy.load(sys.argv[2])
for n in (1, 3, 64):
    found = run(tested["pixels"][:n])
    assert found.shape == (n, 10)
    print(abs(found - tested["logits"][:n]).max())
"""

RUN_ONNX = """
import json
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
metadata = session.get_modelmeta().custom_metadata_map
assert json.loads(metadata["image"]) == [1, 8, 8] and json.loads(metadata["class_names"]) == list("0123456789"), metadata
run = lambda pixels: session.run(None, {"pixels": pixels})[0]
"""
RUN_PT2 = """
import json
import torch
extra = {"rapdarts.json": ""}
network = torch.export.load(sys.argv[1], extra_files=extra).module()
metadata = json.loads(extra["rapdarts.json"])
assert json.loads(metadata["image"]) == [1, 8, 8] and json.loads(metadata["class_names"]) == list("0123456789"), metadata
run = lambda pixels: network(torch.from_numpy(pixels)).detach().numpy()
"""


@pytest.mark.parametrize(("form", "code"), [("onnx", RUN_ONNX), ("pt2", RUN_PT2)], ids=["onnx", "pt2"])
def test_each_runtime_opens_its_file_without_rapdarts_and_agrees(
    form: str, code: str, run: Path, tested: Path, tmp_path: Path, values: Values
) -> None:
    file = tmp_path / "net"
    reported = values(run, f"to={form}", f"out={file}")
    assert reported["bytes"] == file.stat().st_size and reported["compared_on"] == "64 test images of digits"
    assert reported["largest_logit"] == pytest.approx(np.abs(np.load(tested)["logits"][:64]).max(), rel=1e-5)
    differences = [float(word) for word in elsewhere(code + COMPARE, file, tested).split()]
    assert len(differences) == 3
    assert max(*differences, reported["largest_difference"]) <= 1e-4 * reported["largest_logit"]
    assert str(ROOT).encode() not in file.read_bytes()
    names = {path.name for path in tmp_path.iterdir()}
    if form == "onnx":  # it carries its own hash
        assert names == {"net"}
    else:
        assert names == {"net", "net.sha256"} and reported["sha256"] == f"{file}.sha256"
        assert subprocess.run(["sha256sum", "-c", "net.sha256"], cwd=tmp_path, capture_output=True).returncode == 0


RUN_EXECUTORCH = """
import numpy
import torch
from executorch.runtime import Runtime
program = Runtime.get().load_program(sys.argv[1])
method = program.load_method("forward")
tested = numpy.load(sys.argv[2])
found = [method.execute([torch.from_numpy(image[None])])[0].numpy().copy() for image in tested["pixels"]]
print(abs(numpy.concatenate(found) - tested["logits"]).max())
"""


def all_primitives() -> Genotype:
    """Return a genotype with every primitive except none, at stride 1 in the normal cell and at stride 2 in the reduction cell."""
    names = [name for name in SPACE.primitives if name != "none"]
    nodes = tuple(((names[node], 0), (names[(node + 4) % len(names)], 1)) for node in range(4))
    return Genotype("darts", {kind: Cell(2, nodes, (2, 3, 4, 5)) for kind in SPACE.kinds})


@pytest.mark.parametrize("kind", ["reference network", "cells"])
def test_executorch_opens_its_file_without_rapdarts_and_agrees(
    kind: str, lenet: Path, tmp_path: Path, values: Values
) -> None:
    pytest.importorskip("executorch")
    folder, image = lenet, (1, 16, 16)
    if kind == "cells":
        folder, image = tmp_path / "run", (1, 8, 8)
        (tmp_path / "cells.json").write_text(all_primitives().to_json())
        assert (
            main(["retrain", str(tmp_path / "cells.json"), "digits", *SETTINGS, "data.fraction=0.2", f"run={folder}"])
            == 0
        )
    pixels = torch.rand(5, *image)
    with torch.no_grad():
        logits = deployed(read_trained(folder / "network.safetensors"))(pixels)
    np.savez(tmp_path / "tested.npz", pixels=pixels.numpy(), logits=logits.numpy())
    reported = values(folder, "to=executorch", f"out={tmp_path / 'net.pte'}")
    assert reported["batch"] == "one image at a time"
    difference = float(elsewhere(RUN_EXECUTORCH, tmp_path / "net.pte", tmp_path / "tested.npz").split()[-1])
    assert max(difference, reported["largest_difference"]) <= 1e-3 * reported["largest_logit"]


def test_an_8_bit_export_is_evaluated_next_to_the_32_bit_one(
    run: Path, tested: Path, tmp_path: Path, values: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    file = tmp_path / "net8.onnx"
    reported = values(run, "to=onnx", "precision=8", "calibration=100", f"out={file}", "licence=CC0")
    assert reported["calibrated_on"] == 100 and reported["n"] == reported["fp32"]["n"] == 600
    digits = np.load(tested)
    run_int8 = onnx_network(file)
    correct = sum(
        int((run_int8(torch.from_numpy(pixels)).argmax(1).numpy() == labels).sum())
        for pixels, labels in zip(np.split(digits["pixels"], 6), np.split(digits["labels"], 6), strict=True)
    )
    assert reported["test_accuracy"] == correct / 600
    assert reported["fp32"]["test_accuracy"] == pytest.approx(
        (digits["logits"].argmax(1) == digits["labels"]).mean(), abs=0.002
    )
    assert json.loads((run / "result.json").read_text())["test_accuracy"] == pytest.approx(
        reported["fp32"]["test_accuracy"], abs=0.002
    )
    assert reported["largest_difference"] > 10 * reported["fp32"]["largest_difference"]

    trained = read_trained(run / "network.safetensors")
    kept = reported["weights"]
    assert kept["priced"] == trained.costs["params"] < kept["bytes"]
    assert kept["bytes"] == bytes_in_int8_file(trained.blueprint.build(), (1, 8, 8))
    assert kept["bytes"] + kept["scales"] < reported["bytes"] == file.stat().st_size
    assert main(["cost", str(run), "precision=8", "rows=none"]) == 0
    assert f" take {kept['bytes']:,} B (biases and folded batch norms have 32 bits; " in capsys.readouterr().out

    graph = onnx.load(str(file)).graph
    integers = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    scales = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    readers = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in integers]
    weights = [node for node in readers if len(integers[node.input[0]].dims) == 4]
    assert len(weights) > 20
    assert all(list(scales[node.input[1]].dims) == [integers[node.input[0]].dims[0]] for node in weights)
    assert onnx_facts(file) == Facts((1, 8, 8), tuple("0123456789"), onnx_facts(file).network, "CC0")
    words = onnx_facts(file).network.splitlines()
    assert words[0] == "3 cells x 4 channels with the cifar stem, from a genotype of the search space darts"
    assert parse_genotype(words[1], "metadata").cells == LITERATURE["PDARTS"].cells


def test_a_reference_network_is_exported(lenet: Path, tmp_path: Path, values: Values, error_line: ErrorLine) -> None:
    reported = values(lenet, "to=onnx", f"out={tmp_path / 'lenet.onnx'}")
    assert reported["compared_on"] == "64 random images, because the data set npz of its run is not available"
    assert onnx_facts(tmp_path / "lenet.onnx") == Facts((1, 16, 16), ("0", "1", "2"), "lenet, a reference network")
    pixels = torch.rand(5, 1, 16, 16)
    with torch.no_grad():
        logits = deployed(read_trained(lenet / "network.safetensors"))(pixels)
    torch.testing.assert_close(onnx_network(tmp_path / "lenet.onnx")(pixels), logits, rtol=1e-4, atol=1e-5)
    moved = lenet.parent / "moved.npz"
    for path in ("path", "data.path"):
        reported = values(lenet, "to=pt2", f"out={tmp_path / 'lenet.pt2'}", f"{path}={moved}")
        assert reported["compared_on"] == "21 test images of moved"
    assert "noise.npz does not exist" in error_line(lenet, "to=onnx", "precision=8", f"out={tmp_path / 'x'}")
    assert "lenet, a reference network without a genotype" in error_line(lenet, "to=darts")


@pytest.mark.proof
def test_a_network_with_fewer_edges_per_node_is_exported(tmp_path: Path, values: Values) -> None:
    """Train, export and evaluate such a network; the cells in its metadata are unchanged."""
    folder, file = tmp_path / "run", tmp_path / "net.onnx"
    assert main(["retrain", "FairDARTS_c", "digits", *SETTINGS, f"run={folder}"]) == 0
    assert values(folder, "to=onnx", f"out={file}")["compared_on"] == "64 test images of digits"
    assert main(["evaluate", str(folder), "timing=false"]) == 0
    assert main(["evaluate", str(file), "digits", "timing=false"]) == 0
    network = read_trained(folder / "network.safetensors")
    pixels = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(onnx_network(file)(pixels), deployed(network)(pixels), rtol=1e-4, atol=1e-5)
    assert parse_genotype(onnx_facts(file).network.splitlines()[1], "metadata").cells == LITERATURE["FairDARTS_c"].cells


@pytest.mark.proof
def test_a_standalone_network_is_compared_on_random_pixels_or_an_experiment(
    run: Path, tmp_path: Path, values: Values, error_line: ErrorLine
) -> None:
    alone, file = copy(run / "network.safetensors", tmp_path / "net.safetensors"), f"out={tmp_path / 'net.pt2'}"
    random = "64 random images, because the network is not in a run folder"
    assert values(alone, "to=pt2", file)["compared_on"] == random
    assert values(alone, "digits", "to=pt2", file)["compared_on"] == "64 test images of digits"
    assert values(alone, "data.name=digits", "to=pt2", file)["compared_on"] == "64 test images of digits"
    assert "its test data are unknown" in error_line(alone, "to=onnx", "precision=8", file)
    assert (
        "was trained on images of shape (1, 8, 8) with the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, but these data have images of shape (3,"
        in error_line(alone, other_data(tmp_path), "to=pt2", file)
    )


def other_data(folder: Path) -> Path:
    np.savez(folder / "other.npz", x=np.zeros((60, 8, 8, 3), np.uint8), y=np.arange(60) % 10)
    (folder / "other.yaml").write_text(f"data:\n  name: npz\n  path: {folder / 'other.npz'}\n")
    return folder / "other.yaml"


def test_export_works_without_standard_output(lenet: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"
    close = "import os, sys; os.close(1); sys.stdout = None\n"
    code = "from rapdarts.cli.main import main; raise SystemExit(main(['export', *sys.argv[1:]]))"
    process(close + code, lenet, "to=pt2", f"out={file}")
    assert file.stat().st_size > 0


# --- agreement ---------------------------------------------------------------------------------------------------


class Off(nn.Module):
    """A network with a constant added to every logit."""

    def __init__(self, network: nn.Module, by: float) -> None:
        super().__init__()
        self.network, self.by = network, by

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels) + self.by


@pytest.mark.parametrize("by", [1e-2, float("nan"), float("inf")])
def test_a_file_that_differs_is_not_written(
    by: float, lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_line: ErrorLine
) -> None:
    honest = RUNTIMES["pt2"]
    wrong = replace(honest, write=lambda network, facts: honest.write(Off(network, by), facts))
    monkeypatch.setitem(verify.RUNTIMES, "pt2", wrong)
    reported = error_line(lenet, "to=pt2", f"out={tmp_path / 'net.pt2'}", code=RapdartsError.exit_code)
    assert "the exported network differs from PyTorch by" in reported and "nothing was written" in reported
    assert not list(tmp_path.iterdir())


def test_agreement_compares_every_image_in_batches_of_several_sizes() -> None:
    seen: list[int] = []

    def other(pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return pixels.flatten(1) + (0.5 if len(pixels) == 12 else 0)

    found = agreement(lambda pixels: -2 * pixels.flatten(1) + 3 * pixels.flatten(1), other, torch.ones(20, 1, 2, 2))
    assert seen == [1, 7, 12] and found == verify.Agreement(0.5, 1.0, 20)
    assert found.relative == 0.5


# --- safetensors and its card ------------------------------------------------------------------------------------


def snippet(card: str) -> str:
    found = re.search(r"```python\n(.*?)```", card, re.S)
    assert found
    return found[1]


def test_safetensors_export_copies_the_weights_and_writes_a_card(
    run: Path, tested: Path, tmp_path: Path, values: Values
) -> None:
    file = tmp_path / "net.safetensors"
    reported = values(run, "to=safetensors", f"out={file}", "licence=CC-BY-4.0")
    assert file.read_bytes() == (run / "network.safetensors").read_bytes()
    card = Path(reported["card"]).read_text(encoding="utf-8")
    assert reported["card"] == f"{file}.md"
    result = json.loads((run / "result.json").read_text())
    accuracy = percent(result["test_accuracy"], result["interval"], " over test sets of n = 600 images")
    assert f"| test accuracy | {accuracy} |" in card and result["interval"] == [*wilson(result["test_accuracy"], 600)]
    assert "| data set | digits |" in card and "1 epoch, seed 0" in card
    assert f"| cost: params | {result['costs']['params']:,} |" in card
    assert LITERATURE["PDARTS"].to_darts() in card and "3 cells x 4 channels" in card
    assert 'license: "CC-BY-4.0"' in card and "Licence of the weights, as stated at export: CC-BY-4.0." in card
    assert "The licence of digits is not recorded here" in card
    assert process(snippet(card), cwd=tmp_path).strip() in set("0123456789")
    names = elsewhere("import safetensors.numpy as s\nprint(*sorted(s.load_file(sys.argv[1])))", file).split()
    assert names == sorted(deployed(read_trained(file)).network.state_dict())  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("precision", [32, pytest.param(8, marks=pytest.mark.proof)])
def test_an_onnx_file_has_a_card_whose_example_needs_no_rapdarts(
    precision: int, run: Path, tmp_path: Path, values: Values
) -> None:
    reported = values(run, "to=onnx", f"precision={precision}", f"out={tmp_path / 'net.onnx'}")
    card = Path(reported["card"]).read_text(encoding="utf-8")
    result = reported if precision == 8 else json.loads((run / "result.json").read_text())
    accuracy = percent(result["test_accuracy"], result["interval"], " over test sets of n = 600 images")
    assert f"| test accuracy | {accuracy} |" in card
    assert f"| file | net.onnx, {reported['bytes']:,} bytes: a program for ONNX Runtime" in card
    assert "rapdarts.load" not in card and "safetensors" not in card
    script = "import sys\nsys.modules['rapdarts'] = sys.modules['torch'] = None\n" + snippet(card)
    assert process(script, cwd=tmp_path).strip() in set("0123456789")


def test_the_card_reports_what_is_unknown(run: Path, lenet: Path, tmp_path: Path, values: Values) -> None:
    alone = copy(run / "network.safetensors", tmp_path / "alone.safetensors")
    card = Path(values(alone, "to=safetensors", f"out={tmp_path / 'x.safetensors'}")["card"]).read_text()
    for row in ("data set", "test accuracy", "training"):
        assert f"| {row} | unknown: the file is not in a run folder |" in card
    assert "No licence for the weights was stated at export." in card and "license:" not in card
    beside = copy(run / "network.safetensors", run / "other.safetensors")
    assert history_of(Path(beside)).test == {}  # the result in the folder belongs to another file
    card = Path(values(lenet, "to=safetensors", f"out={tmp_path / 'lenet.safetensors'}")["card"]).read_text()
    assert "| network | lenet, a reference network |" in card and "## Cells" not in card


@pytest.mark.proof
def test_the_card_of_a_network_of_a_user_space_shows_how_to_pass_the_space(tmp_path: Path, values: Values) -> None:
    space = tmp_path / "mine.py"
    space.write_text(
        "from dataclasses import replace\nfrom search_spaces.darts import SPACE\nSPACE = replace(SPACE, name='mine')\n"
    )
    genotype = tmp_path / "genotype.json"
    genotype.write_text(replace(LITERATURE["PDARTS"], space="mine").to_json())
    own = ("--space", str(space))
    less = ("data.fraction=0.1", "retrain.batch=40")
    assert main(["retrain", str(genotype), "digits", *SETTINGS, *less, *own, f"run={tmp_path / 'run'}"]) == 0
    reported = values(tmp_path / "run", "to=safetensors", f"out={tmp_path / 'net.safetensors'}", *own)
    card = Path(reported["card"]).read_text()
    assert (
        'space = Path("mine.py")  # your file that defines this space' in card
        and "digits, a fraction 0.1 of its training images" in card
    )
    assert process(snippet(card), cwd=tmp_path).strip() in set("0123456789")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}'])
def test_a_damaged_result_is_reported_in_one_line(text: str, run: Path, tmp_path: Path, error_line: ErrorLine) -> None:
    for name in ("network.safetensors", "config.yaml"):
        copy(run / name, tmp_path / name)
    (tmp_path / "result.json").write_text(text)
    reported = error_line(tmp_path, "to=safetensors", f"out={tmp_path / 'x'}", code=DamagedError.exit_code)
    assert "result.json is damaged" in reported and not (tmp_path / "x").exists()


# --- errors ------------------------------------------------------------------------------------------------------


def test_the_genotype_of_a_trained_network_is_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = copy(run / "network.safetensors", tmp_path / "net.safetensors")
    for target in (run, alone):
        assert main(["export", str(target), "to=darts"]) == 0
        assert parse_genotype(capsys.readouterr().out, "out").cells == LITERATURE["PDARTS"].cells


def test_targets_without_weights_give_a_one_line_error(run: Path, tmp_path: Path, error_line: ErrorLine) -> None:
    (tmp_path / "search").mkdir()
    genotype = copy(run / "genotype.json", tmp_path / "search" / "genotype.json")
    (tmp_path / "empty").mkdir()
    train = "train it first (rapdarts retrain"
    for form in ("onnx", "safetensors"):
        to = [f"to={form}", f"out={tmp_path / 'net'}"]
        for target in (genotype, tmp_path / "search"):
            reported = error_line(target, *to)
            assert (
                f"has a genotype but no weights, and to={form} needs a trained network" in reported
                and train in reported
            )
        for name in ("PDARTS", "lenet"):
            assert f"{name} is a network without weights" in (reported := error_line(name, *to)) and train in reported
        assert "has no network.safetensors" in error_line(tmp_path / "empty", *to)
        assert "there is no trained network at 'nowhere'" in error_line("nowhere", *to)
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["to=onnx"], "to=onnx writes a file; set its path with out=FILE."),
        (["to=onnx", "out=absent/net.onnx"], "out=absent/net.onnx: there is no folder absent"),
        (["to=onnx", "out=."], "out=. is not the name of a file; use the path of a file"),
        (["to=pt2", "out=x", "precision=8"], "to=pt2 does not use precision="),
        (["to=onnx", "out=x", "precision=16"], "precision"),
        (["to=onnx", "out=x", "calibration=9"], "calibration= needs precision=8"),
        (["to=safetensors", "out=x", "path=data"], "to=safetensors does not use data.path="),
        (["to=darts", "licence=MIT"], "to=darts does not use licence="),
        (["digits", "to=svg"], "does not use the experiment digits"),
        (["to=svg", "--json"], "does not use --json"),
        (["to=onxx", "out=x"], "onnx"),
        (["digitz", "to=pt2", "out=x"], "the nearest is digits"),
        (["digits", "more", "to=pt2", "out=x"], "got an unexpected argument 'more'"),
    ],
)
def test_arguments_that_do_not_apply_give_a_one_line_error(
    arguments: list[str],
    fragment: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: ErrorLine,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fragment in error_line(run, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        (["to=onnx"], "onnx", "onnx"),
        (["to=onnx"], "onnxscript", "onnx"),
        (["to=onnx", "precision=8"], "onnxruntime", "onnx"),
        (["to=executorch"], "executorch", "executorch"),
    ],
)
def test_a_missing_package_is_named(
    to: list[str],
    package: str,
    extra: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: ErrorLine,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    reported = error_line(run, *to, f"out={tmp_path / 'net'}")
    assert f"{to[0]} needs the package {package}; install it with {installation(extra)}." in reported
    assert not list(tmp_path.iterdir())


def test_foreign_files_give_a_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(InputError, match="cannot be read"):
        onnx_network(path)
    path.write_bytes(b"not ONNX")
    with pytest.raises(DamagedError, match=r"net\.onnx is not an ONNX file"):
        onnx_network(path)
    with pytest.raises(InputError, match="have no valid image"):
        shipped.facts_of({"image": "[1, 8]", "class_names": "[]"}, "net.onnx")

"""Evaluation of trained networks from the command line: self-describing files, and messages for files that cannot be tested."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import rapdarts
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.cli.main import main
from rapdarts.config.experiment import DataConfig
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy import run_data
from rapdarts.deploy.blueprint import DerivedBlueprint, ReferenceBlueprint, of_card
from rapdarts.deploy.evaluation import correct_on_test
from rapdarts.deploy.model_file import CARD, deployed, load_network, read_trained, to_safetensors
from rapdarts.deploy.onnx import to_int8, to_onnx
from rapdarts.deploy.onnx_costs import onnx_costs
from rapdarts.deploy.runtimes import Facts
from rapdarts.errors import DamagedError, InputError
from rapdarts.reports import confusion
from rapdarts.training.intervals import percent, wilson
from search_spaces.darts import SPACE
from tests.edited import without_remarks

TINY = ["threads=1", "data.fraction=0.1", "retrain.epochs=1", "retrain.batch=40"]
DATA = {"mean": [0.3], "std": [0.4], "classes": list("0123456789")}
SHUFFLENET = {"reference": "shufflenet_v2_x1_0", "image": [1, 8, 8], "classes": 10}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of a reference network."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["retrain", "shufflenet_v2_x1_0", "digits", *TINY, f"run={folder}"]) == 0
    return folder


def accuracy_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> float:
    return float(values_of(capsys, *arguments)["test_accuracy"])


def values_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json", "timing=false"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def error_line(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == code
    out, err = capsys.readouterr()
    err = without_remarks(err)
    assert out == "" and err.count("\n") == 1
    return err


# --- from the command line ---------------------------------------------------------------------------------------


def test_all_measures_of_a_run_are_reported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", "batch=64", f"plot={tmp_path / 'confusion.png'}"]) == 0
    values = json.loads(capsys.readouterr().out)
    result = json.loads((run / "result.json").read_text())
    same = ("test_accuracy", "standard_error", "interval", "n")
    assert {name: values[name] for name in same} == {name: result[name] for name in same}
    for name, interval in (("test_accuracy", "interval"), ("top5_accuracy", "top5_interval")):
        assert values[interval] == [*wilson(values[name], values["n"])]
    assert values["test_loss"] == pytest.approx(result["test_loss"], rel=1e-5)
    assert values["costs"] == result["costs"]
    assert np.sum(values["confusion"]) == values["n"] == sum(found["n"] for found in values["bins"])
    assert np.trace(values["confusion"]) / values["n"] == values["test_accuracy"] <= values["top5_accuracy"]
    assert [sum(row) for row in values["confusion"]] == [60] * 10 and values["classes"] == list("0123456789")
    time = values["timing"]
    for number in (time["images_per_second"], *time["latency"].values(), *time["batch_latency"].values()):
        assert number > 0 and math.isfinite(number)
    assert time["images_per_second"] == 64 / time["batch_latency"]["median_s"]
    assert (time["threads"], time["clock"]) == (1, "thread")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")

    assert main(["evaluate", str(run), "timing=false"]) == 0
    words = capsys.readouterr().out
    assert words.startswith(f"test accuracy {percent(values['test_accuracy'], values['interval'], ', n = 600')}\n")
    assert f"\ntop-5 accuracy {percent(values['top5_accuracy'], values['top5_interval'])}\n" in words
    assert f"calibration error {100 * values['calibration_error']:.2f} % (15 confidence bins)" in words
    assert confusion.confusion_table(values["confusion"], values["classes"]) in words
    assert f"params {result['costs']['params']:,}" in words and "images/s" not in words
    assert "plot=a.txt is not an image file" in error_line(capsys, str(run), "plot=a.txt")


def test_a_standalone_file_is_tested_on_named_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, whole = tmp_path / "net.safetensors", values_of(capsys, str(run))
    shutil.copy(run / "network.safetensors", copy)
    assert values_of(capsys, str(copy), "data.name=digits") == whole
    assert "data is a section, not a key; use one of its keys, such as data.name" in error_line(
        capsys, str(copy), "data=digits"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    labels = np.arange(40) % 10
    np.savez(tmp_path / "own.npz", x_train=pixels, y_train=labels, x_test=pixels[:30], y_test=labels[:30])
    for file in (copy, run):
        for path in ("path", "data.path"):
            assert values_of(capsys, str(file), "data.name=npz", f"{path}={tmp_path / 'own.npz'}")["n"] == 30


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network trained on 60 images, of which none are marked as test images; they are in the file own.npz next to it."""
    folder = tmp_path_factory.mktemp("undivided")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(folder / "own.npz", x=pixels, y=np.arange(60) % 10)
    np.savez(folder / "other.npz", x=pixels[::-1], y=np.arange(60) % 10)
    np.savez(folder / "few.npz", x=pixels[:10], y=np.arange(10))
    own = ["data.name=npz", f"data.path={folder / 'own.npz'}", "threads=1", "retrain.epochs=1", "retrain.batch=10"]
    assert main(["retrain", "shufflenet_v2_x1_0", "digits", *own, f"run={folder / 'run'}"]) == 0
    return folder / "run"


def test_all_images_of_other_data_are_tested(undivided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(undivided.parent / "own.npz", undivided.parent / "moved.npz")
    shutil.copy(undivided / "network.safetensors", undivided.parent / "alone.safetensors")
    held_out = "no test images are marked, so a third of the images of each class is held out for testing"
    third = ["40 training and 20 test images, 1x8x8, 10 classes (4 training images each), from {}", held_out]
    whole = ["{} test images, 1x8x8, 10 classes, from {}", run_data.ALL_TESTED]
    for network, name, n, said in (
        ("run", "", 20, third),
        ("run", "own", 20, third),
        ("run", "moved", 20, third),
        ("run", "other", 60, whole),
        ("run", "few", 10, whole),
        ("alone.safetensors", "other", 20, third),  # which may be those of its training
    ):
        capsys.readouterr()
        path = [f"data.path={undivided.parent / name}.npz", "data.name=npz"] if name else []
        assert main(["evaluate", str(undivided.parent / network), *path, "--json", "timing=false"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["n"] == n
        first = said[0].format(*([n] if n != 20 else []), name or "own")
        assert err.splitlines() == [first, said[1]]


def test_images_in_memory_are_tested(undivided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, other = (np.load(undivided.parent / f"{name}.npz") for name in ("own", "other"))
    tested = rapdarts.evaluate(undivided, data=(own["x"], own["y"]), timing=False)
    assert tested.report["n"] == 20 and tested.accuracy == rapdarts.evaluate(undivided, timing=False).accuracy
    assert rapdarts.evaluate(undivided, data=(other["x"], other["y"]), timing=False).report["n"] == 60
    capsys.readouterr()
    some = other["x"][:7], other["y"][:7]  # not all classes
    assert rapdarts.evaluate(undivided, test=some, timing=False).report["n"] == 7
    assert capsys.readouterr().err == "7 test images, 1x8x8, 10 classes, from memory\n"
    both = rapdarts.evaluate(undivided, data=(own["x"], own["y"]), test=some, timing=False, progress=False)
    assert both.report["n"] == 7 and capsys.readouterr().err == ""
    with pytest.raises(
        InputError, match="test, labels: the label of image 0 is 10, but labels of 10 classes must be 0 to 9"
    ):
        rapdarts.evaluate(undivided, test=(some[0], some[1] + 10), timing=False)


def test_the_worst_confusions_of_many_classes_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(90) % 30
    pixels = np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8)
    np.savez(tmp_path / "many.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    blueprint = DerivedBlueprint(LITERATURE["PDARTS"], SPACE, Skeleton(1, 4, (1, 8, 8), 30))
    data = load_dataset(DataConfig("npz", str(tmp_path / "many.npz")), torch.device("cpu"), 0)
    weights = blueprint.build().state_dict()
    weights["classifier.linear.weight"].zero_()
    weights["classifier.linear.bias"].copy_(torch.arange(30) == 7)
    (tmp_path / "net.safetensors").write_bytes(to_safetensors(weights, blueprint, data))
    capsys.readouterr()
    named = [str(tmp_path / "net.safetensors"), "data.name=npz", f"data.path={tmp_path / 'many.npz'}"]
    assert main(["evaluate", *named, "timing=false"]) == 0
    words = capsys.readouterr().out
    assert (
        words.startswith("test accuracy 3.33 % (95 % interval 1.14 to 9.35 %, n = 90)")
        and "columns: predicted class" not in words
    )
    assert "\n0 classified as 7: 3\n1 classified as 7: 3\n" in words and words.count(" classified as 7: ") == 5


def test_an_onnx_file_agrees_with_its_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    blueprint = DerivedBlueprint(LITERATURE["PDARTS"], SPACE, Skeleton(2, 4, (1, 8, 8), 10))
    data, run = load_dataset(DataConfig(), torch.device("cpu"), 0), tmp_path / "net.safetensors"
    run.write_bytes(to_safetensors(blueprint.build().state_dict(), blueprint, data))
    trained = read_trained(run)
    facts = Facts(trained.blueprint.image, trained.class_names)
    content = to_onnx(deployed(trained), facts)
    (tmp_path / "net.onnx").write_bytes(content)
    pixels = data.train.fetch(torch.arange(32)) / 255
    (tmp_path / "int8.onnx").write_bytes(to_int8(content, facts, [pixels]))

    ours, theirs = values_of(capsys, str(run), "digits"), values_of(capsys, str(tmp_path / "net.onnx"), "digits")
    assert theirs["test_loss"] == pytest.approx(ours["test_loss"], rel=1e-4)
    assert theirs["test_accuracy"] == pytest.approx(ours["test_accuracy"], abs=0.004)
    assert theirs["classes"] == ours["classes"] and np.sum(theirs["confusion"]) == 600
    eight = values_of(capsys, str(tmp_path / "int8.onnx"), "digits")
    assert eight["n"] == 600 and eight["test_loss"] != theirs["test_loss"]
    for values in (theirs, eight):
        assert values["costs"]["macs"] == ours["costs"]["macs"]
        assert values["costs"]["params"] <= ours["costs"]["params"]
    assert theirs["costs"]["bytes"] == 4 * theirs["costs"]["params"] > 2 * eight["costs"]["bytes"]

    plain = tmp_path / "plain.onnx"
    assert "there is no trained network at 'none.onnx'; pass a run" in error_line(capsys, "none.onnx", "digits")
    plain.write_bytes(b"not a graph")
    assert f"{plain} is not an ONNX file" in error_line(capsys, str(plain), "digits", code=4)
    assert "ONNX files run only on the CPU" in error_line(capsys, str(tmp_path / "net.onnx"), "device=cuda")
    assert "add an experiment after it" in error_line(capsys, str(tmp_path / "net.onnx"))
    with pytest.raises(DamagedError, match="is not an ONNX file with a readable graph"):
        onnx_costs(plain)


def graph_of(*nodes: Any, weights: Any, pixels: tuple[Any, ...] = ("n", 1, 8, 8), **facts: str) -> bytes:
    """Return an ONNX file that maps pixels to logits, with the metadata of our files. `weights` is a TensorProto called w."""
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("pixels", pixels), ("logits", ["n", "classes"]))
    ]
    graph = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"image": "[1, 8, 8]", "class_names": json.dumps(list("0123456789")), **facts})
    return bytes(model.SerializeToString())


def test_foreign_onnx_files_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    linear = [
        onnx.helper.make_node("Flatten", ["pixels"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]

    def columns(count: int) -> Any:
        return onnx.numpy_helper.from_array(np.ones((64, count), np.float32), "w")

    def refused(content: bytes, code: int = 2) -> str:
        Path("net.onnx").write_bytes(content)
        return error_line(capsys, "net.onnx", "digits", "timing=false", code=code)

    Path("net.onnx").write_bytes(graph_of(*linear, weights=columns(10)))
    assert values_of(capsys, "net.onnx", "digits")["costs"] == {"macs": 640, "params": 640, "bytes": 2560}
    assert "net.onnx returns 7 logits, but its metadata list 10 classes" in refused(
        graph_of(*linear, weights=columns(7))
    )
    fixed = graph_of(*linear, weights=columns(10), pixels=(1, 1, 8, 8))
    assert "net.onnx cannot be run on images of shape (256, 1, 8, 8) (" in refused(fixed)
    bare = onnx.helper.make_node("Flatten", ["pixels"], ["logits"])
    assert "cannot be counted: it has no convolutions or matrix products; use a file written by" in refused(
        graph_of(bare, weights=columns(1))
    )
    for endless in ("[" * 100_000 + "]" * 100_000, "9" * 5000):
        assert "have no valid image and class_names" in refused(graph_of(*linear, weights=columns(10), image=endless))
    # External weights could name any file, so no such file is read, not even one in the same folder.
    Path("w.bin").write_bytes(np.ones((64, 10), np.float32).tobytes())
    elsewhere = columns(10)
    elsewhere.ClearField("raw_data")
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    place = elsewhere.external_data.add()
    place.key = "location"
    for place.value in ("w.bin", f"../{tmp_path.name}/w.bin", str(tmp_path / "w.bin")):
        assert "net.onnx is not an ONNX file that onnxruntime can run" in refused(
            graph_of(*linear, weights=elsewhere), 4
        )


def test_dynamic_sizes_in_an_onnx_file_are_not_counted_as_zero(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    nodes = [
        onnx.helper.make_node("Conv", ["pixels", "w"], ["maps"]),  # the number of rows is dynamic
        onnx.helper.make_node("GlobalAveragePool", ["maps"], ["mean"]),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
        onnx.helper.make_node("Gemm", ["flat", "flat"], ["logits"], transB=1),
    ]
    weights = onnx.numpy_helper.from_array(np.ones((4, 1, 1, 1), np.float32), "w")
    (tmp_path / "open.onnx").write_bytes(graph_of(*nodes, weights=weights, pixels=("n", 1, "rows", 8)))
    with pytest.raises(InputError, match="cannot be counted: the size of maps is dynamic or unknown"):
        onnx_costs(tmp_path / "open.onnx")


# --- files and folders -------------------------------------------------------------------------------------------


def test_the_file_describes_its_network(run: Path) -> None:
    trained = read_trained(run / "network.safetensors")
    assert trained.blueprint == ReferenceBlueprint("shufflenet_v2_x1_0", (1, 8, 8), 10)
    assert trained.class_names == tuple("0123456789")
    network = load_network(trained)
    assert not network.training
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_a_width_is_kept_in_the_file_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "ResNet20@3", "digits", *TINY, f"run={tmp_path / 'run'}"]) == 0
    assert "building resnet20@3 for images of 1x8x8 and 10 classes\n" in capsys.readouterr().err
    blueprint = read_trained(tmp_path / "run" / "network.safetensors").blueprint
    assert blueprint == ReferenceBlueprint("resnet20@3", (1, 8, 8), 10) and blueprint.width == 3
    assert of_card(blueprint.card, "card") == blueprint
    assert ReferenceBlueprint("lenet", (1, 28, 28), 10).width is None
    assert main(["cost", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"] == blueprint.costs["params"] == 9_811
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "| retrain resnet20@3 | digits " in capsys.readouterr().out


def test_two_networks_are_tested_on_the_same_images(run: Path, tmp_path: Path) -> None:
    trained, data = read_trained(run / "network.safetensors"), load_dataset(DataConfig(), torch.device("cpu"), 0)
    weights = load_file(trained.path)
    weights["fc.weight"].zero_()
    weights["fc.bias"].copy_(torch.arange(10) == 7)
    (tmp_path / "seven.safetensors").write_bytes(to_safetensors(weights, trained.blueprint, data))
    first, second = correct_on_test([trained, read_trained(tmp_path / "seven.safetensors")], data, batch=70)
    assert first.dtype == second.dtype == bool and first.shape == (600,)
    assert first.mean() == json.loads((run / "result.json").read_text())["test_accuracy"]
    assert second.tolist() == (data.test.labels == 7).tolist()
    np.savez(tmp_path / "large.npz", x=np.zeros((60, 16, 16), np.uint8), y=np.arange(60) % 10)
    large = load_dataset(DataConfig("npz", str(tmp_path / "large.npz")), torch.device("cpu"), 0)
    with pytest.raises(InputError, match="was trained on images of shape"):
        correct_on_test([trained], large, batch=70)


def test_a_copied_file_is_tested_on_the_data_of_an_experiment(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "net.safetensors"
    shutil.copy(run / "network.safetensors", copy)
    assert error_line(capsys, str(copy)).endswith(
        "net.safetensors is not in a run folder, so its test data are unknown; add an experiment after it, such as digits.\n"
    )
    assert accuracy_of(capsys, str(copy), "digits") == accuracy_of(capsys, str(run))
    assert "there is no experiment 'digitz'; the nearest is digits" in error_line(capsys, str(copy), "digitz")
    assert "got an unexpected argument 'more'" in error_line(capsys, str(copy), "digits", "more")


def test_mismatched_data_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "large.npz", x=np.zeros((60, 16, 16), np.uint8), y=np.arange(60) % 10)
    (tmp_path / "large.yaml").write_text(f"data:\n  name: npz\n  path: {tmp_path / 'large.npz'}\n")
    asked = error_line(capsys, str(run), str(tmp_path / "large.yaml"))
    assert asked.endswith(
        "leave the experiment out to use the run's data, or confirm the other data with data.name=npz.\n"
    )
    shutil.copy(run / "network.safetensors", tmp_path / "net.safetensors")  # outside a run folder
    error = error_line(capsys, str(tmp_path / "net.safetensors"), str(tmp_path / "large.yaml"))
    assert (
        "was trained on images of shape (1, 8, 8) with the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, but these data have"
        in error
    )
    assert error.endswith("set data.path=PATH, or use another experiment.\n")


def card(**changes: Any) -> dict[str, Any]:
    return {**SHUFFLENET, "data": DATA, **changes}


@pytest.mark.parametrize(
    "broken",
    [
        card(reference="shufflenet_v9"),
        card(reference="shufflenet_v2_x1_0@4"),
        card(reference="resnet20@0"),
        card(reference="ResNet20@4"),
        card(reference=["lenet"]),
        card(image=[1, 8]),
        card(image=[1, 8, 0]),
        card(image=[1, 8, "8"]),
        card(image=8),
        card(classes=True),
        card(data={}),
        card(data=[]),
        card(data={**DATA, "mean": "a"}),
        card(data={**DATA, "mean": [0.1, 0.2]}),
        card(data={**DATA, "mean": [[0.1]]}),
        card(data={**DATA, "mean": [None]}),
        card(data={**DATA, "mean": [math.nan]}),
        card(data={**DATA, "std": [True]}),
        card(data={**DATA, "std": [0.0]}),
        card(data={**DATA, "classes": list("01234")}),
        card(data={**DATA, "classes": list(range(10))}),
        card(data={**DATA, "classes": "0123456789"}),
        {"reference": "shufflenet_v2_x1_0", "data": DATA},
        {"data": DATA},
        card(reference="shufflenet_v1"),
        card(classes=11),
        card(image=[3, 8, 8]),
        card(reference="vgg11", image=[3, 60_000, 60_000], classes=1_000_000),
        [],
    ],
)
def test_malformed_metadata_are_reported_in_one_line(
    broken: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "network.safetensors"
    save_file(load_file(run / "network.safetensors"), file, {CARD: json.dumps(broken)})
    assert str(file) in error_line(capsys, str(file), "digits", code=4)


def test_oversized_metadata_are_reported_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "network.safetensors"
    for endless in ("[" * 100_000 + "]" * 100_000, '{"data": ' + "9" * 5000 + "}"):
        save_file(load_file(run / "network.safetensors"), file, {CARD: endless})
        assert str(file) in error_line(capsys, str(file), "digits", code=4)


def test_weights_of_another_precision_are_converted(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.safetensors"
    weights = load_file(run / "network.safetensors")
    save_file({name: tensor.double() for name, tensor in weights.items()}, file, {CARD: json.dumps(card())})
    assert load_network(read_trained(file))(torch.zeros(1, 1, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize("name", ["notes.md", "empty.json", "metrics.jsonl"])
def test_a_file_without_a_network_is_not_a_trained_network(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    file.write_text({"notes.md": "# Notes", "empty.json": "{}"}.get(name, '{"epoch": 0}\n{"epoch": 1}\n'))
    line = error_line(capsys, str(file), "digits")
    assert (
        f"{file} is not a trained network; pass a run folder created by rapdarts retrain, its network.safetensors,"
        in line
    )


def test_missing_weights_are_named(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.safetensors"
    weights = load_file(run / "network.safetensors")
    del weights["fc.weight"]
    save_file(weights, file, {CARD: json.dumps(card())})
    with pytest.raises(DamagedError, match=r"the weights do not match the network .*fc\.weight"):
        load_network(read_trained(file))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("fc.weight", lambda weight: weight.to(torch.complex64)),
        ("fc.weight", lambda weight: (weight * 100).to(torch.int64)),
        ("fc.bias", lambda bias: bias[:, None]),
    ],
)
def test_weights_of_another_dtype_or_shape_are_named(
    name: str, spoil: Callable[[Tensor], Tensor], run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "network.safetensors"
    weights = load_file(run / "network.safetensors")
    save_file({**weights, name: spoil(weights[name])}, file, {CARD: json.dumps(card())})
    with pytest.raises(DamagedError, match=rf"the weights do not match the network \({name}"):
        load_network(read_trained(file))


def test_a_loaded_network_is_independent_of_its_file(run: Path, tmp_path: Path) -> None:
    """Changing the file afterwards does not change the network."""
    file = tmp_path / "network.safetensors"
    file.write_bytes((run / "network.safetensors").read_bytes())
    network, images = load_network(read_trained(file)), torch.rand(2, 1, 8, 8)
    before = network(images)
    with open(file, "r+b") as raw:
        raw.seek(-1000, os.SEEK_END)
        raw.write(bytes(1000))
    assert torch.equal(network(images), before)

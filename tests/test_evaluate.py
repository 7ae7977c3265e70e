"""Testing trained networks: files that say what they are, wherever they lie, and sentences for those that cannot be tested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rapdarts.blueprint import ReferenceBlueprint
from rapdarts.cli import main
from rapdarts.errors import DamagedError
from rapdarts.trained import CARD, load_network, read_trained

TINY = ["threads=1", "data.fraction=0.1", "retrain.epochs=1", "retrain.batch=40"]
DATA = {"mean": [0.3], "std": [0.4], "classes": list("0123456789")}
SHUFFLENET = {"reference": "shufflenet_v2_x1_0", "image": [1, 8, 8], "classes": 10}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a reference network."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(["retrain", "shufflenet_v2_x1_0", "digits", *TINY, f"run={folder}"]) == 0
    return folder


def accuracy_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> float:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    return float(json.loads(capsys.readouterr().out)["test_accuracy"])


def sentence_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_the_file_says_what_it_is(run: Path) -> None:
    trained = read_trained(run / "network.safetensors")
    assert trained.blueprint == ReferenceBlueprint("shufflenet_v2_x1_0", (1, 8, 8), 10)
    assert trained.class_names == tuple("0123456789")
    network = load_network(trained)
    assert not network.training
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_a_copied_file_is_tested_on_the_data_of_an_experiment(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "net.safetensors"
    shutil.copy(run / "network.safetensors", copy)
    assert sentence_of(capsys, str(copy)).endswith(
        "net.safetensors that says on which data to test; name an experiment behind it, such as digits.\n"
    )
    assert accuracy_of(capsys, str(copy), "digits") == accuracy_of(capsys, str(run))
    assert "there is no experiment 'digitz'; the nearest is digits" in sentence_of(capsys, str(copy), "digitz")
    assert "does not know what to do with 'more'" in sentence_of(capsys, str(copy), "digits", "more")


def test_other_data_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "large.npz", x=np.zeros((60, 16, 16), np.uint8), y=np.arange(60) % 10)
    (tmp_path / "large.yaml").write_text(f"data:\n  name: npz\n  path: {tmp_path / 'large.npz'}\n")
    sentence = sentence_of(capsys, str(run), str(tmp_path / "large.yaml"))
    assert "was trained on images (1, 8, 8) of the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, but these are" in sentence
    assert sentence.endswith("name other data with path=PATH, or another experiment.\n")


def card(**changes: Any) -> dict[str, Any]:
    return {**SHUFFLENET, "data": DATA, **changes}


@pytest.mark.parametrize(
    "broken",
    [
        card(reference="shufflenet_v9"),
        card(reference=["lenet"]),
        card(image=[1, 8]),
        card(image=[1, 8, 0]),
        card(image=[1, 8, "8"]),
        card(image=8),
        card(classes=True),
        card(data={}),
        {"reference": "shufflenet_v2_x1_0", "data": DATA},
        {"data": DATA},
        card(reference="shufflenet_v1"),
        card(classes=11),
        card(image=[3, 8, 8]),
        card(reference="vgg11", image=[3, 60_000, 60_000], classes=1_000_000),
        [],
    ],
)
def test_a_card_that_does_not_fit_is_one_sentence(
    broken: Any, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "network.safetensors"
    save_file(load_file(run / "network.safetensors"), file, {CARD: json.dumps(broken)})
    assert str(file) in sentence_of(capsys, str(file), "digits", code=4)


def test_weights_of_another_precision_are_used_as_numbers(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.safetensors"
    weights = load_file(run / "network.safetensors")
    save_file({name: tensor.double() for name, tensor in weights.items()}, file, {CARD: json.dumps(card())})
    assert load_network(read_trained(file))(torch.zeros(1, 1, 8, 8)).dtype == torch.float32


def test_missing_weights_are_named(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.safetensors"
    weights = load_file(run / "network.safetensors")
    del weights["fc.weight"]
    save_file(weights, file, {CARD: json.dumps(card())})
    with pytest.raises(DamagedError, match=r"the weights do not fit .*fc\.weight"):
        load_network(read_trained(file))

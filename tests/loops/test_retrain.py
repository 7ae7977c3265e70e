"""The retraining end to end on real digits: its files, each part of its recipe, and bit-identical results on repeating or resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.cli.main import main
from rapdarts.cost.count import count
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.deploy.model_file import load_network, read_trained
from rapdarts.files.run_files import RUN_FILES
from rapdarts.loops import retrain as loop
from rapdarts.loops.retrain import summed_loss
from rapdarts.networks.reference import REFERENCE
from rapdarts.training.checkpoint import load_checkpoint
from rapdarts.training.metrics import Evaluation, evaluate_logits
from rapdarts.training.run import Run

TINY = [
    "threads=1",
    "data.fraction=0.3",
    "skeleton.layers=3",
    "skeleton.channels=4",
    "retrain.epochs=2",
    "retrain.batch=60",
    "retrain.drop_path=0.3",
    "retrain.auxiliary=0.4",
    "retrain.cutout=3",
    "retrain.label_smoothing=0.1",
]


def run_retrain(folder: Path, *settings: str) -> int:
    return main(["retrain", "PDARTS", "digits", *TINY, f"run={folder}", *settings])


def results(folder: Path) -> dict[str, Any]:
    """Return everything that must not depend on interruptions: the bytes of all result files, and the metrics without their times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("seconds")
    names = ("network.safetensors", "best.safetensors", "genotype.json")
    return {"records": records, **{name: (folder / name).read_bytes() for name in names if (folder / name).exists()}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted retraining with held-out images."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run_retrain(folder, "retrain.validation_fraction=0.2") == 0
    return folder


def test_the_network_file_is_self_contained(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = read_trained(whole / "network.safetensors")
    assert isinstance(trained.blueprint, DerivedBlueprint)
    assert trained.blueprint.genotype.cells == LITERATURE["PDARTS"].cells
    assert trained.class_names == tuple("0123456789")
    assert {path.name for path in whole.iterdir()} <= {*RUN_FILES, "tensorboard"}  # files that no result may overwrite
    images = torch.randn(5, 1, 8, 8)
    assert load_network(trained)(images).shape == (5, 10)
    with safe_open(whole / "network.safetensors", "pt") as file:
        assert not any(name.startswith("auxiliary") for name in file.keys())  # noqa: SIM118


def test_evaluate_gives_the_accuracy_of_the_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert main(["evaluate", str(whole), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == result["n"] == 600
    assert found["test_accuracy"] == result["test_accuracy"]
    assert found["standard_error"] == pytest.approx(
        (found["test_accuracy"] * (1 - found["test_accuracy"]) / 600) ** 0.5
    )
    assert main(["evaluate", str(whole / "best.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == result["best"]["test_accuracy"]


def test_best_is_the_epoch_with_the_highest_validation_accuracy(whole: Path) -> None:
    accuracies = [record["validation_accuracy"] for record in results(whole)["records"]]
    last, best = (load_file(whole / name) for name in ("network.safetensors", "best.safetensors"))
    same = all(torch.equal(last[name], best[name]) for name in last)
    assert same == (accuracies[1] > accuracies[0])


def test_there_is_no_best_without_held_out_images(tmp_path: Path) -> None:
    assert run_retrain(tmp_path / "run", "retrain.epochs=1") == 0
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert "validation_accuracy" not in results(tmp_path / "run")["records"][0]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["auxiliary_pool"] == "adaptive 2x2"


def interrupt(patch: pytest.MonkeyPatch, after: str) -> None:
    """Send SIGTERM after an epoch or step, such as "step 2"."""
    what, number = after.split()
    name = "log" if what == "epoch" else "_pause"
    original, seen = getattr(Run, name), 0

    def signal_after(self: Run, *shown: Any, **facts: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == int(number):
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *shown, **facts)

    patch.setattr(Run, name, signal_after)


@pytest.mark.parametrize("after", ["epoch 1", "step 2", pytest.param("step 4", marks=pytest.mark.proof)])
def test_an_interrupted_retraining_resumes_bit_identically(
    whole: Path, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        assert run_retrain(tmp_path / "cut", "retrain.validation_fraction=0.2") == 75
    assert not (tmp_path / "cut" / "network.safetensors").exists()
    assert run_retrain(tmp_path / "cut", "retrain.validation_fraction=0.2", "resume=true") == 0
    assert results(tmp_path / "cut") == results(whole)


@pytest.mark.proof
def test_a_killed_retraining_resumes_bit_identically(whole: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "killed", ["retrain.validation_fraction=0.2", "save_seconds=0"]
    command = [sys.executable, "-m", "rapdarts", "retrain", "PDARTS", "digits", *TINY, f"run={folder}", *settings]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.previous").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert run_retrain(folder, *settings, "resume=true") == 0
    assert results(folder) == results(whole)


def test_resuming_with_another_genotype_is_refused(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [*TINY, "retrain.validation_fraction=0.2", f"run={whole}", "resume=true"]
    assert main(["retrain", "DARTS_V2", "digits", *settings]) == 4
    assert "genotype" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        "retrain.drop_path=0",
        "retrain.auxiliary=0",
        "retrain.cutout=0",
        "retrain.label_smoothing=0",
        "retrain.lr=0.01",
        "retrain.lr_min=0.04",
        "retrain.momentum=0",
        "retrain.weight_decay=0",
        "retrain.clip=0.5",
        "retrain.nesterov=true",
        "retrain.ema=0.5",
        "retrain.amp=bf16",
        "retrain.jitter=0.4",
        "retrain.smallest_crop=0.5",
        "retrain.accumulate=2",
        "data.crop=0",
        "data.flip=true",
        "seed=1",
    ],
)
def test_every_setting_of_the_recipe_affects_the_weights(change: str, tmp_path: Path, base: bytes) -> None:
    assert run_retrain(tmp_path / "run", change) == 0
    assert results(tmp_path / "run")["network.safetensors"] != base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Network file of the unchanged recipe."""
    folder = tmp_path_factory.mktemp("base") / "run"
    assert run_retrain(folder) == 0
    content = results(folder)["network.safetensors"]
    assert isinstance(content, bytes)
    return content


def built(folder: Path) -> Skeleton:
    """Return the skeleton of the network that a run has trained."""
    blueprint = read_trained(folder / "network.safetensors").blueprint
    assert isinstance(blueprint, DerivedBlueprint)
    return blueprint.skeleton


def test_a_genotype_is_built_with_the_skeleton_for_which_it_was_priced(tmp_path: Path) -> None:
    priced = tmp_path / "genotype.json"
    text = json.loads(LITERATURE["PDARTS"].to_json())
    text["skeleton"] = {"layers": 4, "channels": 6, "stem": "cifar", "image": [1, 8, 8], "classes": 10}
    priced.write_text(json.dumps(text))
    small = [setting for setting in TINY if not setting.startswith("skeleton.")]
    assert main(["retrain", str(priced), "digits", *small, "retrain.epochs=1", f"run={tmp_path / 'own'}"]) == 0
    assert built(tmp_path / "own").layers == 4
    asked = ["skeleton.layers=3", "skeleton.channels=4", "retrain.epochs=1"]
    assert main(["retrain", str(priced), "digits", *small, *asked, f"run={tmp_path / 'asked'}"]) == 0
    assert built(tmp_path / "asked").layers == 3


def test_a_truncated_network_file_is_named_in_the_error(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "network.safetensors"
    broken.write_bytes((whole / "network.safetensors").read_bytes()[:2000])
    assert main(["evaluate", str(broken)]) == 4
    assert str(broken) in capsys.readouterr().err


def test_accuracy_is_shown_with_its_interval() -> None:
    assert str(Evaluation(97, 100, 0.1)) == "97.00 % (95 % interval 91.55 to 98.97 %, n = 100)"
    assert str(Evaluation(100, 100, 0.1)) == "100.00 % (95 % interval 96.30 to 100.00 %, n = 100)"


def test_the_best_weights_are_those_of_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With accuracies 0.2, 0.6, 0.6 and 0.4, they are those of the second epoch; the last and the best are both tested."""
    states, seen = [], []
    validate = loop.FinalNetwork.validate

    def measured(logits: torch.Tensor, labels: torch.Tensor) -> Evaluation:
        found = evaluate_logits(logits, labels)
        seen.append(found)
        return Evaluation([2, 6, 6, 4][len(seen) - 1], 10, 0.0) if len(seen) <= 4 else found

    def watched(self: loop.FinalNetwork, epoch: int, images: Any) -> float:
        states.append(self.weights())
        kept = list(images)
        assert sum(len(labels) for _, labels in kept) == 70  # a fifth of 359 images, split by class
        return validate(self, epoch, kept)

    monkeypatch.setattr(loop, "evaluate_logits", measured)
    monkeypatch.setattr(loop.FinalNetwork, "validate", watched)
    settings = ["retrain.validation_fraction=0.2", "retrain.epochs=4", "retrain.lr=0.1", "retrain.cutout=0"]
    assert run_retrain(tmp_path / "run", *settings) == 0
    best, last = (load_file(tmp_path / "run" / f"{name}.safetensors") for name in ("best", "network"))
    assert all(torch.equal(value, states[1][name]) for name, value in best.items())
    assert all(torch.equal(value, states[3][name]) for name, value in last.items())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (len(seen), result["best"]["test_loss"], result["test_loss"]) == (6, seen[4].loss, seen[5].loss)
    assert seen[4].loss != seen[5].loss
    assert f"best of 4 epochs on held-out images: test accuracy {seen[4]}\n" in capsys.readouterr().out


# --- parts of the recipe -----------------------------------------------------------------------------------------

EVERYTHING = [
    "retrain.batch=30",
    "retrain.accumulate=2",
    "retrain.amp=bf16",
    "retrain.nesterov=true",
    "retrain.ema=0.9",
    "retrain.jitter=0.4",
    "retrain.smallest_crop=0.5",
    "retrain.epochs=3",
    "retrain.warmup_epochs=1",
    "retrain.validation_fraction=0.2",
]


@pytest.mark.parametrize("after", [pytest.param("epoch 1", marks=pytest.mark.proof), "step 8"])
def test_a_retraining_with_every_option_resumes_bit_identically(
    everything: Path, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        assert run_retrain(tmp_path / "cut", *EVERYTHING) == 75
    assert run_retrain(tmp_path / "cut", *EVERYTHING, "resume=true") == 0
    assert results(tmp_path / "cut") == results(everything)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "everything"
    assert run_retrain(folder, *EVERYTHING) == 0
    return folder


@pytest.mark.proof
def test_a_compiled_network_is_saved_with_the_original_names(
    everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = []

    def compile_eagerly(network: torch.nn.Module) -> Any:
        networks.append(compiled := torch._dynamo.optimize("eager")(network))
        return compiled

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    settings = [*EVERYTHING, "retrain.compile=true"]
    with monkeypatch.context() as patch:
        interrupt(patch, "step 8")
        assert run_retrain(tmp_path / "cut", *settings) == 75
    assert run_retrain(tmp_path / "cut", *settings, "resume=true") == 0
    assert len(networks) == 2
    assert any(name.startswith("_orig_mod.") for name in networks[0].state_dict())
    ours, plain = (load_file(folder / "network.safetensors") for folder in (tmp_path / "cut", everything))
    assert ours.keys() == plain.keys()
    assert results(tmp_path / "cut") == results(everything)


def test_the_moving_average_is_the_result(base: bytes, tmp_path: Path) -> None:
    """The average does not affect the training, and its accuracy soon comes close to that of the last weights."""
    recipe = ["retrain.epochs=4", "retrain.lr=0.1", "retrain.drop_path=0", "retrain.cutout=0", "retrain.batch=30"]
    assert run_retrain(tmp_path / "plain", *recipe) == 0
    assert run_retrain(tmp_path / "ema", *recipe, "retrain.ema=0.99") == 0
    records = [results(tmp_path / name)["records"] for name in ("plain", "ema")]
    assert records[0] == records[1]
    found = [json.loads((tmp_path / name / "result.json").read_text())["test_accuracy"] for name in ("plain", "ema")]
    final, state = (
        load_file(tmp_path / "ema" / "network.safetensors"),
        load_checkpoint(tmp_path / "ema" / "checkpoint", {}),
    )
    assert state is not None
    raw, ema = (state[0]["objects"][name] for name in ("network", "average"))
    weights = [name for name in final if name.endswith("weight")]
    assert weights and all(torch.equal(final[name], ema[f"network.{name}"]) for name in final)
    assert not any(torch.equal(final[name], raw[name]) for name in weights)
    assert found[1] > 0.5
    assert found[1] > found[0] - 0.1
    assert json.loads((tmp_path / "ema" / "status.json").read_text())["state"] == "done"
    assert main(["evaluate", str(tmp_path / "ema"), "threads=1"]) == 0


def test_a_failed_graph_capture_does_not_affect_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that fails after the backward pass leaves gradients of values that were never computed."""

    def refuse(*given: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    def after_a_failure(step: Any, *given: Any) -> Any:
        def take(*given: Any) -> Any:
            with pytest.raises(RuntimeError), monkeypatch.context() as patch, torch.random.fork_rng():
                patch.setattr(loop, "optimizer_step", refuse)
                step(*given)
            return step(*given)

        return take

    retried, once = tmp_path / "retried", tmp_path / "once"
    monkeypatch.setattr(loop, "to_device", lambda network, device: without_statistics(network))
    for folder, graphed in ((retried, after_a_failure), (once, lambda step, *given: step)):
        monkeypatch.setattr(loop, "GraphedStep", graphed)
        assert run_retrain(folder, "retrain.epochs=1", "data.fraction=0.1") == 0
    first, second = (load_file(folder / "network.safetensors") for folder in (retried, once))
    weights = [name for name in second if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(first[name], second[name]) for name in weights)


def without_statistics(network: torch.nn.Module) -> torch.nn.Module:
    """Keep the batch norms of a network from updating their statistics, so that a step changes only the weights."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    return network


def test_label_smoothing_follows_its_authors() -> None:
    """Szegedy et al. 2016, section 7: the label has weight 1 - e, and every class an additional e / K."""
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])
    wanted = 0.9 * torch.nn.functional.one_hot(labels, 4) + 0.1 / 4
    expected = -(wanted * logits.float().log_softmax(1)).sum()
    assert summed_loss(logits, labels, 0.1).item() == pytest.approx(expected.item(), rel=1e-6)


def test_accumulated_batches_are_equal_to_one_large_batch(large_digits: Path, tmp_path: Path) -> None:
    """The network has no batch norms, which would normalise each batch separately."""
    data = ["data.name=npz", f"data.path={large_digits}", "data.fraction=0.2", "threads=1"]
    recipe = ["retrain.epochs=2", "retrain.cutout=3", "retrain.label_smoothing=0.1", "retrain.lr=0.05"]
    networks = []
    for batch, accumulate in ((60, 1), (20, 3), (30, 2)):
        folder = tmp_path / str(batch)
        parts = [f"retrain.batch={batch}", f"retrain.accumulate={accumulate}"]
        assert main(["retrain", "lenet", "digits", *data, *recipe, *parts, f"run={folder}"]) == 0
        networks.append(load_file(folder / "network.safetensors"))
    for name, whole in networks[0].items():
        for parted in networks[1:]:
            torch.testing.assert_close(parted[name], whole, rtol=1e-4, atol=1e-5)
    assert not torch.equal(networks[0]["conv1.weight"], torch.zeros_like(networks[0]["conv1.weight"]))


def test_the_learning_rate_is_warmed_up(tmp_path: Path) -> None:
    recipe = ["retrain.epochs=4", "retrain.warmup_epochs=2", "retrain.schedule=linear", "retrain.lr=0.4"]
    assert run_retrain(tmp_path, *recipe, "data.fraction=0.1") == 0
    lrs = [record["lr"] for record in results(tmp_path)["records"]]
    assert lrs == pytest.approx([0.2, 0.3, 0.2, 0.1])


# --- reference networks ------------------------------------------------------------------------------------------

GOOGLENET = [
    "threads=1",
    "data.fraction=0.1",
    "retrain.epochs=2",
    "retrain.batch=40",
    "retrain.validation_fraction=0.1",
]
"""Settings for a network with batch norms and dropout, on digits of 8 x 8 pixels."""


@pytest.fixture(scope="module")
def large_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits at 16 x 16 pixels, large enough for lenet."""
    from rapdarts.data import dataset as data

    small = np.load(Path(data.__file__).with_name("digits.npz"))
    x = small["x"].repeat(2, 1).repeat(2, 2) * 15
    arrays, halves = {"x": x, "y": small["y"]}, {"train": small["test"] == 0, "test": small["test"] == 1}
    file = tmp_path_factory.mktemp("data") / "digits16.npz"
    np.savez(file, **{f"{name}_{half}": arrays[name][rows] for name in arrays for half, rows in halves.items()})
    return file


@pytest.fixture(scope="module")
def googlenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted retraining of a reference network."""
    folder = tmp_path_factory.mktemp("runs") / "googlenet"
    assert main(["retrain", "GoogLeNet", "digits", *GOOGLENET, f"run={folder}"]) == 0
    return folder


def test_a_reference_network_learns_and_can_be_evaluated(
    large_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = tmp_path / "run", ["data.name=npz", f"data.path={large_digits}"]
    recipe = ["threads=1", "retrain.epochs=4", "retrain.batch=20", "retrain.auxiliary=0.4", "retrain.drop_path=0.2"]
    assert main(["retrain", "LeNet", "digits", *data, *recipe, f"run={folder}"]) == 0
    out, err = capsys.readouterr()
    assert "building lenet for images of 1x16x16 and 10 classes\n" in err
    assert "ignoring retrain.drop_path and retrain.auxiliary: used only by networks built from cells\n" in err

    result = json.loads((folder / "result.json").read_text())
    assert result["network"] == "lenet"
    assert result["test_accuracy"] > 0.85
    assert result["costs"] == count(REFERENCE["lenet"].build((1, 16, 16), 10), (1, 16, 16))
    assert out.startswith(f"test accuracy {100 * result['test_accuracy']:.2f} %")
    assert not (folder / "genotype.json").exists()

    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == result["test_accuracy"]
    assert main(["report", str(folder)]) == 0
    (row,) = capsys.readouterr().out.splitlines()[2:]
    assert "| retrain lenet | npz | 0 | 4 epochs | " in row
    assert f" {result['costs']['params']:,} | {result['costs']['macs']:,} | " in row


@pytest.mark.parametrize("after", [pytest.param("epoch 1", marks=pytest.mark.proof), "step 4"])
def test_an_interrupted_reference_network_resumes_bit_identically(
    googlenet: Path, tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["retrain", "googlenet", "digits", *GOOGLENET, f"run={tmp_path / 'cut'}"]
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        assert main(command) == 75
    assert main([*command, "resume=true"]) == 0
    assert results(tmp_path / "cut") == results(googlenet)
    assert set(results(googlenet)) == {"records", "network.safetensors", "best.safetensors"}
    assert not any("drop_path" in record for record in results(googlenet)["records"])  # it has no paths to drop


def test_resuming_with_another_network_is_refused(googlenet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, code, reason in (
        ("googlenet_d2l", 4, "belongs to a different reference network"),
        ("PDARTS", 2, "skeleton"),
    ):
        assert main(["retrain", name, "digits", *GOOGLENET, f"run={googlenet}", "resume=true"]) == code
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("lenet", "digits"), "lenet cannot take an image of 1x8x8: the output of its layer conv2 would be empty"),
        (
            ("LeNet", "digits", "skeleton.layers=3"),
            "lenet is a reference network, which does not use skeleton.layers=",
        ),
        (("lenet", "digits", "stem=cifar"), "lenet is a reference network, which does not use stem=; leave it out."),
        (
            ("googlenet", "digits", "retrain.batch=5000"),
            "retrain.batch=5000 is larger than the 1197 training images that batches are drawn from;",
        ),
        (
            ("googlenett", "digits"),
            "there is no network 'googlenett': it is neither a file nor a known name; the nearest is googlenet.",
        ),
    ],
)
def test_invalid_retrainings_are_refused_before_a_folder_is_made(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retrain", *arguments, f"run={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"rapdarts: error: {sentence}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reference_network_does_not_accept_a_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("from search_spaces.darts import SPACE\n")
    assert main(["retrain", "googlenet", "digits", "--space", str(tmp_path / "mine.py")]) == 2
    assert "which does not use --space; leave it out." in capsys.readouterr().err


def test_all_networks_have_different_names() -> None:
    names = [name.lower() for name in (*LITERATURE, *REFERENCE)]
    assert len(names) == len(set(names))


@pytest.mark.skipif("RAPDARTS_DATA" not in os.environ, reason="RAPDARTS_DATA is not set to a folder with real data")
def test_lenet_learns_fashion_mnist(tmp_path: Path) -> None:
    path = Path(os.environ["RAPDARTS_DATA"]) / "fashion-mnist"
    if not path.is_dir():
        pytest.skip("RAPDARTS_DATA has no fashion-mnist")
    recipe = ["threads=1", "data.fraction=0.05", "retrain.epochs=2", "retrain.batch=32", "retrain.lr=0.1"]
    data = ["data.name=fashion_mnist", f"data.path={path}", "data.flip=true"]
    assert main(["retrain", "lenet", "digits", *data, *recipe, f"run={tmp_path}"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["n"] == 10_000
    assert result["test_accuracy"] > 0.6

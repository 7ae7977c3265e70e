"""The library: every function of `import rapdarts`, on data from memory, compared with the commands."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import rapdarts
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cli.main import main
from rapdarts.config import key_values
from rapdarts.config.experiment import DataConfig, Experiment, SearchConfig
from rapdarts.config.hardware import HardwareConfig
from rapdarts.cost.count import count, count_derived
from rapdarts.data import dataset as datasets
from rapdarts.data.in_memory import read_in_memory
from rapdarts.deploy.blueprint import ReferenceBlueprint
from rapdarts.deploy.model_file import head_of
from rapdarts.deploy.space_lookup import named_space, space_from_file
from rapdarts.errors import DamagedError, InputError, Preempted
from rapdarts.interruptions import SIGNALS
from rapdarts.loops import launch as launches
from rapdarts.loops.launch import Retrained, Searched
from rapdarts.networks import layers
from rapdarts.networks.primitives import PRIMITIVES, choose
from rapdarts.networks.reference import REFERENCE
from rapdarts.strategy.alphas import read_alphas
from rapdarts.training.checkpoint import origin_of
from rapdarts.training.log import Screen
from rapdarts.training.run import Run
from tests.edited import plain

TINY: dict[str, Any] = {
    "threads": 1,
    "data": {"crop": 1, "flip": False},
    "skeleton": {"layers": 3, "channels": 4},
    "search": {
        "channels": 2,
        "layers": (3, 3),
        "candidates": [0, 3],
        "skip_dropout": [0.3, 0.5],
        "epochs": 2,
        "warmup_epochs": 1,
        "batch": 50,
        "alpha_lr": 0.05,
    },
    "retrain": {"epochs": 2, "batch": 40, "drop_path": 0.2, "auxiliary": 0.4, "cutout": 2, "lr": 0.1},
}
AS_WORDS = [
    "data.crop=1",
    "flip=false",
    "skeleton.layers=3",
    "skeleton.channels=4",
    *(f"search.{key}={str(value).replace('(', '[').replace(')', ']')}" for key, value in TINY["search"].items()),
]
MINE = SearchSpace("mine", choose("none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, so that nothing is written into the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return 300 digits, (300, 1, 8, 8) uint8, and their labels (300,)."""
    with np.load(Path(datasets.__file__).with_name("digits.npz")) as stored:
        return (stored["x"][:300, None].astype(np.int64) * 255 // 16).astype(np.uint8), stored["y"][:300]


IMAGES, LABELS = some_digits()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """The result of a search on arrays."""
    folder = tmp_path_factory.mktemp("runs") / "search"
    return rapdarts.search(TINY, {"cost.macs": 0.2}, data=(IMAGES, LABELS), run=folder, progress=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    """The result of a retraining on arrays, tested on other arrays."""
    folder = tmp_path_factory.mktemp("runs") / "net"
    data, test = (IMAGES[:200], LABELS[:200]), (IMAGES[200:], LABELS[200:])
    return rapdarts.retrain("PDARTS", TINY, data=data, test=test, run=folder, epochs=6, progress=False)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the arguments of searches instead of launching them."""
    calls: list[Any] = []
    monkeypatch.setattr(launches, "run_search", lambda *arguments: calls.append(arguments))
    return calls


# --- importing ---------------------------------------------------------------------------------------------------


def test_importing_loads_nothing_heavy() -> None:
    script = "import sys, rapdarts; dir(rapdarts); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert set(result.stdout.split()) & {"torch", "numpy", "omegaconf", "yaml", "rich", "PIL"} == set()


def test_every_public_name_exists_and_is_known_to_type_checkers() -> None:
    import rapdarts.loops.retrain
    import rapdarts.loops.search  # a module called rapdarts.search would shadow the function

    assert set(rapdarts.__all__) <= set(dir(rapdarts))
    for name in rapdarts.__all__:
        assert getattr(rapdarts, name).__name__ == name
    tree = ast.parse(Path(str(rapdarts.__file__)).read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    names = [alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(names) == sorted(rapdarts.__all__)
    with pytest.raises(AttributeError, match="no attribute 'sarch'"):
        rapdarts.sarch  # noqa: B018


# --- searching ---------------------------------------------------------------------------------------------------


def test_a_search_returns_genotype_costs_and_candidates(found: Searched) -> None:
    assert isinstance(found.genotype, rapdarts.Genotype)
    assert found.genotype.skeleton == Skeleton(3, 4, (1, 8, 8), 10)
    assert found.costs == rapdarts.costs(found.genotype)
    assert found.genotype.cells in [candidate.cells for candidate in found.candidates]
    assert all(candidate.costs["macs"] > 0 for candidate in found.candidates)
    assert plain(found.folder / "result.json") == found.report
    assert rapdarts.read(found.folder).cells == found.genotype.cells
    assert "name: memory" in (found.folder / "config.yaml").read_text()


def test_the_library_and_the_command_find_the_same_genotype(found: Searched, elsewhere: Path) -> None:
    np.savez("digits.npz", x=IMAGES, y=LABELS)
    words = ["threads=1", "data.name=npz", "data.path=digits.npz", "cost.macs=0.2", *AS_WORDS]
    assert main(["search", "digits", *words, "seed=0", "search.subset=1", "search.lr=0.025", "run=same"]) == 0
    assert (elsewhere / "same" / "alphas.json").read_bytes() == (found.folder / "alphas.json").read_bytes()
    assert rapdarts.read("same").cells == found.genotype.cells


def test_a_search_meets_its_budget() -> None:
    keys: dict[str, Any] = {"budget.params": 5000, "search.layers": [3], "candidates": [0], "skip_dropout": [0]}
    found = rapdarts.search(TINY, keys, data=(IMAGES, LABELS), run="budget", progress=False)
    assert found.costs["params"] <= 5000
    assert len(found.candidates) > 1


@pytest.mark.parametrize("progress", [True, False])
def test_progress_goes_to_stderr_or_nowhere(
    progress: bool, capfd: pytest.CaptureFixture[str], launched: list[Any]
) -> None:
    rapdarts.retrain("PDARTS", TINY, data=(IMAGES, LABELS), run="run", epochs=1, progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("retraining epoch 1/1" in err) is progress
    assert progress or err == ""
    rapdarts.search("digits", progress=progress)
    assert launched[0][-1].closed is not progress


def test_a_run_without_a_folder_gets_a_new_one(elsewhere: Path) -> None:
    keys: dict[str, Any] = {"retrain.epochs": 1, "skeleton.layers": 3, "skeleton.channels": 4, "threads": 1}
    folders = [
        rapdarts.retrain("PDARTS", "digits", {**keys, "data.fraction": 0.2}, progress=False).folder,
        rapdarts.retrain("PDARTS", keys, data=(IMAGES, LABELS), progress=False).folder,
    ]
    assert folders == [Path("runs/retrain-digits-1"), Path("runs/retrain-memory-1")]


def test_a_stopped_search_resumes_bit_identically(found: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    original = Run.log

    def stop(self: Run, *shown: Any, **facts: Any) -> None:
        original(self, *shown, **facts)
        os.kill(os.getpid(), signal.SIGINT)

    def again(**more: Any) -> Searched:
        return rapdarts.search(TINY, {"cost.macs": 0.2}, data=(IMAGES, LABELS), run="cut", progress=False, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", stop)
        with pytest.raises(Preempted, match="stopped by SIGINT at stage 1/2, epoch 2, step 0"):
            again()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(InputError, match="already holds a run"):
        again()
    assert (again(resume=True).folder / "alphas.json").read_bytes() == (found.folder / "alphas.json").read_bytes()
    changed = IMAGES.copy()
    changed[0, 0, 0, 0] += 1
    with pytest.raises(DamagedError, match="data set"):
        rapdarts.search(TINY, {"cost.macs": 0.2}, data=(changed, LABELS), run="cut", resume=True)


def test_a_search_runs_in_a_thread(found: Searched) -> None:
    """Notebooks and servers use threads, and only the main thread may install signal handlers."""
    results: list[Searched] = []

    def work() -> None:
        keys = {"cost.macs": 0.2}
        results.append(rapdarts.search(TINY, keys, data=(IMAGES, LABELS), run="thread", progress=False))

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert results[0].genotype == replace(found.genotype, provenance=results[0].genotype.provenance)
    assert (results[0].folder / "alphas.json").read_bytes() == (found.folder / "alphas.json").read_bytes()


def test_the_state_of_torch_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    def disturb(*arguments: Any) -> None:
        torch.set_num_threads(threads + 1)
        torch.manual_seed(7)
        raise InputError("stopped.")

    torch.manual_seed(3)
    expected, threads = torch.rand(3), torch.get_num_threads()
    for name in ("run_search", "run_retraining"):
        monkeypatch.setattr(launches, name, disturb)
    for call in (lambda: rapdarts.search("digits"), lambda: rapdarts.retrain("PDARTS", "digits")):
        torch.manual_seed(3)
        with pytest.raises(InputError, match="stopped"):
            call()
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.rand(3), expected)


def test_a_user_space_needs_no_file(elsewhere: Path) -> None:
    keys: dict[str, Any] = {"search.candidates": [0, 2]}
    found = rapdarts.search(TINY, keys, data=(IMAGES, LABELS), space=MINE, run="mine", progress=False)
    assert found.genotype.space == "mine"
    assert read_alphas(found.folder / "alphas.json", MINE)[0].name == "mine"
    names = {name for cell in found.genotype.cells.values() for node in cell.nodes for name, _ in node}
    assert names <= set(MINE.primitives) - {"none"}
    with pytest.raises(InputError, match=r"there is no search space .mine.*space= in a program"):
        rapdarts.derived(found.genotype)
    network = rapdarts.derived(found.genotype, space=MINE)
    assert sum(weight.numel() for weight in network.parameters()) == found.costs["params"]

    trained = rapdarts.retrain(
        found.genotype, TINY, data=(IMAGES, LABELS), space=MINE, run="net", epochs=1, progress=False
    )
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(trained.network(images), rapdarts.load("net", space=MINE)(images))
    with pytest.raises(InputError, match="there is no search space 'mine'"):
        rapdarts.load("net")
    other = replace(MINE, primitives={**MINE.primitives, "sep_conv_3x3": PRIMITIVES["sep_conv_5x5"]})
    with pytest.raises(DamagedError, match="search space"):
        rapdarts.search(TINY, keys, data=(IMAGES, LABELS), space=other, run="mine", resume=True)


def test_a_pool_with_wrong_gradients_on_a_gpu_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for loop in ("search", "retrain"):
        monkeypatch.setattr(
            f"rapdarts.loops.{loop}.remarks_on_pools",
            lambda network, device: layers.remarks_on_pools(network, torch.device("cuda")),
        )
    padded = replace(
        MINE, primitives={"pool": lambda channels, stride, affine: nn.AvgPool2d(3, stride, 1)}, candidates=()
    )
    keys: dict[str, Any] = {"search.candidates": [0, 1], "epochs": 1}
    found = rapdarts.search(TINY, keys, data=(IMAGES, LABELS), space=padded, warmup_epochs=0)
    assert "AvgPool2d gives a wrong gradient" in capsys.readouterr().err
    rapdarts.retrain(found.genotype, TINY, data=(IMAGES, LABELS), space=padded, epochs=1)
    assert "AvgPool2d gives a wrong gradient" in capsys.readouterr().err


SPACE_IN_A_PROGRAM = """
from functools import partial
from torch import nn
from rapdarts.networks.primitives import choose
from rapdarts import SearchSpace

class Twice(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.pool, self.how = pool, lambda x: x + x

    def forward(self, x):
        return self.how(self.pool(x))

    def extra_repr(self):
        return repr(self.how)

def pooled(kernel, channels, stride, affine):
    return Twice(nn.MaxPool2d(kernel, stride, kernel // 2))

names = choose("none", "skip_connect")
SPACE = SearchSpace("mine", {**names, "five": partial(pooled, 5), "three": lambda *given: pooled(3, *given)})
"""


def test_a_space_is_recognised_in_another_process_unless_it_changed(elsewhere: Path) -> None:
    keys: dict[str, Any] = {
        "search.candidates": [0],
        "search.layers": [3],
        "search.skip_dropout": [0.0],
        "search.epochs": 1,
    }
    keys |= {"search.warmup_epochs": 0}

    def again(text: str, run: str = "mine", resume: bool = True) -> Searched:
        (elsewhere / "space.py").write_text(text)
        space = space_from_file(elsewhere / "space.py")
        return rapdarts.search(TINY, keys, data=(IMAGES, LABELS), space=space, run=run, resume=resume, progress=False)

    again(SPACE_IN_A_PROGRAM, resume=False)
    here = origin_of(elsewhere / "mine" / "checkpoint")["search space"]
    code = "import sys; from rapdarts.deploy.space_lookup import source_of; from space import SPACE; sys.stdout.write(source_of(SPACE))"
    path = f"{elsewhere}{os.pathsep}{Path(rapdarts.__file__).parent.parent}"
    other = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert other.stdout == here and str(elsewhere) not in here
    again(SPACE_IN_A_PROGRAM)
    # Each change alters the size of the file: Python reuses compiled code if the size and modification time (in s) are equal.
    changes = {"x + x": "x + x * 2", "pooled, 5": "pooled, 11", "pooled(3,": "pooled(103,", "// 2)": "// 2, 1)"}
    for old, new in changes.items():
        with pytest.raises(DamagedError, match="belongs to a different search space"):
            again(SPACE_IN_A_PROGRAM.replace(old, new))


def test_a_genotype_retrained_in_another_space_takes_its_name() -> None:
    """Otherwise, the file of the trained network would name a space with other primitives."""
    wide = replace(named_space("darts"), name="wide")
    trained = rapdarts.retrain("PDARTS", TINY, data=(IMAGES, LABELS), space=wide, run="net", epochs=1, progress=False)
    assert rapdarts.read("net").space == "wide"
    assert trained.network(torch.rand(2, 1, 8, 8)).shape == (2, 10)


# --- forms of an experiment --------------------------------------------------------------------------------------


def test_all_forms_of_an_experiment(launched: list[Any], elsewhere: Path) -> None:
    (elsewhere / "mine.yaml").write_text("seed: 3\nsearch: {epochs: 7, warmup_epochs: 1}\n")
    value = Experiment(seed=4, search=SearchConfig(epochs=8, warmup_epochs=1))
    rapdarts.search("digits", epochs=5)
    rapdarts.search("mine.yaml", warmup_epochs=2)
    rapdarts.search(elsewhere / "mine.yaml", {"seed": 9}, run=elsewhere / "there", resume=True)
    rapdarts.search(value, {"search": {"batch": 10}}, epochs=6)
    rapdarts.search(
        {"search": {"layers": (3, 3, 4), "epochs": 9, "warmup_epochs": 1}, "search.batch": 11, "run": "here"},
        {"batch": 12},
    )
    rapdarts.search({"search.strategy": "darts"}, space="filters")
    configs = [arguments[0] for arguments in launched]
    assert [(config.seed, config.search.epochs) for config in configs] == [
        (0, 5), (3, 7), (9, 7), (4, 6), (0, 9), (0, 50),
    ]  # fmt: skip
    assert [config.search.batch for config in configs] == [96, 96, 96, 10, 12, 64]
    assert [config.search.layers for config in configs[-2:]] == [[3, 3, 4], [8]]
    assert (configs[0].data.crop, value.search.batch, value.search.epochs) == (1, 96, 8)
    assert [arguments[1].name for arguments in launched] == ["darts"] * 5 + ["filters"]
    where = [(arguments[2].run, arguments[2].resume) for arguments in launched]
    assert where == [
        ("", False),
        ("", False),
        (str(elsewhere / "there"), True),
        ("", False),
        ("here", False),
        ("", False),
    ]
    assert [arguments[3] for arguments in launched] == ["digits", "mine", "mine", "digits", "digits", "digits"]


def test_an_experiment_may_be_an_omegaconf_object(launched: list[Any], elsewhere: Path) -> None:
    settings = {"seed": 5, "search": {"epochs": "${seed}", "warmup_epochs": 1, "layers": [3, 3, 4]}}
    rapdarts.search(OmegaConf.create(settings), OmegaConf.create({"search.batch": 11}))
    (config,) = [arguments[0] for arguments in launched]
    assert (config.search.epochs, config.search.layers, config.search.batch) == (5, [3, 3, 4], 11)


def test_a_strategy_sets_values_of_an_experiment(launched: list[Any]) -> None:
    rapdarts.search(Experiment(), strategy="darts")
    assert launched[0][0].search.layers == [8]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown key": (lambda: rapdarts.search("digits", epoch=5), "there is no key 'epoch'; the nearest is search.epochs."),
    "type": (lambda: rapdarts.search("digits", epochs="many"), "search.epochs takes a whole number"),
    "range": (lambda: rapdarts.search("digits", epochs=0), "search.epochs=0 is out of range"),
    "experiment": (lambda: rapdarts.search("digit"), "there is no experiment 'digit'; the nearest is digits"),
    "random": (lambda: rapdarts.search("digits", strategy="random"), "does not search for one"),
    "resume": (lambda: rapdarts.search("digits", resume=True), "resume=true needs run=PATH"),
    "space": (lambda: rapdarts.search("digits", space="dart"), "there is no search space 'dart'; the nearest is darts"),
    "bad space": (
        lambda: rapdarts.search("digits", space=SearchSpace("odd", {"flat": lambda c, s, a: nn.Flatten()})),
        "the space odd: the primitive flat maps",
    ),
    "test alone": (lambda: rapdarts.search("digits", test=(IMAGES, LABELS)), "test= is passed without data="),
    "batch": (lambda: rapdarts.search(TINY, data=(IMAGES, LABELS), batch=200), "search.batch=200 is larger than the"),
    "genotype": (
        lambda: rapdarts.retrain("PDART", "digits"),
        r"there is no network 'PDART': it is neither a file nor a known name; the nearest is PDARTS\.",
    ),
    "network": (
        lambda: rapdarts.costs("lenett"),
        r"there is no network 'lenett': it is neither a file, package\.module:callable nor a known name; the nearest is lenet\.",
    ),
    "no genotype": (
        lambda: rapdarts.read("PDART"),
        "there is no genotype 'PDART': it is neither a file nor a known name; the nearest is PDARTS.",
    ),
    "skeleton": (lambda: rapdarts.retrain("lenet", "digits", {"skeleton.layers": 3}), "does not use skeleton.layers="),
    "space of a reference network": (lambda: rapdarts.retrain("lenet", "digits", space=MINE), "does not use space=; leave it out"),
    "memory": (
        lambda: rapdarts.search("digits", {"data.name": "memory"}),
        r"refers to images passed by a program; pass them again with data=\(images, labels\)",
    ),
    "no search": (lambda: rapdarts.derive([]), "needs the folder of a finished search; pass at least one"),
    "spend": (lambda: rapdarts.derive("PDARTS", spend=1.5), "spend=1.5 is out of range; it must be auto, or 0 to 1"),
    "no network": (lambda: rapdarts.load("PDARTS"), "PDARTS is a network without weights; train it first"),
    "image": (lambda: rapdarts.derived("PDARTS", image=(32, 32)), r"image=\(32, 32\) must be \(channels, height"),
    "stem": (lambda: rapdarts.derived("PDARTS", stem="big"), "stem cannot be 'big'"),
    "another space": (lambda: rapdarts.derived("PDARTS", space=MINE), "no primitive 'dil_conv_3x3'"),
    "width": (lambda: rapdarts.derived("PDARTS", channels=1), "cannot halve its channels; use at least 2"),
    "text": (lambda: rapdarts.read("Genotype(normal=[])"), "the genotype: the field normal_concat is missing"),
    "key for a module": (lambda: rapdarts.costs(nn.Flatten(), channels=8), "a Flatten does not use channels="),
    "key for a reference network": (lambda: rapdarts.costs("alexnet", layers=8), "alexnet does not use layers="),
    "channels": (lambda: rapdarts.costs(nn.Conv2d(1, 4, 3)), r"Pass an input of another shape \(.*in Python, image=\(C, H, W\)\)"),
    "too small": (lambda: rapdarts.costs("alexnet", image=(3, 8, 8)), "alexnet cannot take an image of 3x8x8"),
    "negative": (lambda: rapdarts.search(TINY, data=(IMAGES - 300.0, LABELS)), "data, images: pixels are whole numbers from -300 to -"),
    "0 and 1": (lambda: rapdarts.search(TINY, data=(IMAGES > 9, LABELS)), "images: the pixels are only 0 and 1, which may be"),
    "nan": (lambda: rapdarts.search(TINY, data=(IMAGES * np.nan, LABELS)), "the images contain 19,200 NaN or infinite values"),
    "shape": (lambda: rapdarts.search(TINY, data=(IMAGES[:, 0, 0], LABELS)), "data, images: images must be"),
    "lengths": (lambda: rapdarts.search(TINY, data=(IMAGES, LABELS[:9])), "data, labels: 300 images need labels"),
    "labels": (lambda: rapdarts.search(TINY, data=(IMAGES, LABELS + 1)), "data, labels: the label of image .*; subtract 1 from all labels"),
    "test labels": (
        lambda: rapdarts.search(TINY, data=(IMAGES, LABELS % 3), test=(IMAGES, LABELS)),
        "test, labels: the label of image .* but labels of 3 classes must be 0 to 2",
    ),
    "texts": (lambda: rapdarts.search(TINY, data=(IMAGES, ["a"] * 300)), "data, labels must be numbers, not <U1, such as a; "),
    "one array": (lambda: rapdarts.search(TINY, data=IMAGES), r"data: item 0 must be \(image, label\), not ndarray"),
    "a loader": (
        lambda: rapdarts.search(TINY, data=DataLoader(TensorDataset(torch.from_numpy(IMAGES)))),
        "data is a DataLoader, .*; pass its data set: data=loader.dataset",
    ),
    "items without an image": (
        lambda: rapdarts.search(TINY, data=[{"picture": IMAGES[0], "label": 0}]),
        r"data: item 0 has the keys picture, label; use one key for the image \(image or img\) and one for the label",
    ),
    "two labels": (
        lambda: rapdarts.search(TINY, data=[{"img": IMAGES[0], "label": 0, "fine_label": 1}]),
        "data: item 0 has the keys img, label, fine_label; use one key for the image",
    ),
    "a number": (lambda: rapdarts.search(TINY, data=3), r"data must be a pair \(images, labels\), or a data set"),
    "empty data": (lambda: rapdarts.search(TINY, data=[]), "data has no images"),
    "a mapping": (lambda: rapdarts.search(TINY, data={"train": (IMAGES, LABELS)}), "data must be a pair .*not dict"),
    "sparse": (
        lambda: rapdarts.search(TINY, data=(torch.from_numpy(IMAGES).to_sparse(), LABELS)),
        "data, images cannot be converted to an array",
    ),
    "meta tensors": (
        lambda: rapdarts.search(TINY, data=(torch.empty(4, 1, 8, 8, device="meta"), LABELS[:4])),
        "data, images cannot be converted to an array",
    ),
    "lazy layers": (lambda: rapdarts.costs(nn.LazyLinear(3)), "a LazyLinear has lazy layers without weights"),
    "no pixels": (lambda: rapdarts.costs(nn.Identity(), image=(3, 0, 8)), "input=3x0x8 is not the shape of an input"),
    "sizes": (lambda: rapdarts.search(TINY, data=[(IMAGES[0], 0), (IMAGES[0, :, 1:], 1)]), "image 1 is .* to one size"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused(case: str, elsewhere: Path) -> None:
    call, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as caught:
        call()
    assert isinstance(caught.value, rapdarts.RapdartsError) and caught.type is rapdarts.InputError
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert list(elsewhere.iterdir()) == []


def test_commands_cannot_use_data_from_memory(trained: Retrained, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained.folder)]) == 2
    assert "or use other data, such as data.name=npz" in capsys.readouterr().err


# --- forms of data -----------------------------------------------------------------------------------------------


class Pictures:
    """A map-style data set of PIL images with class names, like those of torchvision."""

    classes = tuple("abcdefghij")

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, position: int) -> tuple[Image.Image, int]:
        return Image.fromarray(IMAGES[position, 0]), int(LABELS[position])


class Rows:
    """A data set of rows with a feature of labels, like those of Hugging Face."""

    features: ClassVar[dict[str, Any]] = {"image": None, "label": SimpleNamespace(names=[*"abcdefghij"])}

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {"image": Image.fromarray(IMAGES[position, 0]), "label": int(LABELS[position]), "id": position}


FLOATS = torch.from_numpy(IMAGES).float() / 255
KINDS = {
    "tensors": (torch.from_numpy(IMAGES), torch.from_numpy(LABELS)),
    "fractions": (FLOATS, torch.from_numpy(LABELS)),
    "fractions of 16 bits": (FLOATS.bfloat16(), LABELS),
    "floats": (IMAGES.astype(np.float64), LABELS.astype(np.int16)),
    "without channel": (IMAGES[:, 0], LABELS.tolist()),
    "channels last": (np.moveaxis(IMAGES, 1, 3), LABELS),
    "a torch data set": TensorDataset(FLOATS, torch.from_numpy(LABELS)),
    "pairs": [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)],
    "pictures": Pictures(),
    "rows": Rows(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_of_data_give_the_same_images(kind: str) -> None:
    test_half = FLOATS[:20] if "fractions" in kind or "torch" in kind else IMAGES[:20]
    test_half = np.moveaxis(IMAGES[:20], 1, 3) if kind == "channels last" else test_half
    found = read_in_memory(DataConfig(), KINDS[kind], (test_half, LABELS[:20]))
    train, test, names = found.train, found.test, found.names
    assert torch.equal(train.pixels, torch.from_numpy(IMAGES)) or "16 bits" in kind
    assert (train.pixels.float() - torch.from_numpy(IMAGES).float()).abs().max() <= 1
    assert train.pixels.dtype == torch.uint8
    assert train.labels.tolist() == LABELS.tolist()
    assert test is not None and len(test) == 20
    assert names == list("abcdefghij" if kind in ("pictures", "rows") else "0123456789")


def test_classes_in_another_order_are_refused() -> None:
    """Otherwise, the network would silently be tested on labels with other meanings."""

    class Turned(Pictures):
        classes = tuple("abcdefghji")

    def names(data: Any, test: Any) -> str:
        return "".join(read_in_memory(DataConfig(), data, test).names)

    assert names(Pictures(), Pictures()) == names(Pictures(), (IMAGES, LABELS)) == "abcdefghij"
    assert names((IMAGES, LABELS), Turned()) == "0123456789"
    with pytest.raises(InputError, match=r"test has the classes a, b, .* j, i, but data has a, b, .* i, j;"):
        names(Pictures(), Turned())


def test_every_run_holds_out_the_same_third(launched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "run_retraining", launches.run_search)
    rapdarts.search(TINY, data=(IMAGES, LABELS), seed=1)
    rapdarts.retrain("PDARTS", TINY, data=Pictures(), seed=2)
    rapdarts.search(TINY, data=(IMAGES, LABELS), test=(IMAGES[:50], LABELS[:50]))
    first, second, third = (arguments[-2](torch.device("cpu")) for arguments in launched)
    assert torch.equal(first.test.pixels, second.test.pixels)
    assert torch.equal(first.train.pixels, second.train.pixels)
    assert (len(first.train), len(first.test)) == (199, 101)
    assert (first.class_names[0], second.class_names[0]) == ("0", "a")
    assert (len(third.train), len(third.test)) == (300, 50)


def test_read_only_arrays_are_accepted(recwarn: pytest.WarningsRecorder) -> None:
    images = IMAGES.copy()
    images.flags.writeable = False
    assert torch.equal(read_in_memory(DataConfig(), (images, LABELS)).train.pixels, torch.from_numpy(IMAGES))
    assert not recwarn.list


# --- retraining and loading --------------------------------------------------------------------------------------


def test_a_retraining_returns_the_network_and_its_accuracy(trained: Retrained) -> None:
    assert trained.test.n == 100
    predicted = trained.network(torch.from_numpy(IMAGES[200:]) / 255).argmax(1)
    assert int((predicted == torch.from_numpy(LABELS[200:])).sum()) == trained.test.correct
    assert trained.test.accuracy > 0.3  # chance is 0.1
    assert trained.best is None
    assert trained.costs == trained.report["costs"] == rapdarts.costs("PDARTS", (1, 8, 8), 10, channels=4, layers=3)


def test_a_genotype_is_retrained_at_its_skeleton(found: Searched) -> None:
    plain = {key: value for key, value in TINY.items() if key != "skeleton"}
    more: dict[str, Any] = {"data": (IMAGES, LABELS), "progress": False, "epochs": 1}
    own = rapdarts.retrain(found.genotype, plain, run="own", **more)
    assert own.costs == found.costs
    asked = rapdarts.retrain(found.genotype, plain, {"skeleton.channels": 6}, run="asked", **more)
    assert asked.costs["params"] > found.costs["params"]


def test_loaded_networks_match_the_trained_ones(trained: Retrained) -> None:
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, bare = rapdarts.load(trained.folder), rapdarts.load(str(trained.file), normalise=False)
    assert [name for name, _ in whole.named_children()] == ["normalise", "network"]
    assert torch.equal(whole(images), trained.network(images))
    mean, std = (whole.get_buffer(f"normalise.{name}") for name in ("mean", "std"))
    torch.testing.assert_close(bare((images - mean) / std), whole(images), rtol=0, atol=0)
    assert not whole.training and not bare.training
    assert rapdarts.costs(whole, (1, 8, 8))["macs"] == trained.costs["macs"]
    assert rapdarts.costs(whole, (1, 8, 8))["params"] == trained.costs["params"]


@pytest.fixture(scope="module")
def googlenet(tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    """The result of training a reference network for one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "googlenet"
    keys: dict[str, Any] = {"retrain.epochs": 1, "retrain.batch": 50, "threads": 1}
    return rapdarts.retrain("googlenet", keys, data=(IMAGES, LABELS), run=folder, progress=False)


@pytest.mark.parametrize("kind", ["trained", "googlenet"])
@pytest.mark.parametrize("classes", [7, 10])
def test_load_with_classes_replaces_only_the_last_layer(
    kind: str, classes: int, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind).folder
    old = rapdarts.load(folder).state_dict()
    torch.manual_seed(1)
    network = rapdarts.load(folder, classes=classes)
    new = network.state_dict()
    (head,) = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    for name, weight in new.items():
        if name.startswith(f"{head}."):
            assert weight.shape[0] == classes and not torch.equal(weight, old[name][:classes])
        else:
            assert torch.equal(weight, old[name])
    assert new.keys() == old.keys()
    torch.manual_seed(1)
    assert torch.equal(rapdarts.load(folder, classes=classes).state_dict()[f"{head}.weight"], new[f"{head}.weight"])


@pytest.mark.parametrize("name", REFERENCE)
def test_the_head_of_a_reference_network_is_its_last_layer(name: str) -> None:
    blueprint = ReferenceBlueprint(name, REFERENCE[name].image, 10)
    with torch.device("meta"):
        layers = [(name, module) for name, module in blueprint.build().named_modules() if module._parameters]
    head = layers[-3:] if name == "nin" else layers[-1:]  # all three layers of its last block depend on the classes
    assert all(isinstance(module, nn.Linear | nn.Conv2d) for _, module in head)
    assert head_of(blueprint) == {f"{layer}.{part}" for layer, one in head for part, _ in one.named_parameters()}


def test_a_network_with_a_new_head_learns(trained: Retrained) -> None:
    torch.manual_seed(0)
    network = rapdarts.load(trained.folder, classes=2).train()
    images, labels = torch.from_numpy(IMAGES[:100]) / 255, torch.from_numpy(LABELS[:100] % 2)
    sgd = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(10):
        loss = cross_entropy(network(images), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_layer_of_a_loaded_network_can_be_replaced(trained: Retrained) -> None:
    network: Any = rapdarts.load(trained.folder)
    network.network.classifier.linear = nn.Linear(network.network.classifier.linear.in_features, 3)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(("classes", "sentence"), [(0, "needs at least one"), (-1, "out of range"), (2.5, "takes a")])
def test_wrong_numbers_of_classes_are_refused(trained: Retrained, classes: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        rapdarts.load(trained.folder, classes=classes)


# --- networks, costs, genotypes ----------------------------------------------------------------------------------


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_derived_networks_have_the_published_sizes() -> None:
    with torch.device("meta"):
        assert parameters(rapdarts.derived("PDARTS")) == 3_433_798
        assert parameters(rapdarts.derived("pdarts", auxiliary=True)) == 3_433_798 + 476_426
        assert parameters(rapdarts.derived(LITERATURE["NASNet"])) == 3_830_950
        on_imagenet = rapdarts.derived("PDARTS", 48, 14, (3, 224, 224), 1000)
    assert rapdarts.costs(on_imagenet, (3, 224, 224))["macs"] == 542_819_328  # with the imagenet stem


def test_a_derived_network_has_the_priced_skeleton_unless_overridden(found: Searched) -> None:
    network = rapdarts.derived(found.genotype)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert parameters(network) == found.costs["params"]
    assert len(rapdarts.derived(found.genotype, layers=5).cells) == 5
    assert rapdarts.derived(found.genotype, classes=3)(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    wider = rapdarts.derived(found.genotype, 6, image=(3, 16, 16), stem="imagenet")
    assert wider(torch.rand(2, 3, 16, 16)).shape == (2, 10)
    assert wider.stem.newer is not None


def test_costs_of_every_kind_of_network(found: Searched, elsewhere: Path) -> None:
    known = rapdarts.costs("PDARTS")
    assert (known["params"], known["macs"], known["bytes"]) == (3_433_798, 532_174_464, 4 * 3_433_798)
    assert rapdarts.costs(LITERATURE["PDARTS"]) == known
    assert rapdarts.costs("alexnet")["macs"] == 716_767_232
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    assert rapdarts.costs(linear)["macs"] == 30_720
    assert rapdarts.costs(linear) == count(linear, (3, 32, 32))
    assert linear.training
    skeleton = Skeleton(5, 8, (3, 16, 16), 7)
    again = rapdarts.costs(found.genotype, (3, 16, 16), 7, channels=8, layers=5)
    assert again == count_derived(found.genotype, named_space("darts"), skeleton)
    assert rapdarts.costs("PDARTS", precision=8)["bytes"] == 3_433_798
    expensive = HardwareConfig(mac_32=9.2, dram_32=1280.0)
    assert rapdarts.costs("PDARTS", hardware=expensive)["energy"] == pytest.approx(2 * known["energy"])
    (elsewhere / "chip.yaml").write_text(key_values.save_yaml(expensive))
    assert rapdarts.costs(linear, hardware="chip.yaml") == rapdarts.costs(linear, hardware=expensive)


def test_all_forms_of_a_genotype(found: Searched, elsewhere: Path) -> None:
    pdarts, bench = LITERATURE["PDARTS"], "|none~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|"
    (elsewhere / "file.json").write_text(pdarts.to_json())
    for form in (pdarts, "PDARTS", "file.json", Path("file.json"), pdarts.to_darts(), pdarts.to_json()):
        assert rapdarts.read(form).cells == pdarts.cells
    assert rapdarts.read(found.folder) == found.genotype
    assert rapdarts.read(bench).to_nasbench201() == bench
    assert rapdarts.read(pdarts.to_darts(), space="filters").space == "filters"
    assert isinstance(rapdarts.derived(bench, 4, 3)(torch.rand(1, 3, 8, 8)), Tensor)


def test_a_silent_screen_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for silent in (True, False):
        screen = Screen(silent)
        screen.start("training", 0, 2)
        screen.step()
        screen.say("words")
        screen.stop()
        assert capfd.readouterr().err == ("" if silent else "words\n")

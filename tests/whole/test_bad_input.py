"""User mistakes: the command exits before any training, with the right exit code and a one-line message that says what to change."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rapdarts.architecture.literature import LITERATURE
from rapdarts.cli.main import main
from rapdarts.config import key_values
from rapdarts.config.resolve import resolve_experiment
from tests.edited import without_remarks

Refuse = Callable[..., str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run commands in an empty folder, in which a hostile text would create a file called marker if it were executed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> Refuse:
    """Return a function that runs a command that must fail and returns its error message."""

    def command(*arguments: str, code: int = 2) -> str:
        found = main(arguments)
        out, err = capsys.readouterr()
        err = without_remarks(err)
        assert (found, out) == (code, ""), err
        assert err.startswith("rapdarts: error: ")
        assert err.count("\n") == 1
        assert err.endswith(".\n")
        assert "Traceback" not in err
        assert len(err) < 1000
        assert not (elsewhere / "marker").exists()
        return err.removeprefix("rapdarts: error: ").rstrip("\n")

    return command


# --- the command line --------------------------------------------------------------------------------------------

LONG = "x" * 100_000

COMMANDS = {
    # commands and arguments
    "serch digits": "there is no command 'serch'; the nearest is search (choose from find, search, derive, ",
    "train digits": "there is no command 'train'; the nearest is retrain (choose from find, search, derive, ",
    "qqq digits": "there is no command 'qqq'; choose from find, search, derive, ",
    "--json search digits": "'--json' must follow the command; write rapdarts VERB ... --json.",
    "search": "rapdarts search needs an experiment, such as digits; see rapdarts search --help.",
    "search cost.macs=0.2": "rapdarts search needs an experiment, such as digits",
    "search ''": "rapdarts search needs an experiment, such as digits",
    "search dgits": "there is no experiment 'dgits'; the nearest is digits (choose from ",
    "search ../../etc/digits": "there is no experiment '../../etc/digits'; choose from ",
    "search mine.yaml": "there is no experiment file mine.yaml; check its path.",
    "search digits extra": "rapdarts search got an unexpected argument 'extra'; write settings as key=value.",
    "search digits seed =3": "rapdarts search got an unexpected argument 'seed'; write settings as key=value.",
    "retrain": "rapdarts retrain needs a genotype (a file, a run folder or a published name such as PDARTS), or a ",
    "retrain PDARTS": "rapdarts retrain needs an experiment after the network, such as digits.",
    "retrain PDARTZ digits": "there is no network 'PDARTZ': it is neither a file nor a known name; the nearest is PDARTS.",
    "retrain alexnett digits": "there is no network 'alexnett': it is neither a file nor a known name; the nearest is alexnet.",
    "retrain digits PDARTS": "'digits' is an experiment, not a network; put the network before the experiment.",
    "retrain NASNet digits --space missing.py": "--space missing.py: there is no such Python file; check its path.",
    "derive": "rapdarts derive needs the folder of a finished search, or its alphas.json; see rapdarts derive --help.",
    "derive PDARTS": "there is no file or folder PDARTS; pass the folder of a finished search, or its alphas.json.",
    "derive .": ". is not a run folder (no config.yaml); check its path.",
    "evaluate": "rapdarts evaluate needs a run folder created by rapdarts retrain, a network.safetensors, or an ONNX file; see ",
    "evaluate PDARTS": "PDARTS is a network without weights; train it first (rapdarts retrain PDARTS EXPERIMENT run=FOLDER; in"
    " Python, rapdarts.retrain) and pass that folder.",
    "evaluate .": ". has no network.safetensors; pass the folder of a finished retraining.",
    "export": "rapdarts export needs a genotype (a file, a run folder or a name such as PDARTS), or a trained network; see ",
    "export .": ". has no genotype.json: its search has not finished, or it is not a run folder; pass the folder of a finished run.",
    "export alexnet": "alexnet is a reference network, which has no genotype; pass a genotype, such as PDARTS.",
    "export pdart": "there is no genotype 'pdart': it is neither a file nor a known name; the nearest is PDARTS.",
    "cost": "rapdarts cost needs a network, or space=NAME; see ",
    "cost lenet@3": "lenet has a fixed width; leave the @3 out.",
    "retrain resnet20@0 digits": "resnet20@0: the width must be a whole number from 1 to 4096, such as resnet20@12.",
    "evaluate resnet20@4": "resnet20@4 is a network without weights; train it first",
    "cost a b": "there is no network 'a': it is neither a file, package.module:callable nor a known name; choose from NASNet, ",
    "report": "rapdarts report needs run folders; see rapdarts report --help.",
    "report PDARTS": "PDARTS is not a run folder",
    # switches
    "search digits --jso": "rapdarts search has no switch '--jso'; its switches are --help, --debug, --json, --print-config, --space. "
    "The nearest is --json.",
    "search digits --seed=1": "Settings take no dashes; write seed=1.",
    "search digits --json=1": "--json takes no value; write only --json.",
    "search digits --space": "--space needs the path of a Python file.",
    "search digits --space missing.py": "--space missing.py: there is no such Python file; check its path.",
    "search digits --space=.": "--space .: there is no such Python file; check its path.",
    "cost PDARTS --print-config": "rapdarts cost has no switch '--print-config'; its switches are --help, --debug, --json, --space.",
    # keys
    "search digits epochss=3": "there is no key 'epochss'; the nearest is search.epochs.",
    "retrain PDARTS digits epochss=3": "there is no key 'epochss'; the nearest is retrain.epochs.",
    "search digits cost.mac=1": "there is no key 'cost.mac'; the nearest is search.cost.macs.",
    "search digits +seed=1": "there is no key '+seed'; the nearest is seed.",
    "search digits zzz=1": "there is no key 'zzz'; rapdarts search --help lists all keys.",
    "export PDARTS zzz=1": "there is no key 'zzz'; the keys are to, out, ",
    "search digits rnu=x": "there is no key 'rnu'; the nearest is run.",
    "search digits =3": "'=3' has no key; write key=value, such as seed=1.",
    "search digits data=3": "data is a section, not a key; use one of its keys, such as data.name or data.path.",
    "search digits budget=100k": "budget is a section, not a key; use one of its keys, such as budget.macs or budget.params.",
    "find digits budgets=100k": "there is no key 'budgets'; use one of the keys of search.budget, such as budget.macs or budget.params.",
    "derive RUN budget=100k": "budget is a section, not a key; use one of its keys, such as budget.macs or budget.params.",
    "derive RUN epochs=5": "there is no key 'epochs'; rapdarts search, rank and retrain use it, but rapdarts derive does not; see rapdarts",
    "search digits macs=1": "the key 'macs' is ambiguous: it could be search.cost.macs, search.budget.macs or search.random.macs; "
    "write the full name.",
    "retrain PDARTS digits budget.params=80k": "rapdarts retrain trains a given genotype and does not use budget.params=;"
    " derive another genotype with rapdarts derive RUN budget.params=80k out=FILE (in Python, rapdarts.derive),"
    " and retrain it.",
    "retrain PDARTS digits search.max_skips=1": "rapdarts derive RUN max_skips=1 out=FILE (in Python, rapdarts.derive), and retrain it.",
    "search digits data.range=1,0": "data.range=1,0 must be two values, the smaller one first, such as data.range=0,1.",
    "search digits data.range=1": "data.range takes a list such as [a, b], not 1.",
    "search digits data.layout=last": "data.layout cannot be 'last'; ",
    "find digits layers=3": "the key 'layers' is ambiguous: it could be skeleton.layers or search.layers; write the full name.",
    "cost PDARTS chanels=3": "there is no key 'chanels'; the nearest is channels.",
    "derive . search.max_skips=1": "there is no key 'search.max_skips'; the nearest is max_skips.",
    f"search digits {LONG}=1": "there is no key 'xxx",
    f"search digits {LONG}": "rapdarts search got an unexpected argument 'xxx",
    f"search {LONG}": "there is no experiment 'xxx",
    f"cost {LONG}": "there is no network 'xxx",
    f"derive {LONG}": "...; pass the folder of a finished search, or its alphas.json.",
    f"search {LONG}.yaml": "there is no experiment file xxx",
    "export PDARTS out=.": "out=. is not the name of a file; use the path of a file.",
    "export PDARTS out=/": "out=/ is not the name of a file; use the path of a file.",
    # values
    "search digits seed=": "seed takes a whole number, not nothing.",
    "search digits seed=one": "seed takes a whole number, not 'one'.",
    "search digits seed=1.5": "seed takes a whole number, not 1.5.",
    "search digits seed=010": "seed=010 cannot be read: 010 is ambiguous in YAML; write ",
    "search digits seed=-1": "seed=-1 is out of range; it must be 0 to 4,294,967,295.",
    "search digits seed=4294967296": "seed=4294967296 is out of range; it must be 0 to 4,294,967,295.",
    f"search digits seed={'9' * 5000}": "cannot be read: the number has more than 100 digits.",
    "search digits epochs=0": "search.epochs=0 is out of range; it must be 1 to 1e6.",
    "search digits replicas=0": "search.replicas=0 is out of range; it must be 1 to 100.",
    "search digits replicas=101": "search.replicas=101 is out of range; it must be 1 to 100.",
    "search digits replicas=1.5": "search.replicas takes a whole number, not 1.5.",
    "search digits spend=1.5": "search.spend=1.5 is out of range; it must be auto, or 0 to 1.",
    "search digits spend=-0.1": "search.spend=-0.1 is out of range; it must be auto, or 0 to 1.",
    "search digits spend=-1": "search.spend=-1 is out of range; it must be auto, or 0 to 1.",
    "search digits spend=-1.0": "search.spend=-1.0 is out of range; it must be auto, or 0 to 1.",
    "search digits spend=most": "search.spend takes a number, not 'most'.",
    "search digits spend=.nan": "search.spend=nan is out of range; it must be auto, or 0 to 1.",
    "search digits max_skips=-1": "search.max_skips=-1 is out of range; it must be auto, or 0 to 1000.",
    "search digits rule=best": "search.rule cannot be 'best'; choose from auto, pdarts, darts, exact.",
    "search digits derive_none=1": "search.derive_none takes true or false, not 1.",
    "search digits skip_paths=two": "search.skip_paths cannot be 'two'; choose from auto, any, one.",
    "search digits skip_paths=one": "skip_paths=one needs rule=exact; add rule=exact, or leave out skip_paths.",
    "search digits skip_paths=one budget.params=100k": "search.skip_paths=one needs cells with one input,"
    " which the space darts does not have; use auto.",
    "derive . skip_paths=two": "skip_paths cannot be 'two'; choose from auto, any, one.",
    "derive . spend=1.5": "spend=1.5 is out of range; it must be auto, or 0 to 1.",
    "derive . spend=-1": "spend=-1 is out of range; it must be auto, or 0 to 1.",
    "derive . rule=best": "rule cannot be 'best'; choose from auto, pdarts, darts, exact.",
    "search digits batch=1": "search.batch=1 is out of range; it must be 2 to 1e6.",
    "search digits lr=true": "search.lr takes a number, not True.",
    "search digits lr=0": "search.lr=0.0 is out of range; it must be above 0 and at most 1000.",
    "search digits lr=-0.1": "search.lr=-0.1 is out of range; it must be above 0 and at most 1000.",
    "search digits lr=nan": "search.lr takes a number, not 'nan'.",
    "search digits lr=.nan": "search.lr=nan is out of range; it must be above 0 and at most 1000.",
    "search digits cost.macs=-1": "search.cost.macs=-1.0 is out of range; it must be 0 to 1e6.",
    "search digits cost.macs=.nan": "search.cost.macs=nan is out of range; it must be 0 to 1e6.",
    "search digits cost.macs=.inf": "search.cost.macs=inf is out of range; it must be 0 to 1e6.",
    "search digits cost.macs=1e999": "search.cost.macs=inf is out of range; it must be 0 to 1e6.",
    "search digits cost.macs=1e30": "search.cost.macs=1e+30 is out of range; it must be 0 to 1e6.",
    "search digits cost.macs=1e-320": "search.cost.macs=1e-320 is too close to 0; write 0, or at least 1e-30.",
    "search digits cost.macs=true": "search.cost.macs takes a number, not True.",
    "search digits cost.macs=cheap": "search.cost.macs takes a number, not 'cheap'.",
    "search digits cost.bytes=[1]": "search.cost.bytes takes a number, not [1].",
    "search digits flip=1": "data.flip takes true or false, not 1.",
    "search digits flip=no": "data.flip=no cannot be read: no is ambiguous in YAML; write true, false",
    "search digits resume=yes": "resume=yes cannot be read: yes is ambiguous in YAML; write true, false",
    "search digits resume=true": "resume=true needs run=PATH, the folder of the run to continue.",
    "search digits search.layers=3": "search.layers takes a list such as [5, 11, 17], not 3.",
    "search digits search.layers=[3,x]": "search.layers takes a list of whole numbers, not 'x'.",
    "search digits search.layers=[3,3": "search.layers=[3,3 cannot be read: expected ',' or ']'",
    "search digits search.layers=[3,3]": "search.candidates needs 2 values, one for each stage in search.layers; it has 3.",
    "search digits warmup_epochs=3": "search.warmup_epochs=3 leaves no epoch of search.epochs=3 to train alpha;"
    " reduce search.warmup_epochs.",
    "search digits drop_path=1": "retrain.drop_path=1.0 is out of range; it must be at least 0 and below 1.",
    "search digits data.name=cifar11": "data.name cannot be 'cifar11'; the nearest is cifar10 (choose from digits, ",
    "search digits strategy=best": "search.strategy cannot be 'best'; choose from pdarts, darts, random.",
    "search digits strategy=drats": "search.strategy cannot be 'drats'; the nearest is darts (choose from pdarts, darts, random).",
    "search digits 'data.path=${oc.env:HOME}'": "data.path cannot be '${oc.env:HOME}': '${', '???' and NUL are not allowed",
    "search digits 'random.like=???'": "search.random.like cannot be '???': ",
    "cost PDARTS input=3x32": "input=3x32 is not an image shape; write CxHxW, such as 3x32x32.",
    "cost PDARTS layers=-1": "layers=-1 is out of range; it must be 0 to 1000.",
    "cost PDARTS stem=root": "stem cannot be 'root'; choose from auto, cifar, imagenet.",
    "export PDARTS to=jsn": "to cannot be 'jsn'; the nearest is json (choose from json, darts, nasbench201, dot, svg, safetensors, ",
    # values that do not fit the space, the device or the data
    "search digits space=drats": "there is no search space 'drats'; the nearest is darts (choose from darts, filters, ",
    "search digits space=mine": "there is no search space 'mine'; choose from darts, filters, nasbench201, nasnet;"
    " for your own space, add ",
    "search digits space=../darts": "there is no search space '../darts'; the nearest is darts",
    "search digits primitives=[skip_connect,sep_conv_9x9]": "search.primitives: the space darts has no primitive 'sep_conv_9x9'; ",
    "search digits primitives=[none]": "search.primitives leaves nothing to derive; list at least one primitive besides none.",
    "search digits primitives=[skip_connect,skip_connect]": "search.primitives lists a primitive twice; list each primitive once.",
    "search digits primitives=[skip_connect,max_pool_3x3]": "search.candidates=[0, 5, 3] keeps 5 primitives in a stage with only 2 left",
    "search digits candidates=[7,5,3]": "search.candidates=[7, 5, 3]: the first stage keeps all 8 primitives; set the first entry to 0.",
    "search digits device=quantum": "device=quantum is not a device; write auto, cpu, cuda or cuda:N.",
    "search digits batch=5000": "search.batch=5000 is larger than the 477 of 1197 training images that batches are drawn from"
    " (search.subset=0.8 x (1 - search.weight_fraction=0.5)); use at most 477. 1,197 training and 600 test images were read from digits.",
    "search digits batch=400 subset=1 weight_fraction=0.7": "search.batch=400 is larger than the 359 of 1197 training images"
    " that batches are drawn from (1 - search.weight_fraction=0.7); use at most 359, or smaller batches with learning rates in proportion,"
    " such as search.batch=256 search.lr=0.032. 1,197 training and 600 test images were read from digits.",
    "retrain PDARTS digits retrain.batch=500 validation_fraction=0.6": "retrain.batch=500 is larger than the 479 of 1197"
    " training images that batches are drawn from (1 - retrain.validation_fraction=0.6); use at most 479, or smaller",
    "retrain PDARTS digits batch=400 accumulate=4": "retrain.batch=400 times retrain.accumulate=4=1600 is larger than the 1197"
    " training images that batches are drawn from; use at most 299, or smaller",
    "find digits budget.params=100k search.batch=480 retrain.batch=700": "search.batch=480 is larger than the 477 of 1197 training"
    " images that batches are drawn from (search.subset=0.8 x (1 - search.weight_fraction=0.5)), and retrain.batch=700 is larger than"
    " the 601 of 1197 training images that batches are drawn from (rank.train_fraction=0.5); use at most search.batch=477 and"
    " retrain.batch=601, or smaller batches with learning rates in proportion, such as search.batch=256 search.lr=",
    "retrain PDARTS digits retrain.batch=5000": "retrain.batch=5000 is larger than the 1197 training images that batches are drawn from;",
    "search digits strategy=random budget.params=50k": "no genotype of the space darts with at most 2 skips in its normal cell meets"
    " params <= 50,000: the cheapest has 58,522; raise the budget, or set skeleton.channels=",
    "search digits strategy=random random.macs=1k": "meets macs <= 1,050: the cheapest has 964,096; raise search.random.macs.",
    "search digits strategy=random random.like=nothing": "there is no genotype 'nothing': it is neither a file nor a"
    " known name; choose from ",
    "search digits mean=[0.5,0.5,0.5] std=[1,1,1]": "data.mean must have one value per channel of the images (1), not 3.",
    "search digits data.name=npz": "data.name=npz needs data.path; set it to the path of the images",
    "search digits data.name=folder data.path=nowhere": "data.path=nowhere does not exist.",
    "search digits data.name=cifar10 data.path=.": "change data.path.",
    "retrain NASNet digits --space mine.py": "NASNet: cell normal, node 0, edge 0: the space mine has no primitive 'sep_conv_5x5'; ",
}


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line[:60])
def test_wrong_command_lines_are_refused(line: str, refuse: Refuse, elsewhere: Path) -> None:
    (elsewhere / "mine.py").write_text(
        "from rapdarts.networks.primitives import choose\nfrom rapdarts import SearchSpace\n"
        'SPACE = SearchSpace("mine", choose("skip_connect"))\n'
    )
    assert COMMANDS[line] in refuse(*shlex.split(line))


@pytest.mark.parametrize("line", ["search digits seed=x", "cost x", "derive x", "evaluate x", "retrain x digits"])
def test_json_does_not_change_error_messages(line: str, refuse: Refuse) -> None:
    assert refuse(*line.split(), "--json") == refuse(*line.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device exists")
@pytest.mark.parametrize("line", ["search digits device=cuda", "retrain PDARTS digits device=cuda:3"])
def test_missing_devices_are_refused(line: str, refuse: Refuse) -> None:
    assert "is not available; use device=cpu or device=auto." in refuse(*line.split(), code=7)


@pytest.mark.parametrize(
    "hostile",
    ["$(touch marker)", "`touch marker`", ";touch marker", "| touch marker", "a\nb", "-x\0", "../" * 200 + "etc"],
)
def test_hostile_names_are_not_executed(hostile: str, refuse: Refuse) -> None:
    refuse("search", f"a{hostile}")
    refuse("search", "digits", f"space={hostile}")
    refuse("search", "digits", "data.name=npz", f"data.path={hostile}")
    refuse("cost", f"a{hostile}")
    refuse("evaluate", f"a{hostile}")
    refuse("derive", f"a{hostile}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("SPACE = 3", "the search space mine.py does not define SPACE = rapdarts.SearchSpace(...)."),
        ("import nothing_of_this_name", "--space mine.py fails when it is run: ModuleNotFoundError: "),
        ("SPACE = ", "--space mine.py fails when it is run: SyntaxError: "),
    ],
)
def test_invalid_space_files_are_refused(source: str, message: str, refuse: Refuse, elsewhere: Path) -> None:
    (elsewhere / "mine.py").write_text(source)
    assert message in refuse("search", "digits", "--space", "mine.py")


# --- experiment files (their contents: tests/files/test_yaml.py, tests/config) -----------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"search: {epochss: 3}", "mine.yaml: there is no key 'search.epochss'; the nearest is search.epochs."),
        (b"search:\n  lr: 1e-3\n  lr: 1e-2", "mine.yaml:3: the key lr appears twice; keep one."),
        (b"data: {path: '${oc.env:HOME}'}", "mine.yaml:1: '${' is not supported; write the value."),
        (b"seed: !!python/object/apply:os.system ['touch marker']", "mine.yaml:1: the tag tag:yaml.org,2002:python/"),
        (b"_target_: os.system", "mine.yaml: there is no key '_target_'; "),
        (b"a: &a [x]\nb: *a", "mine.yaml:1: anchors and aliases are not supported; write the value twice."),
        (
            b"seed: 010",
            "mine.yaml:1: 010 is ambiguous in YAML; write true, false or a plain number, or put it in quotes.",
        ),
        (b"save_seconds: 1:30", "mine.yaml:1: 1:30 is ambiguous in YAML; "),
        (b"data:\n  flip: no", "mine.yaml:2: no is ambiguous in YAML; "),
        (b"search: {cost: {macs: -1}}", "mine.yaml: search.cost.macs=-1.0 is out of range; it must be 0 to 1e6."),
        (b"a: " + b"[" * 3000, "mine.yaml:1: values are nested deeper than 20 levels."),
        (b"# much\n" * 200_000, "mine.yaml has more than 100,000 bytes, too many for a configuration."),
        (b"data: {path: gr\xfcn}", "mine.yaml is not UTF-8 text (invalid byte at offset 15); save it as UTF-8."),
        (b"- search", "mine.yaml must contain keys with values, such as seed: 1."),
        (b"\0", "mine.yaml is not valid YAML: "),
    ],
    ids=lambda value: str(value[:30]),
)
def test_wrong_experiment_files_are_refused(content: bytes, message: str, refuse: Refuse, elsewhere: Path) -> None:
    (elsewhere / "mine.yaml").write_bytes(content)
    assert refuse("search", "mine.yaml").startswith(message)
    assert refuse("retrain", "PDARTS", "mine.yaml").startswith(message)


def test_a_fifo_is_not_read_as_an_experiment(refuse: Refuse) -> None:
    os.mkfifo("mine.yaml")
    assert refuse("search", "mine.yaml") == "there is no experiment file mine.yaml; check its path."


# --- data --------------------------------------------------------------------------------------------------------


def images(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8)


def labels(n: int, *last: float) -> np.ndarray[Any, Any]:
    """Return n labels: 0, 1, 2, 0, 1, 2, ..., ending in `last`."""
    return np.array([*(np.arange(n - len(last)) % 3), *last])


ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "one class": (
        {"x": images(30), "y": np.zeros(30, int)},
        "all images belong to one class; a classifier needs at least two classes.",
    ),
    "a class with one image": (
        {"x": images(30), "y": labels(30, 3)},
        "class 3 has a single image, too few to split; ",
    ),
    "a negative label": ({"x": images(30), "y": labels(30, -1)}, "data.npz, y: the label of image 29 is -1, but "),
    "the label that torch ignores": (
        {"x": images(30), "y": labels(30, -100)},
        "data.npz, y: the label of image 29 is -100, but ",
    ),
    "a label out of range": (
        {"x": images(30), "y": labels(30, 9)},
        "data.npz, y: the label of image 29 is 9, but labels of 4 classes must be 0 to 3; number the classes from 0, for example with "
        "np.unique(y, return_inverse=True)[1].",
    ),
    "fractional labels": (
        {"x": images(30), "y": labels(30, 0.5)},
        "data.npz, y: the label of image 29 is 0.5 (float64); save labels as int64.",
    ),
    "labels from 1": (
        {"x": images(30), "y": labels(30) + 1},
        "data.npz, y: the label of image 2 is 3, but labels of 3 classes must be 0 to 2; subtract 1 from all labels.",
    ),
    "texts as labels": (
        {"x": images(30), "y": np.array(["a", "b", "c"] * 10)},
        "data.npz, y must be numbers, not <U1, such as a; number the classes from 0, for example with"
        " np.unique(y, return_inverse=True)[1].",
    ),
    "a column of labels": (
        {"x": images(30), "y": labels(30)[:, None]},
        "data.npz, y: 30 images need labels of shape (30,), not (30, 1); pass y.ravel().",
    ),
    "one-hot labels": (
        {"x": images(30), "y": np.eye(3)[labels(30)]},
        "need labels of shape (30,), not (30, 3); each row has a single 1, so pass y.argmax(1).",
    ),
    "probabilities as labels": (
        {"x": images(30), "y": np.full((30, 2), 0.5)},
        "need labels of shape (30,), not (30, 2).",
    ),
    "too few labels": ({"x": images(30), "y": labels(29)}, "30 images need labels of shape (30,), not (29,)."),
    "no labels": ({"x": images(30)}, "must contain x and y, or x_train, y_train, x_test and y_test, not x."),
    "flattened images": (
        {"x": images(30).reshape(30, 64), "y": labels(30)},
        "images must be (n, h, w), (n, h, w, c) or ",
    ),
    "no images": ({"x": images(0), "y": labels(0)}, "images must be (n, h, w), (n, h, w, c) or "),
    "negative pixels": (
        {"x": images(30) - 1.0, "y": labels(30)},
        "x: pixels are whole numbers from -1 to 254, neither whole numbers from 0 to 255 nor fractions from 0 to 1; set"
        " data.range=LOW,HIGH to the values of black and white.",
    ),
    "pixels that are not numbers": (
        {"x": np.full((30, 8, 8), np.nan), "y": labels(30)},
        "x: the images contain 1,920 NaN or infinite values; repair them.",
    ),
    "pixels above 1": ({"x": images(30) / 250, "y": labels(30)}, "x: pixels are fractions from 0 to 1.02, neither"),
    "bits": ({"x": images(30) % 2, "y": labels(30)}, "x: the pixels are only 0 and 1, which may be "),
    "unclear channels": (
        {"x": np.zeros((30, 12, 32, 48), np.uint8), "y": labels(30)},
        "x: the channels of images (12, 32, 48) could be the first or the last axis; set data.layout=channels_first or",
    ),
    "an array of objects": (
        {"x": images(30), "y": np.array([{}] * 30, dtype=object)},
        "save plain arrays with numpy.savez.",
    ),
    "a test mask of all images": (
        {"x": images(30), "y": labels(30), "test": np.ones(30)},
        "must be 1 (test) or 0 (train) for each",
    ),
    "test images of another size": (
        {"x_train": images(30), "y_train": labels(30), "x_test": np.zeros((6, 9, 9), np.uint8), "y_test": labels(6)},
        "training images are (1, 8, 8), but test images are (1, 9, 9);",
    ),
    "a class without training images": (
        {"x_train": images(30), "y_train": labels(30), "x_test": images(6), "y_test": labels(6, 3)},
        "y_test: the label of image 5 is 3, but labels of 3 classes must be 0 to 2.",
    ),
    "fewer images than a batch": (
        {"x": images(30), "y": labels(30)},
        " 21 training and 9 test images were read from data: no test images are marked, so a third of the images of each class is"
        " held out for testing.",
    ),
}


@pytest.mark.parametrize("case", ARRAYS)
@pytest.mark.parametrize("verb", ["search digits batch=64", "retrain PDARTS digits"])
def test_wrong_arrays_are_refused(case: str, verb: str, refuse: Refuse, elsewhere: Path) -> None:
    arrays, message = ARRAYS[case]
    np.savez(elsewhere / "data.npz", **arrays)
    assert message in refuse(*verb.split(), "data.name=npz", "data.path=data.npz")


def test_truncated_or_wrong_array_files_are_refused(refuse: Refuse, elsewhere: Path) -> None:
    np.savez(elsewhere / "data.npz", x=images(300), y=labels(300))
    whole = (elsewhere / "data.npz").read_bytes()
    command = ("search", "digits", "data.name=npz", "data.path=data.npz")
    for content in (b"", b"not a zip", whole[: len(whole) // 2], whole[:-1]):
        (elsewhere / "data.npz").write_bytes(content)
        assert "data.npz" in refuse(*command, code=4)
    os.mkdir("empty")
    assert "empty contains 0 .npz files; set data.path to the file to read." in refuse(*command[:3], "data.path=empty")


@pytest.fixture
def image_folder(elsewhere: Path) -> Path:
    """A folder of images: four of each of two classes for training, and as many for testing."""
    for number, image in enumerate(images(16)):
        file = elsewhere / "pictures" / ("train", "test")[number // 8] / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return elsewhere / "pictures"


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "one class": (
        lambda f: [remove(f / half / "dog") for half in ("train", "test")],
        "all images belong to one class; ",
    ),
    "a corrupt image": (
        lambda f: (f / "train/cat/0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken"),
        "train/cat/0.png is not a readable image",
    ),
    "a truncated image": (
        lambda f: (f / "test/dog/9.png").write_bytes((f / "test/dog/9.png").read_bytes()[:-30]),
        "test/dog/9.png is not a readable image",
    ),
    "an empty image file": (
        lambda f: (f / "train/dog/1.png").write_bytes(b""),
        "train/dog/1.png is empty; repair or remove it.",
    ),
    "images of two sizes": (
        lambda f: Image.fromarray(images(1)[0, :7]).save(f / "train/dog/1.png"),
        "train/dog/1.png has 8x7 pixels but ",
    ),
    "no training images": (lambda f: remove(f / "train"), "contains test/ but no train/; it must contain train/CLASS/"),
    "a class without images": (lambda f: (f / "train/emu").mkdir(), "train/emu contains no images"),
    "a class without training images": (
        lambda f: (f / "test/emu").mkdir(),
        "test/emu is a class without training images; ",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_wrong_image_folders_are_refused(case: str, refuse: Refuse, image_folder: Path) -> None:
    spoil, message = FOLDERS[case]
    spoil(image_folder)
    error = refuse("search", "digits", "batch=2", "data.name=folder", f"data.path={image_folder}")
    assert message in error


# --- genotypes (all errors in their text: tests/architecture) ----------------------------------------------------

PDARTS = json.loads(LITERATURE["PDARTS"].to_json())


def changed(**changes: Any) -> str:
    """Return PDARTS as JSON with some fields of the genotype or of its normal cell changed. None removes a field."""
    tree = json.loads(json.dumps(PDARTS))
    for name, value in changes.items():
        home = tree if name in tree else tree["cells"]["normal"]
        home[name] = value
        if value is None:
            del home[name]
    return json.dumps(tree)


def with_edge(edge: Any) -> str:
    nodes = json.loads(json.dumps(PDARTS["cells"]["normal"]["nodes"]))
    nodes[1][0] = edge
    return changed(nodes=nodes)


DARTS = LITERATURE["PDARTS"].to_darts()
GENOTYPES = {
    "an unknown primitive": (
        with_edge(["sep_conv_9x9", 0]),
        "cell normal, node 1, edge 0: the space darts has no primitive ",
    ),
    "a look-alike letter": (with_edge(["ѕkip_connect", 0]), "U+0455 CYRILLIC SMALL LETTER DZE"),
    "a node with only none": (
        changed(nodes=[[["none", 0]], *PDARTS["cells"]["normal"]["nodes"][1:]]),
        "cell normal, node 0 has only none edges, so its output is zero; remove the node from concat and from ",
    ),
    "an edge from a later node": (
        with_edge(["skip_connect", 4]),
        "node 1, edge 0: the input 4 is a later node; use 0 to 2.",
    ),
    "an edge from itself": (
        with_edge(["skip_connect", 3]),
        "node 1, edge 0: the input 3 is the node itself; use 0 to 2.",
    ),
    "a negative input": (
        with_edge(["skip_connect", -1]),
        "node 1, edge 0: the input -1 is negative; use 0 to 2.",
    ),
    "a fractional input": (with_edge(["skip_connect", 0.5]), "node 1, edge 0: the input 0.5 is not a whole number; "),
    "an incomplete edge": (with_edge(["skip_connect"]), "node 1, edge 0 must be a pair [primitive, input], not "),
    "no nodes": (changed(nodes=[]), "cell normal, nodes has 0 entries; a cell has 1 to 100 nodes."),
    "too many nodes": (
        changed(nodes=[[["skip_connect", 0]]] * 100_000),
        "more than 1,000,000 characters are only searched for Genotype(...)",
    ),
    "a missing field": (changed(concat=None), "cell normal: the field concat is missing."),
    "a missing space": (changed(space=None), "the field space is missing."),
    "an unknown field": (
        changed(concat=None).replace('"inputs"', '"input"', 1),
        "there is no field 'input'; the nearest is inputs",
    ),
    "a concat of a missing node": (changed(concat=[9]), "concat lists 9, which is not a node; use 2 to 5."),
    "another version": (changed(version=2), "has version 2, but this release reads only version 1; upgrade rapdarts."),
    "no version": (changed(version=True), "version must be 1, not True."),
    "another format": (
        changed(format="onnx"),
        "format must be 'rapdarts-genotype', not 'onnx'; supported formats are ",
    ),
    "an unknown space": (
        changed(space="drats"),
        "there is no search space 'drats'; the nearest is darts (choose from ",
    ),
    "a user's own space": (
        changed(space="mine"),
        "for your own space, add --space FILE, the Python file that defines it",
    ),
    "another space": (changed(space="nasnet"), "the space nasnet has no primitive 'dil_conv_3x3'; "),
    "a path as a space": (changed(space="../darts"), "space must be a name of up to 64 letters, digits, _ and -, "),
    "not JSON": ("{", "genotype.json, line 1, column 2: not JSON: "),
    "a list": ("[]", "genotype.json contains no genotype; supported formats are rapdarts JSON, Genotype(...) of "),
    "an empty file": ("", "genotype.json is empty; it must contain a genotype."),
    "a duplicate key": (
        '{"format": 1, "format": 2}',
        "line 1, column 15: the key 'format' is repeated in one object.",
    ),
    "not a number": (changed(version=1).replace('"version": 1', '"version": NaN'), "NaN is not a finite number."),
    "an overflowing number": (
        changed().replace('"version": 1', '"version": 1e999'),
        "the number '1e999' is too large.",
    ),
    "a long number": (
        changed().replace('"version": 1', '"version": ' + "9" * 5000),
        "the number has more than 18 digits.",
    ),
    "deep nesting": ("[" * 3000 + "]" * 3000, "nested deeper than 50 levels."),
    # the DARTS dialect is parsed, never executed
    "a call": ("__import__('os').system('touch marker')", "supported formats are rapdarts JSON, Genotype(...) of "),
    "a call inside": (
        DARTS.replace("range(2, 6)", "__import__('os').system('touch marker')"),
        "concat must be a list or range(",
    ),
    "a call as a primitive": (
        DARTS.replace("'skip_connect'", "open('marker', 'w')", 1),
        "only whole numbers and lists of pairs such as ",
    ),
    "a comprehension": (
        DARTS.replace("range(2, 6)", "[open('marker', 'w') for i in (2,)]", 1),
        "concat must be a list or range(first, end).",
    ),
    "an f-string": (
        DARTS.replace("'skip_connect'", 'f\'{open("marker", "w")}\'', 1),
        "only whole numbers and lists of pairs such as ",
    ),
    "a walrus": (DARTS.replace("range(2, 6)", "(x := open('marker', 'w'))", 1), "concat must be a list or range("),
    "a lambda": ("(lambda: open('marker', 'w'))()", "genotype.json contains no genotype: found "),
    "a huge range": (
        DARTS.replace("range(2, 6)", "range(1000000000)", 1),
        "concat must be a list or range(first, end).",
    ),
    "an import": ("import os; os.system('touch marker')", 'genotype.json contains no genotype: found "os.system('),
    "a truncated text": (DARTS[:-5], "genotype.json contains no genotype: line 1: Genotype( is not closed; supported "),
    "an unpaired edge": (
        "Genotype(normal=[('skip_connect', 0)], normal_concat=[2], reduce=[], reduce_concat=[2])",
        "two per node up to node 2, the last in concat; put the pairs of each node in a list.",
    ),
}


@pytest.mark.parametrize("case", GENOTYPES)
def test_wrong_genotypes_are_refused(case: str, refuse: Refuse, elsewhere: Path) -> None:
    text, message = GENOTYPES[case]
    (elsewhere / "genotype.json").write_text(text, encoding="utf-8")
    error = refuse("cost", "genotype.json")
    assert message in error
    assert "genotype.json" in error or "search space" in error
    assert refuse("retrain", ".", "digits") == error


def test_genotypes_are_read_only_from_text_files(refuse: Refuse, elsewhere: Path) -> None:
    os.mkfifo("fifo.json")
    (elsewhere / "utf16.json").write_text(changed(), encoding="utf-16")
    os.truncate(os.open(elsewhere / "large.json", os.O_CREAT | os.O_WRONLY), 2**26 + 1)
    for name, message in [
        ("fifo.json", "fifo.json is not a regular file."),
        ("/dev/zero", "/dev/zero is not a regular file."),
        ("utf16.json", "utf16.json is not UTF-8 text"),
        ("large.json", "large.json has more than 67,108,864 bytes, too many for a genotype or a log."),
    ]:
        assert message in refuse("cost", name)


# --- run folders -------------------------------------------------------------------------------------------------


def test_unwritable_paths_are_refused(refuse: Refuse, elsewhere: Path) -> None:
    (elsewhere / "file").write_text("")
    for place in ("/dev/null/x", "file/x", "file"):
        assert "is not a folder; choose another path with run=PATH" in refuse("search", "digits", f"run={place}")
        assert "is not a folder; choose another path with run=PATH" in refuse(
            "retrain", "PDARTS", "digits", f"run={place}"
        )
    assert "Choose another place with run=PATH" in refuse("search", "digits", f"run={'x' * 300}", code=6)
    for place in ("/dev/null/x", "file/x", "none/x"):
        words = f"out={place}: there is no folder {os.path.dirname(place)}; create it first, or choose another path."
        assert refuse("export", "PDARTS", f"out={place}") == words
        assert refuse("derive", "PDARTS", f"out={place}") == words
        assert refuse("report", "PDARTS", f"out={place}") == words
    assert refuse("export", "PDARTS", f"out={'x' * 300}", code=6).endswith(": File name too long. Choose another path.")
    assert (elsewhere / "file").read_text() == ""


def saved(folder: Path, *pairs: tuple[str, str]) -> Path:
    """Create a run folder with the configuration of the digits and one finished epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text('{"stage": 0, "epoch": 0}\n')
    (folder / "config.yaml").write_text(key_values.save_yaml(resolve_experiment("digits", pairs, "search")))
    return folder


def test_a_folder_with_a_run_is_not_overwritten(refuse: Refuse, elsewhere: Path) -> None:
    saved(elsewhere / "first")
    message = "first already holds a run; add resume=true (in Python: resume=True) to continue it, or choose another folder with run=PATH."
    assert refuse("search", "digits", "run=first") == message
    assert refuse("retrain", "PDARTS", "digits", "run=first") == message


def test_resuming_with_different_settings_is_refused(refuse: Refuse, elsewhere: Path) -> None:
    saved(elsewhere / "first", ("seed", "1"))
    error = refuse("search", "digits", "lr=0.1", "run=first", "resume=true")
    assert "first was started with a different configuration" in error
    assert "seed: 1 -> 0; search.lr: 0.05 -> 0.1" in error


def test_a_folder_in_use_is_refused(refuse: Refuse, elsewhere: Path) -> None:
    (elsewhere / "first").mkdir()
    with open(elsewhere / "first" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "first is in use by another process" in refuse("search", "digits", "run=first", code=3)


@pytest.mark.parametrize("verb", ["derive", "report", "search digits resume=true"])
def test_a_damaged_configuration_is_reported(verb: str, refuse: Refuse, elsewhere: Path) -> None:
    (saved(elsewhere / "first") / "config.yaml").write_text("search: {lr: 0")
    (elsewhere / "first" / "result.json").write_text("{}")
    folder = "run=first" if verb.startswith("search") else "first"
    assert refuse(*verb.split(), folder).startswith("first/config.yaml:1: ")


def alphas(folder: Path) -> str:
    from rapdarts.architecture.space import Skeleton
    from rapdarts.deploy.space_lookup import named_space
    from rapdarts.strategy.alphas import alphas_to_json
    from rapdarts.strategy.relaxation import Architecture

    space = named_space("darts")
    return alphas_to_json(space, Skeleton(3, 4, (1, 8, 8), 10), [Architecture(space)])


def test_unfinished_searches_are_refused(refuse: Refuse, elsewhere: Path) -> None:
    saved(elsewhere / "first")
    assert refuse("derive", "first") == (
        "there is no first/alphas.json; the search has not finished, or first is a run of another command."
    )
    assert "first has no genotype.json: its search has not finished" in refuse("cost", "first")
    assert "first has no network.safetensors; pass the folder of a finished" in refuse("evaluate", "first")
    assert "first contains no finished run" in refuse("report", "first")


def test_an_unfinished_run_is_named_with_the_command_that_resumes_it(refuse: Refuse, elsewhere: Path) -> None:
    folder = saved(elsewhere / "first")
    for verb, command in (("find", "find"), ("search", "search"), ("rank", "rank RUN"), ("retrain", "retrain NETWORK")):
        (folder / "environment.json").write_text(json.dumps({"verb": verb}))
        words = (
            f"first is an unfinished run of rapdarts {verb}; finish it with rapdarts {command} run=first resume=true."
        )
        assert refuse("cost", "first") == words
        if verb in ("find", "retrain"):
            assert refuse("evaluate", "first") == words
            (folder / "network").mkdir(exist_ok=True)  # a run of find may have been stopped in its last training
            (folder / "plan.json").touch()
            assert refuse("evaluate", "first") == words
            assert refuse("export", "first", "to=onnx", "out=net.onnx") == words


@pytest.mark.parametrize(
    ("own", "asked"),
    [("find", "search digits"), ("search", "find digits budget.params=100k"), ("search", "retrain PDARTS digits"),
     ("random", "find digits budget.params=100k"), ("retrain", "search digits")],
)  # fmt: skip
def test_a_run_is_resumed_only_by_its_own_command(own: str, asked: str, refuse: Refuse, elsewhere: Path) -> None:
    (saved(elsewhere / "first") / "environment.json").write_text(json.dumps({"verb": own}))
    command = {"random": "search", "retrain": "retrain NETWORK"}.get(own, own)
    assert refuse(*asked.split(), "run=first", "resume=true") == (
        f"first is a run of rapdarts {command.split()[0]}; use rapdarts {command} run=first resume=true."
    )


def test_damaged_alphas_are_reported(refuse: Refuse, elsewhere: Path) -> None:
    folder = saved(elsewhere / "first")
    whole = alphas(folder)
    number = json.loads(whole)["cells"]["normal"][0]["alpha"][0]
    for text in (
        "",
        "{}",
        "[]",
        whole[:500],
        whole.replace("darts", "nasnet"),
        whole.replace("skip_connect", "skip"),
        whole.replace(repr(number), "NaN", 1),
        whole.replace(repr(number), '"x"', 1),
        whole.replace(repr(number), "1e300", 1),
        whole.replace('"version": 1', '"version": 2'),
    ):
        (folder / "alphas.json").write_text(text)
        assert refuse("derive", "first", code=4).startswith("first/alphas.json ")
    for beta, edges in ((0.5, 1), ("x", 14), ([0.5], 14), (None, 14), (1e300, 14)):
        tree = json.loads(whole)
        for entry in [*tree["cells"]["normal"][:edges], *tree["cells"]["reduce"][:edges]]:
            entry["beta"] = beta
        (folder / "alphas.json").write_text(json.dumps(tree))
        assert refuse("derive", "first", code=4).startswith("first/alphas.json is damaged ")
    (folder / "alphas.json").write_text(whole)
    for place in ("/dev/null/x", "none/x.json"):
        assert f"out={place}: there is no folder" in refuse("derive", "first", f"out={place}")


def finished(folder: Path, seed: int = 0, space: str = "darts", channels: int = 4, *pairs: tuple[str, str]) -> Path:
    """Create the folder of a finished search, with random architecture parameters."""
    from rapdarts.architecture.space import Skeleton
    from rapdarts.deploy.space_lookup import named_space
    from rapdarts.strategy.alphas import alphas_to_json
    from rapdarts.strategy.relaxation import Architecture

    saved(folder, ("seed", str(seed)), ("search.space", space), *pairs)
    torch.manual_seed(seed)
    found = named_space(space)
    skeleton = Skeleton(3, channels, (1, 8, 8), 10)
    (folder / "alphas.json").write_text(alphas_to_json(found, skeleton, [Architecture(found, 1.0)]))
    return folder


def test_incompatible_searches_are_not_averaged(refuse: Refuse, elsewhere: Path) -> None:
    finished(elsewhere / "first")
    finished(elsewhere / "second", 1)
    (elsewhere / "mine.json").write_text("kept")
    others = {
        "space": (finished(elsewhere / "space", 2, "filters"), "search.space filters, but first has darts"),
        "wide": (finished(elsewhere / "wide", 2, "darts", 6), "skeleton.channels 6, but first has 4"),
        "data": (
            finished(elsewhere / "data", 2, "darts", 4, ("data.name", "mnist")), "data.name mnist, but first has digits"
        ),
        "few": (
            finished(elsewhere / "few", 2, "darts", 4, ("data.fraction", "0.5")), "data.fraction 0.5, but first has 1.0"
        ),
    }  # fmt: skip
    for name, (_, message) in others.items():
        for runs in (["first", name], ["first", "second", name]):
            error = refuse("derive", *runs, "out=mine.json")
            assert (
                error == f"{name} has {message}; only runs with the same space, data set and skeleton can be averaged."
            )
    again = "two of these searches have identical mixing weights; pass each search only once, and search with different seeds."
    for runs in (["first", "first"], ["first", "second", "first/alphas.json"], ["second", "./second", "first"]):
        assert refuse("derive", *runs, "out=mine.json") == again
    shutil.copytree(elsewhere / "first", elsewhere / "copy")
    assert refuse("derive", "first", "copy", "out=mine.json") == again
    assert (elsewhere / "mine.json").read_text() == "kept"


def test_every_averaged_search_must_be_finished(refuse: Refuse, elsewhere: Path) -> None:
    finished(elsewhere / "first")
    advice = "; pass the folder of a finished search, or its alphas.json."
    assert refuse("derive", "first", "second") == f"there is no file or folder second{advice}"
    assert refuse("derive", "second", "first") == f"there is no file or folder second{advice}"
    saved(elsewhere / "second", ("seed", "1"))
    message = "there is no second/alphas.json; the search has not finished, or second is a run of another command."
    assert refuse("derive", "first", "second") == message
    (elsewhere / "second" / "alphas.json").write_text("{")
    assert refuse("derive", "first", "second", code=4).startswith("second/alphas.json is damaged (")


def test_searches_on_different_images_are_not_averaged(
    refuse: Refuse, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data sets have the same name and shape; only the fingerprints in the checkpoints differ."""
    from rapdarts.training.checkpoint import save_checkpoint

    for seed, name in enumerate(("first", "second", "third")):
        folder = finished(elsewhere / name, seed, "darts", 4, ("data.name", "npz"), ("data.path", f"{name}.npz"))
        save_checkpoint(folder / "checkpoint", {}, {"command": "search", "data set": "ab"[seed // 2] * 64})
    assert main(["derive", "first", "second", "out=two.json"]) == 0
    error = (
        "third and first used different images (fingerprints bbbbbbbbbbbb and aaaaaaaaaaaa); only runs on the same"
        " data can be averaged."
    )
    capsys.readouterr()
    assert refuse("derive", "first", "second", "third", "out=two.json") == error


def test_budgets_apply_to_averaged_searches(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first budget is below the cost of the cheapest cell; no cell uses the requested share of the second."""
    for seed, name in enumerate(("first", "second")):
        finished(elsewhere / name, seed)
    assert main(["derive", "first", "second", "budget.params=1k", "out=two.json"]) == 2
    remark, error = capsys.readouterr().err.splitlines()
    assert remark == "looking for genotypes with params <= 1,000"
    assert error.startswith("rapdarts: error: no genotype of the remaining candidates meets params <= 1,000 ")
    assert error.endswith("raise the budget.") and not (elsewhere / "two.json").exists()
    assert main(["derive", "first", "second", "budget.params=1990", "spend=1", "out=two.json"]) == 0
    said = capsys.readouterr().out
    assert "no cell was found that uses at least 100 % of the params budget; the lower bound is now 95 %." in said
    assert "% of the params budget (1,990) is used" in said and (elsewhere / "two.json").exists()


def test_damaged_networks_are_reported(refuse: Refuse, elsewhere: Path) -> None:
    from safetensors.torch import save

    folder = saved(elsewhere / "first")
    for content in (
        b"",
        b"garbage" * 100,
        save({"a": torch.zeros(2)}),
        save({"a": torch.zeros(2)}, {"rapdarts": "{}"}),
    ):
        (folder / "network.safetensors").write_bytes(content)
        assert "first/network.safetensors" in refuse("evaluate", "first", code=4)


def test_a_damaged_result_is_reported(refuse: Refuse, elsewhere: Path) -> None:
    folder = saved(elsewhere / "first")
    for text in ("", "[]", '{"x": 1}', "{"):
        for name in ("result.json", "environment.json"):
            (folder / name).write_text(text)
        assert "first" in refuse("report", "first", code=4)

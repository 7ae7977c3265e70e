"""The model card of a trained network: description, training, accuracy, usage and limitations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rapdarts.config.experiment import Experiment
from rapdarts.config.resolve import experiment_of_run
from rapdarts.config.resources import show
from rapdarts.deploy.blueprint import DerivedBlueprint
from rapdarts.deploy.lookup import ONNX
from rapdarts.deploy.model_file import TrainedFile
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError, plural, printable
from rapdarts.files.run_files import RunFile, run_of
from rapdarts.files.seal import read_sealed
from rapdarts.training.intervals import percent, wilson
from rapdarts.version import __version__

NUMBERS = ("test_accuracy", "n")
ESCAPES = str.maketrans({**{mark: f"\\{mark}" for mark in "\\|`*_[]#"}, "<": "&lt;", **dict.fromkeys("\r\n", " ")})
"""Characters with a meaning in Markdown, and their replacements."""

UNKNOWN = "unknown: the file is not in a run folder"


@dataclass(frozen=True)
class History:
    """Facts from the run folder of a trained network: the experiment, the test result, and versions and hardware, as plain values."""

    experiment: Experiment | None = None
    test: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)


def history_of(path: Path) -> History:
    """Read the history of a trained network from its run folder. Raises DamagedError if the files of the folder are damaged."""
    folder = run_of(path)
    if folder is None:
        return History()
    try:
        experiment = experiment_of_run(folder)
    except InputError:
        return History()
    result, machine = _object(path.with_name(RunFile.RESULT)), _object(folder / RunFile.ENVIRONMENT)
    # The top level of a result describes network.safetensors; its entry `best` describes best.safetensors.
    own = {RunFile.NETWORK: result, RunFile.BEST_NETWORK: result.get("best")}.get(path.name)
    own = own if isinstance(own, dict) else {}
    test = {key: own[key] for key in NUMBERS if type(own.get(key)) in (int, float)}
    known = len(test) == len(NUMBERS) and test["n"] >= 1 and 0 <= test["test_accuracy"] <= 1
    return History(experiment, test if known else {}, machine)


def _object(path: Path) -> dict[str, Any]:
    return read_sealed(path) if path.is_file() else {}


def card(trained: TrainedFile, history: History, name: str, size: int, licence: str = "") -> str:
    """Return the model card, in Markdown, for a trained network exported as the file `name` of `size` bytes."""
    image, onnx = "x".join(map(str, trained.blueprint.image)), name.endswith(ONNX)
    head = ["---", "library_name: rapdarts", "pipeline_tag: image-classification"]
    head += [f"license: {json.dumps(licence)}"] if licence else []
    rows = {
        "network": _plain(what(trained)),
        "file": f"{_plain(name)}, {size:,} bytes: {CONTENT[onnx]}",
        "input": f"{image} pixels in 0..1; the network{'' if onnx else ' below'} subtracts each channel's mean ({_numbers(trained.mean)})"
        f" and divides by its standard deviation ({_numbers(trained.std)})",
        "output": f"logits of {len(trained.class_names)} classes: {_plain(', '.join(trained.class_names))}",
        **_trained_on(history),
    }
    rows |= {f"cost: {resource}": show(cost, resource) for resource, cost in trained.blueprint.costs.items()}
    table = ["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in rows.items())]
    lines = [
        *head,
        "---",
        "",
        f"# {_plain(name)}",
        "",
        *table,
        "",
        *_cells(trained),
        *(_use_onnx(trained, name) if onnx else _use(trained, name)),
        *_limits(history, licence),
    ]
    return printable("\n".join(lines), lines=True)


CONTENT = {
    False: "weights in the safetensors format; the metadata hold everything needed to use them",
    True: "a program for ONNX Runtime and other ONNX readers, which does not need rapdarts",
}
"""Description of the content of an exported file, by whether it is an ONNX file."""


def what(trained: TrainedFile) -> str:
    """Describe a trained network in one line."""
    blueprint = trained.blueprint
    if not isinstance(blueprint, DerivedBlueprint):
        return f"{', '.join(blueprint.origin.values())}, a reference network"
    skeleton = blueprint.skeleton
    cells = f"{skeleton.layers} cells x {skeleton.channels} channels with the {skeleton.stem} stem"
    return f"{cells}, from a genotype of the search space {blueprint.space.name}"


def _cells(trained: TrainedFile) -> list[str]:
    blueprint = trained.blueprint
    if not isinstance(blueprint, DerivedBlueprint):
        return []
    return [
        "## Cells",
        "",
        "As text for `rapdarts retrain`:",
        "",
        "```text",
        blueprint.genotype.line,
        "```",
        "",
    ]


def _trained_on(history: History) -> dict[str, str]:
    """Return the table rows on the data set, the test and the training."""
    config, test = history.experiment, history.test
    if config is None:
        return dict.fromkeys(("data set", "test accuracy", "training"), UNKNOWN)
    share = "" if config.data.fraction == 1 else f", a fraction {config.data.fraction:g} of its training images"
    accuracy = "unknown: the run has no result for this file"
    if test:
        interval = wilson(test["test_accuracy"], test["n"])
        accuracy = percent(test["test_accuracy"], interval, f" over test sets of n = {test['n']:,} images")
    recipe = {"crop": config.data.crop, "flip": config.data.flip, **vars(config.retrain)}
    settings = ", ".join(f"{key}={value}" for key, value in recipe.items())
    machine = {key: history.machine.get(key) or "unknown" for key in ("rapdarts", "torch")}
    versions = ", ".join(f"{key} {value}" for key, value in machine.items())
    ranked = history.machine.get("verb") == "rank"
    count = config.rank.epochs if ranked else config.retrain.epochs
    epochs = plural(count, "epoch")
    if ranked:  # a ranking shortens the recipe and uses consecutive seeds
        training = (
            f"{epochs} in a ranking, on a fraction {config.rank.train_fraction:g} of these training images, with {_plain(versions)}; the"
            " recipe is in the config.yaml of the ranking"
        )
    else:
        training = f"{epochs}, seed {config.seed}, with {_plain(versions)}; {_plain(settings)}"
    return {"data set": f"{_plain(config.data.called)}{share}", "test accuracy": accuracy, "training": training}


def _use(trained: TrainedFile, name: str) -> list[str]:
    shape = ", ".join(map(str, trained.blueprint.image))
    given, own = json.dumps(name), _own_space(trained)
    return [
        "## Use",
        "",
        "```python",
        *(["from pathlib import Path", ""] if own else []),
        "import torch",
        "import rapdarts",
        "",
        *([f'space = Path("{own}.py")  # your file that defines this space'] if own else []),
        f"network = rapdarts.load({given}{', space=space' if own else ''})  # pixels in 0..1 to logits",
        f"classes = {json.dumps(list(trained.class_names), ensure_ascii=False)}",
        f"pixels = torch.rand(1, {shape})",
        "with torch.no_grad():",
        "    print(classes[network(pixels).argmax()])",
        "```",
        "",
        f"Written by rapdarts {__version__}; `rapdarts export` also writes files for ONNX, torch.export and ExecuTorch.",
        "",
    ]


def _use_onnx(trained: TrainedFile, name: str) -> list[str]:
    shape = ", ".join(map(str, trained.blueprint.image))
    return [
        "## Use",
        "",
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "",
        f"session = onnxruntime.InferenceSession({json.dumps(name)})  # pixels in 0..1 to logits",
        f"classes = {json.dumps(list(trained.class_names), ensure_ascii=False)}",
        f"pixels = np.random.rand(1, {shape}).astype(np.float32)",
        "(logits,) = session.run(None, {session.get_inputs()[0].name: pixels})",
        "print(classes[logits.argmax()])",
        "```",
        "",
        f"Written by rapdarts {__version__}.",
        "",
    ]


def _own_space(trained: TrainedFile) -> str:
    """Return the name of the space if it is not shipped with rapdarts, else an empty string."""
    blueprint = trained.blueprint
    if isinstance(blueprint, DerivedBlueprint):
        try:
            named_space(blueprint.space.name)
        except InputError:
            return blueprint.space.name
    return ""


def _limits(history: History, licence: str) -> list[str]:
    """Return the sections on the licence and on what was not measured."""
    data = _plain(history.experiment.data.called) if history.experiment else "the data set it was trained on"
    own = (
        f"Licence of the weights, as stated at export: {_plain(licence)}."
        if licence
        else "No licence for the weights was stated at export."
    )
    return [
        "## Licence",
        "",
        f"{own} The licence of {data} is not recorded here and may restrict the use of networks trained on it: check that licence"
        " before use.",
        "",
        "## Not measured",
        "",
        "The variation of the accuracy between trainings (this network is the result of one), the accuracy on images from other sources,"
        " and differences in accuracy between groups of images or people.",
        "",
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _plain(text: str) -> str:
    return text.translate(ESCAPES)

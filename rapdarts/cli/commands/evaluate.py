"""`evaluate`: how good a trained network is, and what it takes, in whatever file it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.cli.arguments import Call
from rapdarts.cli.naming import costs_line, space_asked
from rapdarts.cli.output import answer, write
from rapdarts.config import knobs
from rapdarts.config.commands import EvaluateConfig
from rapdarts.config.units import show
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_ROWS = 20
"""Classes up to which the confusion matrix is written out."""


@dataclass(frozen=True)
class Subject:
    """What a file says about its network, and how it is opened.

    `open` makes it ready on a device: pixels (n, c, h, w) in 0..1 to logits (n, classes).
    """

    image: tuple[int, int, int]
    class_names: tuple[str, ...]
    costs: Mapping[str, float]
    open: Callable[[torch.device], Callable[[Tensor], Tensor]]


def evaluate(call: Call) -> None:
    call.expect(2)
    target = Path(call.target("a run folder of rapdarts retrain, a network.safetensors, or an ONNX file"))
    options = knobs.parse_settings(EvaluateConfig, call.pairs)
    import numpy as np

    from rapdarts.data.augment import fractions
    from rapdarts.data.batches import ordered
    from rapdarts.data.dataset import load_dataset
    from rapdarts.deploy.run_data import check_data, data_asked, experiment_of
    from rapdarts.reports import confusion, plots
    from rapdarts.training.device import device_named
    from rapdarts.training.metrics import measures, predict

    if options.plot:
        plots.check(options.plot)
    file = target / RunFile.NETWORK if target.is_dir() else target
    subject = _in_onnx(file, options) if file.suffix == ".onnx" else _trained(file, call)
    config = experiment_of(file, call.words[1] if len(call.words) > 1 else "", needed=not options.data.name)
    device = device_named("cpu" if file.suffix == ".onnx" else options.device, options.threads or config.threads)
    run = subject.open(device)
    data = load_dataset(data_asked(config.data, options.data, subject.image), device, config.seed)
    check_data(file, subject.image, subject.class_names, data)
    logits, labels = predict(run, ordered(data.test, None, options.batch, fractions(data.image[0])))
    if logits.shape[1] != data.classes:
        raise InputError(
            f"{file} gives {logits.shape[1]} logits, but names {data.classes} classes; give a file that rapdarts export wrote."
        )
    values = measures(logits, labels, data.class_names) | {"costs": dict(subject.costs)}
    if options.timing:
        values["timing"] = _timing(run, device, data.image, options.batch)
    words = _describe(values)
    if options.plot:
        heading = f"{target}: {words.partition(chr(10))[0]}"
        picture = confusion.draw(np.array(values["confusion"]), data.class_names, heading, Path(options.plot).suffix)
        write(options.plot, picture)
        words += f"\nwritten to {options.plot}"
    answer(call, values, words)


def _trained(file: Path, call: Call) -> Subject:
    """A network that a retraining wrote. Raises InputError where the file is not there, or of another runtime."""
    if file.suffix in (".pte", ".pt2"):
        raise InputError(
            f"{file} is not evaluated here; rapdarts evaluate takes run folders, network.safetensors and ONNX files."
        )
    from rapdarts.deploy.model_file import deployed, read_trained
    from rapdarts.training.optimizer import to_device

    trained = read_trained(file, lambda name: space_asked(name, call.space))
    blueprint = trained.blueprint
    return Subject(
        blueprint.input, trained.class_names, blueprint.costs, lambda device: to_device(deployed(trained), device)
    )


def _in_onnx(file: Path, options: EvaluateConfig) -> Subject:
    """A network in an ONNX file. Raises InputError where the file is not there, or says nothing of image and classes."""
    from rapdarts.deploy.onnx import onnx_costs, onnx_facts, onnx_network

    if options.device not in ("auto", "cpu"):
        raise InputError(f"device={options.device}: ONNX files are run on the CPU here; leave device= out.")
    facts = onnx_facts(file)
    return Subject(facts.image, facts.class_names, onnx_costs(file), lambda device: onnx_network(file))


def _timing(
    run: Callable[[Tensor], Tensor], device: torch.device, image: tuple[int, int, int], batch: int
) -> dict[str, Any]:
    """What the network alone takes: seconds of a pass of one image and of a batch, and the images a second that this gives."""
    import torch

    from rapdarts.cost.latency import device_name
    from rapdarts.cost.measure import clock, measure_within

    def taken(images: int) -> dict[str, Any]:
        pixels = torch.rand(images, *image, device=device)
        return asdict(measure_within(lambda: run(pixels), device))

    one, many = taken(1), taken(batch)
    return {
        "latency": one,
        "batch": batch,
        "batch_latency": many,
        "images_per_second": batch / many["median_s"],
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "clock": clock(device),
    }


def _describe(values: Mapping[str, Any]) -> str:
    """The measures for the eye."""
    import numpy as np

    from rapdarts.reports import confusion

    def percent(name: str, error: str) -> str:
        return f"{100 * values[name]:.2f} % +- {100 * values[error]:.2f} %"

    names, matrix = values["classes"], values["confusion"]
    lines = [f"test accuracy {percent('test_accuracy', 'standard_error')} (standard error, n = {values['n']})"]
    if "top5_accuracy" in values:
        lines.append(f"right one among the best five {percent('top5_accuracy', 'top5_standard_error')}")
    lines.append(
        f"calibration error {100 * values['calibration_error']:.2f} % ({len(values['bins'])} bins of confidence),"
        f" negative log-likelihood {values['test_loss']:.4f} nats"
    )
    if len(names) <= MOST_ROWS:
        lines.append(confusion.table(matrix, names))
    else:
        mistakes = confusion.most_confused(np.array(matrix), names)
        lines += [f"{count} times {predicted} for {true}" for true, predicted, count in mistakes]
    lines.append(costs_line(values["costs"]))
    if "timing" in values:
        time, one = values["timing"], values["timing"]["latency"]
        spread = f"{show(one['p10_s'], 'latency')} to {show(one['p90_s'], 'latency')}"
        threads = f", {time['threads']} thread{'' if time['threads'] == 1 else 's'}"
        lines.append(
            f"one image takes {show(one['median_s'], 'latency')} (eight in ten measurements: {spread}),"
            f" a batch of {time['batch']} gives {time['images_per_second']:,.0f} images/s, on {time['device']}{threads}"
        )
    return "\n".join(lines)

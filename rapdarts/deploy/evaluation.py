"""Evaluation of trained networks in any file format: accuracy, costs and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rapdarts.config.command_options import EvaluateConfig
from rapdarts.config.experiment import Experiment
from rapdarts.cost import latency
from rapdarts.cost.measure import clock, measure_within
from rapdarts.data.augment import fractions
from rapdarts.data.batches import ordered
from rapdarts.data.dataset import DataSet, Reader
from rapdarts.data.readers import read_images
from rapdarts.deploy.lookup import ONNX
from rapdarts.deploy.model_file import read_trained
from rapdarts.deploy.onnx import OnnxFile
from rapdarts.deploy.run_data import check_data, data_asked, data_to_test
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError
from rapdarts.interruptions import during
from rapdarts.training.device import device_named
from rapdarts.training.metrics import measures, predict, topk_correct


class TrainedNetwork(Protocol):
    """A network in a file: a `TrainedFile` or an `OnnxFile`."""

    @property
    def path(self) -> Path:
        """Path of the file."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Shape of the input image (channels, height, width)."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""

    @property
    def costs(self) -> Mapping[str, float]:
        """Cost in every resource that is known."""

    @property
    def not_counted(self) -> Mapping[str, Sequence[str]]:
        """Operations not counted in the MACs, each with its layers or nodes."""

    def open(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return the network on a device, as a function from pixels (n, c, h, w) in 0..1 to logits (n, classes)."""


def open_file(file: Path, options: EvaluateConfig, space: Space = None) -> tuple[TrainedNetwork, str]:
    """Return the network in a file and the device to run it on. Raises InputError if the metadata of the file are incomplete."""
    if file.suffix != ONNX:
        return read_trained(file, space), options.device
    if options.device not in ("auto", "cpu"):
        raise InputError(f"device={options.device}: ONNX files run only on the CPU; leave device= out.")
    return OnnxFile.read(file), "cpu"


@during("testing the network")
def evaluate_network(
    network: TrainedNetwork,
    device_name: str,
    config: Experiment,
    options: EvaluateConfig,
    read: Reader | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Evaluate a network on the test images of an experiment, or of the data that the options name. Return all measures.

    If given, `read` loads the data instead. The lines that describe the data are passed to `say`. Raises InputError for data that
    do not fit the network.
    """
    file, device = network.path, device_named(device_name, options.threads or config.threads)
    run = network.open(device)
    if read is None:
        asked = data_asked(config.data, options.data, network.image)
        data = data_to_test(file, asked, read_images(asked), device, config.seed)
    else:
        data = read(device)
    logits, labels = _predict_test(network, run, data, options.batch)
    for line in data.lines:
        say(line)
    values = measures(logits, labels, data.class_names) | {"costs": dict(network.costs)}
    if file.suffix == ONNX:
        values["file_bytes"] = file.stat().st_size
    if network.not_counted:
        values["not_counted"] = dict(network.not_counted)
    return values | ({"timing": timing(run, device, data.image, options.batch)} if options.timing else {})


def correct_on_test(networks: Sequence[TrainedNetwork], data: DataSet, batch: int) -> list[np.ndarray]:
    """Return for each network the boolean mask (n,) of the test images that it classifies correctly, in the order of the data set.

    The networks run on the device of the data. Raises InputError for data that do not fit a network, and DivergedError if a
    network's outputs are not finite.
    """
    device = data.test.labels.device
    return [topk_correct(*_predict_test(one, one.open(device), data, batch)).numpy() for one in networks]


def _predict_test(
    network: TrainedNetwork, run: Callable[[Tensor], Tensor], data: DataSet, batch: int
) -> tuple[Tensor, Tensor]:
    """Return the logits (n, classes) and labels (n,) of the test images, on the CPU; `run` is the network, opened on a device."""
    check_data(network.path, network.image, network.class_names, data)
    logits, labels = predict(run, ordered(data.test, None, batch, fractions(data.image[0])))
    if logits.shape[1] != data.classes:
        raise InputError(
            f"{network.path} returns {logits.shape[1]} logits, but its metadata list {data.classes} classes;"
            " use a file written by rapdarts export."
        )
    return logits, labels


def timing(
    run: Callable[[Tensor], Tensor], device: torch.device, image: tuple[int, int, int], batch: int
) -> dict[str, Any]:
    """Measure the latency of the network on one image (1, c, h, w) and on a batch (n, c, h, w), and the throughput."""

    def taken(images: int) -> dict[str, Any]:
        pixels = torch.rand(images, *image, device=device)
        return asdict(measure_within(lambda: run(pixels), device))

    one, many = taken(1), taken(batch)
    return {
        "latency": one,
        "batch": batch,
        "batch_latency": many,
        "images_per_second": batch / many["median_s"],
        "device": latency.device_name(device),
        "threads": torch.get_num_threads(),
        "clock": clock(device),
    }

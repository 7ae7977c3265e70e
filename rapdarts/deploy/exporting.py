"""Export of trained networks to other formats. Each file is compared with PyTorch on test images before it is written."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rapdarts.config.command_options import ExportConfig
from rapdarts.config.exports import EXPORTS
from rapdarts.data.dataset import DataSet, Reader, load_dataset
from rapdarts.deploy import verify
from rapdarts.deploy.lookup import ONNX
from rapdarts.deploy.model_card import NUMBERS, card, history_of
from rapdarts.deploy.model_file import TrainedFile, content_of, deployed, load_network, read_trained
from rapdarts.deploy.onnx_costs import costs_of
from rapdarts.deploy.run_data import check_data, data_asked, experiment_of
from rapdarts.deploy.runtimes import need
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError
from rapdarts.files import atomic
from rapdarts.interruptions import during
from rapdarts.training.device import device_named


@during("exporting the network")
def export_file(
    file: Path, options: ExportConfig, experiment: str, space: Space, read: Reader | None = None
) -> dict[str, Any]:
    """Write a trained network in the requested format and return the facts to report. `read` loads the data for the comparison.

    Raises InputError if a package or the data are missing, and RapdartsError if the outputs differ too much from PyTorch's.
    """
    if EXPORTS[options.to].extra:
        need(EXPORTS[options.to].extra, f"to={options.to}")
    trained = read_trained(file, space)
    if options.to == "safetensors":
        return export_safetensors(trained, options)
    return export_runtime(trained, options, experiment, read)


def export_safetensors(trained: TrainedFile, options: ExportConfig) -> dict[str, Any]:
    """Copy the file unchanged, after checking that its network can be built, and write the model card next to it."""
    load_network(trained)
    content, history = content_of(trained), history_of(trained.path)
    text = card(trained, history, Path(options.out).name, len(content), options.licence)
    atomic.write_atomically(Path(options.out), content)
    atomic.write_atomically(Path(f"{options.out}.md"), text)
    return {"file": options.out, "bytes": len(content), "card": f"{options.out}.md"}


def export_runtime(
    trained: TrainedFile, options: ExportConfig, experiment: str = "", read: Reader | None = None
) -> dict[str, Any]:
    """Write the file for another runtime after comparing it with PyTorch.

    With precision=8, also evaluate the 8-bit and the 32-bit file on the test set.
    """
    runtime, facts = verify.RUNTIMES[options.to], verify.facts_for(trained, options.licence)
    network = deployed(trained)
    data, why = _data(trained, options, experiment) if read is None else (read(torch.device("cpu")), "")
    if data is not None:
        check_data(trained.path, trained.image, trained.class_names, data)
    pixels = verify.pixels_to_compare(trained.image, data)
    content, found = verify.write_verified(network, runtime, facts, pixels)
    seen = f"{found.n} test images of {data.name}" if data else f"{found.n} random images, because {why}"
    values = {"file": options.out, "bytes": len(content), "batch": runtime.batch, **found.plain, "compared_on": seen}
    if options.precision == 8 and data:
        small, count = verify.int8(content, facts, data, options.calibration)
        before, after = (verify.evaluate_runtime(runtime.open(file), data) for file in (content, small))
        difference = verify.agreement(network, runtime.open(small), pixels)
        weights = costs_of(small, options.out)
        values["fp32"] = {"bytes": len(content), **found.plain, **before.plain}
        values["weights"] = {"bytes": weights.bytes, "scales": weights.scales, "priced": int(trained.costs["params"])}
        values |= {"bytes": len(small), **difference.plain, **after.plain, "calibrated_on": count}
        content = small
    atomic.write_atomically(Path(options.out), content)
    if Path(options.out).suffix == ONNX:
        history = history_of(trained.path)
        if options.precision == 8:  # the quantised network has an accuracy of its own
            history = replace(history, test={key: values[key] for key in NUMBERS if key in values})
        text = card(trained, history, Path(options.out).name, len(content), options.licence)
        atomic.write_atomically(Path(f"{options.out}.md"), text)
        values["card"] = f"{options.out}.md"
    if options.to != "onnx":
        # These formats have no place for a seal, and rapdarts does not read them. The file is one that sha256sum -c checks.
        digest = hashlib.sha256(content).hexdigest()
        atomic.write_atomically(Path(f"{options.out}.sha256"), f"{digest}  {Path(options.out).name}\n")
        values["sha256"] = f"{options.out}.sha256"
    return values


def _data(trained: TrainedFile, options: ExportConfig, experiment: str) -> tuple[DataSet | None, str]:
    """Return the data for the comparison, or None and the reason why there are none.

    Missing data are downloaded, or an error is raised, only if the user named the data or 8-bit calibration needs them.
    """
    needed = bool(experiment or options.data.name or options.data.path) or options.precision == 8
    confirmed = bool(options.data.name)
    try:
        config = experiment_of(trained.path, experiment, needed=not options.data.name, confirmed=confirmed)
    except InputError:
        if needed:
            raise
        return None, "the network is not in a run folder"
    asked = data_asked(config.data, options.data, trained.image)
    try:
        download = asked.download and needed
        data = load_dataset(replace(asked, download=download), device_named("cpu", config.threads), config.seed)
    except InputError:
        if needed:
            raise
        return None, f"the data set {asked.name} of its run is not available"
    return data, ""

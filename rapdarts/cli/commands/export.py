"""`export` and `report`: what was found and trained, in forms for others to read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.cli.arguments import Call
from rapdarts.cli.naming import space_asked
from rapdarts.cli.output import answer, deliver, write
from rapdarts.config import knobs
from rapdarts.config.commands import ExportConfig
from rapdarts.config.exports import EXPORTS
from rapdarts.errors import InputError, shorten
from rapdarts.files.run_files import RunFile

if TYPE_CHECKING:
    from rapdarts.architecture.genotype import Genotype
    from rapdarts.data.dataset import DataSet
    from rapdarts.deploy.model_file import TrainedFile


def export(call: Call) -> None:
    call.expect(2)
    target = call.target("a genotype (a file, a run folder or a name such as PDARTS), or a trained network")
    options = knobs.parse_settings(ExportConfig, call.pairs)
    given = {knobs.full_name(ExportConfig, key) for key, _ in call.pairs}
    form = EXPORTS[options.to]
    idle = given - {"to", "out", *form.keys}
    if idle:
        raise InputError(f"to={options.to} has no use for {min(idle)}=; leave it out.")
    if form.of_genotype:
        from rapdarts.architecture.formats import FORMATS

        if call.words[1:] or call.json:
            useless = f"the experiment {shorten(call.words[1])}" if call.words[1:] else "--json"
            raise InputError(f"to={options.to} writes a genotype, which has no use for {useless}; leave it out.")
        deliver(FORMATS[options.to](_genotype(call, target)), options.out)
        return
    if not options.out:
        raise InputError(f"to={options.to} writes a file; name it with out=FILE.")
    if os.path.isdir(options.out) or not os.path.isdir(Path(options.out).parent):
        raise InputError(f"out={options.out} is a folder, or lies in none that there is; write the path of a file.")
    if "calibration" in given and options.precision == 32:
        raise InputError("calibration= belongs to precision=8; leave it out, or add that.")
    from rapdarts.deploy.model_file import read_trained
    from rapdarts.deploy.runtimes import need

    if form.extra:
        need(form.extra, f"to={options.to}")
    trained = read_trained(_network_file(target, options.to), lambda name: space_asked(name, call.space))
    values = _to_safetensors(trained, options) if options.to == "safetensors" else _to_runtime(call, trained, options)
    answer(call, values, _words(values))


def _genotype(call: Call, target: str) -> Genotype:
    """The genotype that a target names, or that lies in the trained network that it names."""
    file = Path(target)
    if os.path.isdir(file) and not (file / RunFile.GENOTYPE).exists() and (file / RunFile.NETWORK).exists():
        file = file / RunFile.NETWORK
    if file.suffix != ".safetensors" or not os.path.isfile(file):
        from rapdarts.deploy.lookup import find_genotype, named

        if find_genotype(target) is None and not os.path.exists(target):
            from rapdarts.networks import reference

            if reference.find(target):
                raise InputError(f"{target} is a reference network, which has no genotype; name one, such as PDARTS.")
        return named(target)[0]
    from rapdarts.deploy.blueprint import DerivedBlueprint
    from rapdarts.deploy.model_file import read_trained

    blueprint = read_trained(file, lambda name: space_asked(name, call.space)).blueprint
    if isinstance(blueprint, DerivedBlueprint):
        return blueprint.genotype
    raise InputError(
        f"{file} is {', '.join(blueprint.origin.values())}, a reference network without a genotype; take to=onnx, or another format of"
        " networks."
    )


def _network_file(target: str, form: str) -> Path:
    """The trained network that a target names. Raises InputError, with what to do, for one that has no weights."""
    from rapdarts.deploy import lookup
    from rapdarts.networks import reference

    path = Path(target)
    file = path / RunFile.NETWORK if os.path.isdir(path) else path
    if os.path.isfile(file) and file.suffix == ".safetensors":
        return file
    train = f"train it first (rapdarts retrain {shorten(target)} EXPERIMENT run=FOLDER) and name that folder"
    if os.path.isdir(path) and not (path / RunFile.GENOTYPE).exists():
        raise InputError(
            f"{target} holds no network.safetensors, which to={form} needs; name the folder of a finished rapdarts retrain."
        )
    if os.path.exists(path):
        raise InputError(f"{target} holds a genotype without weights, and to={form} needs a trained network; {train}.")
    if lookup.find_genotype(target) or reference.find(target):
        raise InputError(f"{target} is a network without weights, and to={form} needs a trained one; {train}.")
    raise InputError(
        f"there is no trained network {shorten(repr(target))}; name a run folder of rapdarts retrain, or its network.safetensors."
    )


def _to_safetensors(trained: TrainedFile, options: ExportConfig) -> dict[str, Any]:
    """The file as it is, once its network has been built from it, and the card beside it."""
    from rapdarts.deploy.model_card import card, history_of
    from rapdarts.deploy.model_file import load_network

    load_network(trained)
    content, history = trained.path.read_bytes(), history_of(trained.path)
    text = card(trained, history, Path(options.out).name, len(content), options.licence)
    write(options.out, content)
    write(f"{options.out}.md", text)
    return {"file": options.out, "bytes": len(content), "card": f"{options.out}.md"}


def _to_runtime(call: Call, trained: TrainedFile, options: ExportConfig) -> dict[str, Any]:
    """The file of another runtime, compared with PyTorch; at 8 bits, tested beside the one of 32."""
    from rapdarts.deploy import verify as handover
    from rapdarts.deploy.model_file import deployed

    runtime, facts = handover.RUNTIMES[options.to], handover.facts_for(trained, options.licence)
    network = deployed(trained)
    data, why = _data(call, trained, options)
    pixels = handover.pixels_to_compare(trained.blueprint.input, data)
    content, found = handover.write_verified(network, runtime, facts, pixels)
    seen = f"{found.n} test images of {data.name}" if data else f"{found.n} images of random pixels, as {why}"
    values = {"file": options.out, "bytes": len(content), "batch": runtime.batch, **found.plain, "compared_on": seen}
    if options.precision == 8 and data:
        small, count = handover.int8(content, facts, data, options.calibration)
        before, after = (handover.tested(runtime.open(file), data) for file in (content, small))
        difference = handover.agreement(network, runtime.open(small), pixels)
        values["fp32"] = {"bytes": len(content), **found.plain, **before.plain}
        values |= {"bytes": len(small), **difference.plain, **after.plain, "calibrated_on": count}
        content = small
    write(options.out, content)
    return values


def _data(call: Call, trained: TrainedFile, options: ExportConfig) -> tuple[DataSet | None, str]:
    """The data to compare on, or None and why: only those that were asked for, or are needed, are fetched and missed."""
    from rapdarts.data.dataset import load_dataset
    from rapdarts.deploy.run_data import check_data, data_asked, experiment_of
    from rapdarts.training.device import device_named

    needed = bool(call.words[1:] or options.data.name or options.data.path) or options.precision == 8
    try:
        config = experiment_of(trained.path, *call.words[1:], needed=not options.data.name)
    except InputError:
        if needed:
            raise
        return None, "no run folder lies around the network"
    wanted = data_asked(config.data, options.data, trained.blueprint.input)
    wanted = replace(wanted, download=wanted.download and needed)
    try:
        data = load_dataset(wanted, device_named("cpu", config.threads), config.seed)
    except InputError:
        if needed:
            raise
        return None, f"the data set {wanted.name} of its run is not at hand"
    check_data(trained.path, trained.blueprint.input, trained.class_names, data)
    return data, ""


def _words(values: dict[str, Any]) -> str:
    """What was written, for people."""
    size = f"written to {values['file']} ({values['bytes']:,} bytes)"
    if "card" in values:
        return f"{size} and {values['card']}"
    lines = [
        f"logits differ from PyTorch's by {values['largest_difference']:.2g} at most (the largest is"
        f" {values['largest_logit']:.3g}), on {values['compared_on']}",
        f"takes float32 pixels in 0..1, {values['batch']}",
    ]
    if "fp32" in values:
        rows = [(name, side) for name, side in (("fp32", values["fp32"]), ("int8", values))]
        lines += [f"ranges of the activations are those of {values['calibrated_on']} training images"]
        lines += [
            f"{name}: test accuracy {100 * side['test_accuracy']:.2f} % +- {100 * side['standard_error']:.2f} %"
            f" (standard error, n = {side['n']}), {side['bytes']:,} bytes"
            for name, side in rows
        ]
    return "\n".join([*lines, size])

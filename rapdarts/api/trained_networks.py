"""Load, test and export trained networks."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rapdarts.api.process import unchanged_process
from rapdarts.architecture.genotype import Genotype
from rapdarts.config.command_options import EvaluateConfig, ExportConfig
from rapdarts.config.experiment import DataConfig, Experiment
from rapdarts.config.exports import EXPORTS, check_export
from rapdarts.config.given import AnyPath, Settings, command_options
from rapdarts.deploy import lookup
from rapdarts.deploy.lookup import Network
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError
from rapdarts.files import atomic
from rapdarts.files.seal import seal_json

if TYPE_CHECKING:
    from torch import nn

    from rapdarts.loops.results import Evaluated, Exported


@unchanged_process
def load(path: Network, *, normalise: bool = True, classes: int | None = None, space: Space = None) -> nn.Module:
    """Load a trained network as a module in eval mode on the CPU: pixels (n, c, h, w) in 0..1 to logits (n, classes).

    `path` is the folder or the result of a retraining, or its .safetensors file. The module is an `nn.Sequential` of
    `normalise`, with the statistics used in training, and `network`. With `normalise=False`, only the network is returned.

    With `classes`, the network gets a new last layer for that many classes, even if the number is unchanged: every weight whose
    shape depends on the number of classes is replaced, and all other weights are kept. The new weights are drawn from torch's
    global generator. Call `.train()` before you train the network on other data. If the genotype's search space is
    not shipped with rapdarts, pass it as `space`. Raises InputError if there is no such network, and DamagedError if the
    file is damaged.
    """
    file = lookup.find_trained(lookup.word_of(path), onnx=False)
    from rapdarts.deploy.model_file import deployed, read_trained, with_new_head
    from rapdarts.deploy.network_costs import options_of

    trained = read_trained(file, lookup.space_of(space, path))
    module = deployed(trained)
    if classes is not None:
        module.network = with_new_head(trained, options_of(classes=classes).classes)
    return module if normalise else module.get_submodule("network")


@unchanged_process
def evaluate(
    network: Network,
    experiment: str = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    progress: bool = True,
    **keys: Any,
) -> Evaluated:
    """Test a trained network, as `rapdarts evaluate` does: accuracy, confusion matrix, calibration, costs and latency.

    `network` is the folder or the result of a retraining, its network.safetensors, or an ONNX file written by `export`.
    It is tested on the data of its run, unless `experiment`, the key `data.name`, or `data` and `test` (as in `search`)
    specify other data. `test` alone is enough: these images are tested. If other data mark no test images, all of them are tested.
    The data are described on stderr. `keys` takes the other keys of the command. Raises InputError.
    """
    options, _ = command_options(EvaluateConfig, settings, keys)
    picture = None
    if options.plot:
        from rapdarts.reports.plots import picture_to_write

        picture = picture_to_write(options.plot)
    file, space = lookup.find_trained(lookup.word_of(network)), lookup.space_of(space, network)
    from rapdarts.deploy.evaluation import evaluate_network, open_file
    from rapdarts.deploy.run_data import experiment_of
    from rapdarts.loops.in_programs import as_it_was, reader_to_test
    from rapdarts.loops.results import Evaluated
    from rapdarts.reports import evaluation
    from rapdarts.training.log import Screen

    in_memory, say = data is not None or test is not None, Screen(silent=not progress).say
    elsewhere = bool(options.data.name) or in_memory
    with as_it_was():
        opened, device = open_file(file, options, space)
        config = experiment_of(file, experiment, needed=not elsewhere, confirmed=elsewhere)
        if in_memory:
            layout = options.data.layout or "auto"
            config = replace(config, data=DataConfig("memory", range=options.data.range, layout=layout))
        values = evaluate_network(opened, device, config, options, reader_to_test(opened, config, data, test), say)
    words = evaluation.describe_evaluation(values)
    if picture is not None:
        evaluation.write_confusion(values, f"{lookup.word_of(network)}", picture)
        words += f"\nwritten to {options.plot}"
    return Evaluated(values, words)


@unchanged_process
def export(
    network: Network,
    to: str = "json",
    out: AnyPath = "",
    experiment: str = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    **keys: Any,
) -> Exported:
    """Export a genotype or a trained network to another format, as `rapdarts export` does.

    For the genotype formats (json, darts, nasbench201, dot, svg), `network` is anything that `read` accepts, and the text
    is also returned. For the formats of trained networks (safetensors, onnx, pt2, executorch), it is anything that `load`
    accepts. `out` is the output file; for the result of a run, it defaults to a file in the run folder. Before an exported network
    is written, its outputs are compared with PyTorch's on test images from the run, from `experiment`, or from `data` and
    `test` (as in `search`). `keys` takes the other keys of the command. Raises InputError.
    """
    pairs = {"to": to, **({"out": os.fspath(out)} if os.fspath(out) else {}), **(settings or {})}
    options, given = command_options(ExportConfig, pairs, keys)
    check_export(options.to, given, options.precision, experiment)
    word, space = lookup.word_of(network), lookup.space_of(space, network)
    if EXPORTS[options.to].of_genotype:
        return _export_genotype(word, options, space)
    if not options.out and hasattr(network, "folder"):
        options = replace(options, out=str(network.folder / f"exported.{options.to}"))
    if not options.out:
        raise InputError(f"to={options.to} writes a file; set its path with out=FILE.")
    out = atomic.file_to_write(options.out)
    file = lookup.find_trained(word, f"to={options.to}", onnx=False)
    from rapdarts.deploy.exporting import export_file
    from rapdarts.loops.in_programs import as_it_was, reader_of
    from rapdarts.loops.results import Exported
    from rapdarts.reports.evaluation import describe_export

    read = reader_of(Experiment(data=DataConfig("memory")), data, test)
    with as_it_was():
        values = export_file(file, options, experiment, space, read)
    return Exported(out, "", values, describe_export(values))


def _export_genotype(word: str | Genotype, options: ExportConfig, space: Space) -> Exported:
    """Export a genotype as text, and write it to a file if the options name one."""
    from rapdarts.architecture.writing import FORMATS

    file = atomic.file_to_write(options.out) if options.out else None
    content = FORMATS[options.to](lookup.find_network(word, networks=False).the_genotype(space))
    from rapdarts.loops.results import Exported

    if file is None:
        return Exported(None, content, {}, content)
    atomic.write_atomically(file, seal_json(content) if options.to == "json" else content)
    return Exported(file, content, {}, f"written to {file}")

"""Table of the commands. Each command has a module in this package, which calls one function of the library and prints its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from rapdarts.cli.arguments import Call
from rapdarts.config import command_options
from rapdarts.config import experiment as config


@dataclass(frozen=True)
class Command:
    """A command: usage, example, purpose, schemas of its keys, and switches besides --help and --debug.

    `section` is the command's own section of an experiment.
    """

    usage: str
    example: str
    sentence: str
    schemas: tuple[type, ...]
    switches: tuple[str, ...] = ()
    section: str = ""

    @property
    def all_switches(self) -> tuple[str, ...]:
        return ("--help", "--debug", *self.switches)


LAUNCH = (config.Launch, config.Experiment)
COMMANDS = {
    "find": Command(
        "find [EXPERIMENT]",
        "find digits budget.params=100k time=5m run=runs/found",
        "Find a network for a data set and a budget: average several searches, train the best cells briefly and keep the best "
        "one, train its network, test it once, and write an ONNX file and a report. EXPERIMENT is not needed with run=FOLDER "
        "resume=true.",
        LAUNCH,
        ("--json", "--print-config", "--space"),
        "find",
    ),
    "search": Command(
        "search [EXPERIMENT]",
        "search digits cost.macs=0.2 seed=1 run=runs/first",
        "Search for a cell under prices and budgets. EXPERIMENT is not needed with run=FOLDER resume=true.",
        LAUNCH,
        ("--json", "--print-config", "--space"),
        "search",
    ),
    "derive": Command(
        "derive RUN ...",
        "derive runs/first max_skips=1 out=one_skip.json",
        "Derive another genotype from a finished search, or from the mean of several searches with different "
        "seeds. RUN is the folder of a search or, with space=NAME, a file with the architecture parameters of another program "
        "(.npz, .json or .pt). --json lists all candidates, the derived genotype first.",
        (command_options.DeriveConfig,),
        ("--json", "--space"),
    ),
    "retrain": Command(
        "retrain NETWORK [EXPERIMENT]",
        "retrain runs/first/genotype.json digits run=runs/net",
        "Train a network from scratch. NETWORK is a genotype (a file, a run folder, a name such as PDARTS), or a reference "
        "network such as lenet. With a run folder, EXPERIMENT defaults to the experiment of the run.",
        LAUNCH,
        ("--json", "--print-config", "--space"),
        "retrain",
    ),
    "rank": Command(
        "rank RUN ...",
        "rank runs/first runs/second count=5 epochs=10 run=runs/rank",
        "Train the best candidates of finished searches briefly, and rank them on held-out training images. RUN is the folder "
        "of a search; you may add genotype files and names such as PDARTS. The experiment of the first run is used.",
        LAUNCH,
        ("--json", "--print-config", "--space"),
        "rank",
    ),
    "evaluate": Command(
        "evaluate NETWORK [EXPERIMENT]",
        "evaluate runs/net plot=confusion.png",
        "Test a trained network on the data of its run or of another experiment: accuracy, confusion matrix, calibration, "
        "costs and latency. NETWORK is a run folder, a network.safetensors, or an ONNX file written by rapdarts export.",
        (command_options.EvaluateConfig,),
        ("--json", "--space"),
    ),
    "export": Command(
        "export TARGET [EXPERIMENT]",
        "export runs/net to=onnx out=net.onnx",
        "Write a genotype or a trained network for other programs. TARGET is a genotype (a file, a run folder, a name such "
        "as PDARTS), or a trained network (a run folder created by rapdarts retrain, or its network.safetensors). Before an exported "
        "network is written, its outputs are compared with PyTorch's on test images of its run or of EXPERIMENT.",
        (command_options.ExportConfig,),
        ("--json", "--space"),
    ),
    "cost": Command(
        "cost NETWORK ...",
        "cost PDARTS alexnet input=3x224x224 classes=1000 plot=costs.png",
        "Count the costs of networks, layer by layer and side by side. NETWORK is a genotype file (FILE:NAME selects one of "
        "several), a run folder, a name such as PDARTS or alexnet, a network.safetensors, an ONNX file, or "
        "package.module:callable (its arguments image, input_size, in_channels, classes and num_classes are filled in). "
        "With filters as NETWORK, compare filter designs instead.",
        (command_options.CountConfig,),
        ("--json", "--space"),
    ),
    "measure": Command(
        "measure [NETWORK | EXPERIMENT]",
        "measure digits out=latency.json",
        "Measure latency on this device. With NETWORK (as in rapdarts cost), measure its forward pass. With EXPERIMENT or no "
        "argument, measure every primitive of a space, check the predictions on whole networks, and write a table for "
        "search.latency.",
        (command_options.MeasureConfig,),
        ("--json", "--space"),
    ),
    "report": Command(
        "report RUN ...",
        "report runs/first runs/net out=table.md",
        "Print a Markdown table of finished runs; folders without a finished run are left out and reported on stderr.",
        (command_options.ReportConfig,),
    ),
}


def command(verb: str) -> Callable[[Call], None]:
    """Return the function of a command: the function `VERB` in the module `VERB` of this package."""
    run: Callable[[Call], None] = getattr(import_module(f"{__name__}.{verb}"), verb)
    return run

"""The words of the command line: what each command is for, and its keys with defaults, units and ranges in aligned columns."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rapdarts
from rapdarts.config import commands as options
from rapdarts.config import experiment as config
from rapdarts.config import resolve
from rapdarts.config.knobs import Key, keys, range_text, written

SWITCHES = {
    "--help": "print this help",
    "--debug": "show the traceback of an error",
    "--json": "print the result as JSON",
    "--print-config": "print the resolved configuration, which a YAML file of yours may hold, and stop",
    "--space": "take the search space from your own Python file, which is run",
}


@dataclass(frozen=True)
class Command:
    """A command's usage and an example, what it does, the schemas of its keys, and its switches besides --help and --debug.

    `section` is the part of an experiment that is its own.
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
    "search": Command(
        "search EXPERIMENT",
        "search digits cost.macs=0.2 seed=1 run=runs/first",
        "Search for a cell under prices and budgets.",
        LAUNCH,
        ("--json", "--print-config", "--space"),
        "search",
    ),
    "derive": Command(
        "derive RUN",
        "derive runs/first max_skips=1 out=one_skip.json",
        "Read a genotype off a finished search once more. --json lists all candidates, the derived one first.",
        (options.DeriveConfig,),
        ("--json", "--space"),
    ),
    "retrain": Command(
        "retrain NETWORK EXPERIMENT",
        "retrain runs/first/genotype.json digits run=runs/net",
        "Train a network from scratch. NETWORK: a genotype (a file, a run folder, a name such as PDARTS), or a reference "
        "network such as lenet.",
        LAUNCH,
        ("--json", "--print-config", "--space"),
        "retrain",
    ),
    "rank": Command(
        "rank RUN ...",
        "rank runs/first runs/second count=5 epochs=10 run=runs/rank",
        "Train the best candidates of finished searches briefly, and rank them on training images kept aside. RUN: a search's "
        "folder; a genotype's file or a name such as PDARTS may stand beside it. The experiment is the first run's.",
        LAUNCH,
        ("--json", "--print-config", "--space"),
        "rank",
    ),
    "evaluate": Command(
        "evaluate NETWORK [EXPERIMENT]",
        "evaluate runs/net plot=confusion.png",
        "Test a trained network, on the data of its run or of another experiment: accuracy, confusions, calibration, costs "
        "and time. NETWORK: a run folder, a network.safetensors, or an ONNX file that rapdarts export wrote.",
        (options.EvaluateConfig,),
        ("--json", "--space"),
    ),
    "export": Command(
        "export TARGET [EXPERIMENT]",
        "export runs/net to=onnx out=net.onnx",
        "Write a genotype or a trained network for other programs. TARGET: a genotype (a file, a run folder, a name such "
        "as PDARTS), or a run folder of rapdarts retrain or its network.safetensors. A network's file is compared with "
        "PyTorch on test images of its run, or of EXPERIMENT, before it is written.",
        (options.ExportConfig,),
        ("--json", "--space"),
    ),
    "cost": Command(
        "cost NETWORK ...",
        "cost PDARTS alexnet input=3x224x224 classes=1000 plot=costs.png",
        "Count what networks cost, layer by layer and side by side. NETWORK: a genotype's file or run folder, a name "
        "such as PDARTS or alexnet, package.module:callable (told image= and classes= if it takes them), or the word "
        "filters, which compares designs of one.",
        (options.CountConfig,),
        ("--json", "--space"),
    ),
    "measure": Command(
        "measure [EXPERIMENT]",
        "measure digits out=latency.json",
        "Measure what every primitive takes on this device: a table for search.latency, checked on whole networks.",
        (options.MeasureConfig,),
        ("--json", "--space"),
    ),
    "report": Command(
        "report RUN ...",
        "report runs/first runs/net out=table.md",
        "Table of finished runs in Markdown; a folder that holds none is named on stderr and left out.",
        (options.ReportConfig,),
    ),
}


def overview() -> str:
    """What `rapdarts` alone prints."""
    lines = [
        f"rapdarts {rapdarts.__version__}: give it a data set and a budget, and it finds and trains a network that keeps it.",
        "",
    ]
    width = max(len(command.usage) for command in COMMANDS.values())
    lines += [f"  rapdarts {command.usage:{width}}  {command.sentence}" for command in COMMANDS.values()]
    lines += ["", "rapdarts VERB --help lists a command's keys with defaults, units and ranges."]
    return "\n".join(lines)


def help_of(command: Command) -> str:
    """What `rapdarts VERB --help` prints."""
    tables = [table for schema in command.schemas for table in _tables(schema, command.section)]
    everything = [_cells(key) for _, rows in tables for key in rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]

    lines = [f"usage: rapdarts {command.usage} [key=value ...] [switches]", f"       rapdarts {command.example}"]
    lines += ["", command.sentence]
    for heading, rows in tables:
        lines += ["", f"{heading}:"]
        for key in rows:
            lines += _row(_cells(key), _meaning(key), widths)
    if config.Experiment in command.schemas:
        names = ", ".join(resolve.experiment_names())
        if "EXPERIMENT" in command.usage:
            lines += ["", f"EXPERIMENT is one of {names}, or a YAML file of yours."]
        lines += ["A section's name may be left out where the rest is unambiguous: cost.macs=0.2"]
    lines += ["", "switches:"]
    for switch in command.all_switches:
        lines.append(f"  {switch + (' FILE' if switch == '--space' else ''):14}  {SWITCHES[switch]}")
    return "\n".join(lines)


def _tables(schema: type, section: str) -> list[tuple[str, list[Key]]]:
    """The keys of a schema under their headings: its top level, then the command's own section, then the others."""
    tables: dict[str, list[Key]] = {}
    for key in keys(schema):
        tables.setdefault(key.name.rpartition(".")[0], []).append(key)

    def place(home: str) -> int:
        own = bool(section) and f"{home}.".startswith(f"{section}.")
        recipe = home.partition(".")[0] in ("search", "retrain", "rank")
        return 0 if not home else 1 if own else 3 if recipe else 2

    top = {config.Launch: "launch", config.Experiment: "experiment"}.get(schema, "keys")
    return [(home or top, tables[home]) for home in sorted(tables, key=place)]


def _cells(key: Key) -> tuple[str, str, str]:
    """Name, default and unit."""
    default = json.dumps(key.default) if isinstance(key.default, (list, bool)) else written(key, key.default)
    return key.name, default or "(empty)", key.facts["unit"]


def _meaning(key: Key) -> str:
    """The sentence, then what may be chosen; a range is not broken."""
    facts = key.facts
    choices = [str(choice) for choice in facts["choices"] or () if choice != ""]
    bounded = any(facts[bound] is not None for bound in ("low", "high", "above", "below"))
    allowed = ", ".join(choices) if choices else range_text(facts).replace(" ", "\N{NO-BREAK SPACE}") if bounded else ""
    return f"{facts['help']} [{allowed}]" if allowed else str(facts["help"])


def _row(cells: Iterable[str], meaning: str, widths: Sequence[int]) -> list[str]:
    """One key, on as many lines as its meaning needs."""
    start = "  " + "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))
    columns = max(100, shutil.get_terminal_size((120, 24)).columns)
    lines = textwrap.wrap(meaning, columns, initial_indent=start, subsequent_indent=" " * len(start))
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]

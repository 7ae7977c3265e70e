"""Markdown table of finished runs, read from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment, SearchConfig, budget_limits
from rapdarts.config.resources import compact, duration
from rapdarts.errors import DamagedError, InputError, plural, printable
from rapdarts.files.run_files import RunFile
from rapdarts.files.seal import check_record, read_sealed
from rapdarts.reports.text_table import markdown
from rapdarts.reports.warnings import warnings_of
from rapdarts.training.intervals import accuracy_interval, mean_in_words, percent, wilson

REMEDY = "leave the run out, or run it again"
COLUMNS = ("run", "what", "data", "seed", "settings", "params", "MACs", "test accuracy", "n", "time", "machine")
ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "<": "&lt;", **dict.fromkeys("\r\n", " ")})
"""Characters that would end a cell of a Markdown table or start HTML, and their replacements."""


@dataclass(frozen=True, repr=False)
class Report:
    """A Markdown table of finished runs, and the reasons why other runs were left out."""

    text: str
    left_out: list[str]

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


def run_table(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Return a table with a row for each finished run in the given order, and the reasons why other folders were left out.

    The remarks of the runs on their own results follow the table.

    Raises InputError if no folder has a finished run. For a single folder, raises DamagedError if its files are damaged.
    """
    if not folders:
        raise InputError("rapdarts report needs run folders; pass at least one.")
    rows: list[tuple[str, ...]] = []
    left_out: list[str] = []
    warnings: list[str] = []
    for folder in folders:
        try:
            row, result = _row(folder)
            rows.append(tuple(cell.translate(ESCAPES) for cell in row))
            warnings += [printable(f"- {folder}: {one}").translate(ESCAPES) for one in warnings_of(result)]
        except (InputError, DamagedError) as error:
            if len(folders) == 1:
                raise
            left_out.append(str(error).partition(";")[0].rstrip("."))
    if len(left_out) == len(folders):
        raise InputError(f"none of these {len(folders)} folders contains a finished run: {'; '.join(left_out)}.")
    return markdown(COLUMNS, rows) + "".join(f"\n{one}\n" for one in warnings), left_out


def _row(folder: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the row of a run, and its result."""
    experiment = resolve.experiment_of_run(folder)
    if not (folder / RunFile.RESULT).is_file():
        raise InputError(
            f"{folder} contains no finished run (no result.json); leave it out, or finish the run with resume=true."
        )
    result, environment = (read_sealed(folder / name, REMEDY) for name in (RunFile.RESULT, RunFile.ENVIRONMENT))
    check_record(folder, result)
    try:
        verb, data = environment["verb"], experiment.data
        what, params, macs, accuracy, n = _outcome(verb, result)
        row = (
            str(folder),
            what,
            data.name + (f" ({data.fraction:g} of it)" if data.fraction < 1 else ""),
            str(experiment.seed),
            _settings(verb, experiment, result),
            params,
            macs,
            accuracy,
            n,
            duration(result["seconds"]),
            _machine(environment, experiment.device),
        )
        return row, result
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DamagedError(f"{folder} is damaged ({reason}); leave it out, or run it again.") from None


def _outcome(verb: str, result: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Return (what, params, MACs, test accuracy, n); accuracies have 95 % intervals.

    A search has no accuracy. A random baseline has a range of costs. A ranking has the accuracy of its best network on
    held-out training images.
    """
    if verb not in ("find", "search", "retrain", "random", "rank"):
        raise ValueError(f"there is no command {verb!r}")
    if verb == "search":
        costs = result["counted"]
        return verb, f"{costs['params']:,}", f"{costs['macs']:,}", "", ""
    if verb == "rank":
        (first, *_), n = result["networks"], result["validation_images"]
        share, costs = first["validation_accuracy"], first["costs"]
        interval = accuracy_interval(first.get("accuracies", [share]), n)
        accuracy = f"on held-out training images: {percent(share, interval)}"
        return f"{verb}, best of {result['count']}", f"{costs['params']:,}", f"{costs['macs']:,}", accuracy, f"{n:,}"
    if verb in ("find", "retrain"):
        costs, share, n = result["costs"], result["test_accuracy"], result["n"]
        what = f"{verb} {result['network']}" if "network" in result else verb
        return what, f"{costs['params']:,}", f"{costs['macs']:,}", percent(share, wilson(share, n)), f"{n:,}"
    trained = [network for network in result["networks"] if network["test_accuracy"] is not None]
    params, macs = (_range([network["costs"][name] for network in result["networks"]]) for name in ("params", "macs"))
    accuracy = mean_in_words([network["test_accuracy"] for network in trained])
    return f"random baseline, N = {result['count']}", params, macs, accuracy, ""


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _settings(verb: str, experiment: Experiment, result: dict[str, Any]) -> str:
    """Return the settings to show; the epochs of a run of `rapdarts find` are those of its plan, not of its experiment."""
    if verb == "find":
        plan = result["plan"]
        epochs = plural(plan["retrain_epochs"], "epoch")
        return f"{_of_search(experiment.search)} effort={plan['effort']:g}, {epochs}"
    if verb == "rank":
        return plural(experiment.rank.epochs, "epoch")
    return _of_search(experiment.search) if verb == "search" else plural(experiment.retrain.epochs, "epoch")


def _of_search(search: SearchConfig) -> str:
    prices = [f"cost.{name}={value:g}" for name, value in vars(search.cost).items() if value]
    budgets = [f"budget.{name}={compact(limit, name)}" for name, limit in budget_limits(search.budget).items()]
    return " ".join([f"{search.strategy}, {search.space}", *prices, *budgets])


def _machine(environment: dict[str, Any], device: str) -> str:
    """Return the device of the run; a GPU that was present but not used is not named."""
    name = "CPU" if device == "cpu" else environment["gpu"] or "CPU"
    threads = environment["threads"]
    return f"{name}, {plural(threads, 'thread')}"

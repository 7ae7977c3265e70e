"""A table of finished runs, in Markdown, read from their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rapdarts.config import Experiment
from rapdarts.errors import DamagedError, InputError
from rapdarts.knobs import load
from rapdarts.plain_yaml import read_yaml

COLUMNS = ("run", "what", "data", "seed", "settings", "params", "MACs", "test accuracy", "n", "time", "machine")


def table(folders: Sequence[Path]) -> str:
    """One row a run, in the order given. Raises InputError for a folder without a finished run, DamagedError for a broken one."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(folder) for folder in folders)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(folder: Path) -> tuple[str, ...]:
    if not (folder / "result.json").is_file():
        raise InputError(
            f"{folder} holds no finished run (no result.json); leave it out, or finish it with resume=true."
        )
    config = load(Experiment, list(read_yaml(folder / "config.yaml")))
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        verb = environment["verb"]
        costs, accuracy, n = _outcome(verb, result)
        return (
            folder.name,
            f"random baseline, N = {result['count']}" if verb == "random" else verb,
            config.data.name + (f" ({config.data.fraction:g} of it)" if config.data.fraction < 1 else ""),
            str(config.seed),
            _settings(verb, config),
            f"{costs['params']:,}" if costs else "",
            f"{costs['macs']:,}"
            if costs
            else f"within {config.search.random.tolerance:.0%} of {result['target_macs']:,.0f}",
            accuracy,
            n,
            f"{result['seconds'] / 60:.1f} min",
            f"{environment['gpu'] or 'CPU'}, {environment['threads']} threads",
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder} is damaged ({type(error).__name__}: {error}); leave it out.") from None


def _outcome(verb: str, result: dict[str, Any]) -> tuple[dict[str, int], str, str]:
    """(costs, accuracy, n) of a run; a search has no accuracy, a baseline no single cost."""
    if verb == "search":
        return result["counted"], "", ""
    if verb == "retrain":
        return (
            result["costs"],
            f"{100 * result['test_accuracy']:.2f} ± {100 * result['standard_error']:.2f} %",
            f"{result['n']:,}",
        )
    spread = result["standard_deviation"]
    words = (
        f"{100 * result['test_accuracy']:.2f} %"
        if spread is None
        else f"{100 * result['test_accuracy']:.2f} ± {100 * spread:.2f} %"
    )
    return {}, f"{words} (deviation over genotypes)", ""


def _settings(verb: str, config: Experiment) -> str:
    if verb == "search":
        prices = [f"cost.{name}={value:g}" for name, value in vars(config.search.cost).items() if value]
        return " ".join([f"{config.search.strategy}, {config.search.space}", *prices])
    return f"{config.retrain.epochs} epochs"

"""Names of the files in a run folder, in one table for writers and readers."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Final

from rapdarts.errors import InputError
from rapdarts.files.regular import read_bytes


class RunFile:
    """Names of the files that a run writes to its folder, or to the folders of networks trained within it."""

    ALPHAS: Final = "alphas.json"
    """Architecture parameters of a search."""
    BEST_GENOTYPE: Final = "best.json"
    """First genotype of a ranking."""
    BEST_NETWORK: Final = "best.safetensors"
    """Network with the best validation accuracy."""
    CANDIDATES: Final = "candidates.json"
    """Genotypes that a search could have chosen, with their costs."""
    CHECKPOINT: Final = "checkpoint"
    CHECKPOINT_BEFORE: Final = "checkpoint.previous"
    CONFIG: Final = "config.yaml"
    """The resolved experiment."""
    ENVIRONMENT: Final = "environment.json"
    """Command, versions and hardware."""
    GENOTYPE: Final = "genotype.json"
    """Genotype derived by a search."""
    GENOTYPES: Final = "genotypes.json"
    """Genotypes drawn by a random baseline."""
    HARDWARE: Final = "hardware.yaml"
    """Energies used for the prices of a search."""
    LATENCY: Final = "latency.json"
    """Latency table used for the prices of a search."""
    LOCK: Final = "lock"
    METRICS: Final = "metrics.jsonl"
    """Metrics of every epoch."""
    NETWORK: Final = "network.safetensors"
    """Trained network."""
    PAGE: Final = "report.md"
    """Report of `rapdarts find`, a page in Markdown."""
    PLAN: Final = "plan.json"
    """Work plan of `rapdarts find`."""
    RANKING: Final = "ranking.json"
    """Genotypes of a ranking, best first."""
    RESULT: Final = "result.json"
    """Report of a finished run."""
    STATUS: Final = "status.json"
    """State of a run: running, finished, or the reason why it ended."""


CHECKPOINT_HEAD: Final = b"rapdarts-checkpoint "
"""Beginning of every checkpoint, before the version of its format."""

COMMANDS = {"find": "find", "search": "search", "random": "search", "rank": "rank RUN", "retrain": "retrain NETWORK"}
"""The start of the command that resumes a run, by the verb that started it."""

MOST_RECORD_BYTES = 20_000_000
"""Maximum size of a JSON file of a run folder."""

RUN_FILES = frozenset(name for key, name in vars(RunFile).items() if key.isupper())
"""Names of all files in `RunFile`."""


RESULTS = frozenset(
    (
        RunFile.ALPHAS,
        RunFile.BEST_GENOTYPE,
        RunFile.BEST_NETWORK,
        RunFile.CANDIDATES,
        RunFile.GENOTYPE,
        RunFile.GENOTYPES,
        RunFile.NETWORK,
        RunFile.RANKING,
        RunFile.RESULT,
    )
)
"""Names of the files that a run is made for; nobody wants to lose them, even without the checkpoint that they came from."""


def begun(folder: Path) -> bool:
    """Return whether a run in this folder has saved a checkpoint, metrics or a result."""
    names = (RunFile.CHECKPOINT, RunFile.CHECKPOINT_BEFORE, RunFile.RESULT)
    record = folder / RunFile.METRICS
    return any(map(os.path.lexists, (folder / name for name in names))) or (
        os.path.isfile(record) and os.path.getsize(record) > 0
    )


def verb_of(folder: Path) -> str:
    """Return the verb that started the run in a folder, such as find (random: a random baseline); empty if it is unknown."""
    try:
        verb = json.loads(read_bytes(folder / RunFile.ENVIRONMENT, most=MOST_RECORD_BYTES))["verb"]
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return verb if isinstance(verb, str) and verb in COMMANDS else ""


def resuming(folder: Path) -> str:
    """Return the command that resumes the run in a folder; NETWORK and RUN stand for arguments that must be repeated."""
    return f"rapdarts {COMMANDS[verb_of(folder)]} {shlex.quote(f'run={folder}')} resume=true"


def unfinished(folder: Path) -> str:
    """Return a sentence part with the command that resumes the run in a folder if it has no result yet, else an empty string."""
    verb = verb_of(folder)
    if not verb or os.path.isfile(folder / RunFile.RESULT):
        return ""
    return f"{folder} is an unfinished run of rapdarts {COMMANDS[verb].split()[0]}; finish it with {resuming(folder)}"


def part_of(path: Path, step: str) -> Path:
    """Return the folder of `step`, such as search or network, if `path` is a run of `rapdarts find`; otherwise return `path`."""
    # These functions of os.path, unlike those of Path, return False for a name that is too long.
    return path / step if os.path.isfile(path / RunFile.PLAN) and os.path.isdir(path / step) else path


def run_of(path: Path) -> Path | None:
    """Return the run folder that contains the network file `path`, at its top level or in trained/NUMBER, or None."""
    folders = [path.parent]
    if path.absolute().parent.parent.name == "trained":
        folders.append(path.absolute().parents[2])
    return next((folder for folder in folders if (folder / RunFile.CONFIG).is_file()), None)

"""Files of a run folder: one table of their names, for whoever writes them and whoever reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Final


class RunFile:
    """Names of the files that a run writes in its folder, or a network that is trained within it in its own."""

    ALPHAS: Final = "alphas.json"
    """Architecture parameters of a search."""
    BEST_GENOTYPE: Final = "best.json"
    """Genotype that a ranking puts first."""
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
    """Genotype that a search chose."""
    GENOTYPES: Final = "genotypes.json"
    """Genotypes that a random baseline drew."""
    HARDWARE: Final = "hardware.yaml"
    """Energies by which a search was priced."""
    LATENCY: Final = "latency.json"
    """Latency table by which a search was priced."""
    LOCK: Final = "lock"
    METRICS: Final = "metrics.jsonl"
    """Figures of every epoch."""
    NETWORK: Final = "network.safetensors"
    """Trained network."""
    RANKING: Final = "ranking.json"
    """Genotypes of a ranking, best first."""
    RESULT: Final = "result.json"
    """Report of a finished run."""
    STATUS: Final = "status.json"
    """State of a run: running, finished, or what ended it."""


RUN_FILES = frozenset(name for key, name in vars(RunFile).items() if key.isupper())
"""All of them."""


def begun(folder: Path) -> bool:
    """Return whether a run in this folder has got so far that there is something to lose, or to continue."""
    record = folder / RunFile.METRICS
    saved = any((folder / name).exists() for name in (RunFile.CHECKPOINT, RunFile.RESULT))
    return (folder / RunFile.CONFIG).exists() and (saved or (record.exists() and record.stat().st_size > 0))


def run_of(path: Path) -> Path | None:
    """Return the folder of the run that has written a trained network, which may lie in trained/NUMBER; None if there is none."""
    folders = [path.parent]
    if path.absolute().parent.parent.name == "trained":
        folders.append(path.absolute().parents[2])
    return next((folder for folder in folders if (folder / RunFile.CONFIG).is_file()), None)

"""Results of runs: what was found or reached, what it costs, and where all of it is written.

One is accepted by the next function: by its `folder`, its `genotype` or its `file` (`lookup.word_of`). `space` is a space of
the user's own, as it was given, for the next function too; None for one that ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from rapdarts.architecture.genotype import Genotype
from rapdarts.config.resources import costs_line
from rapdarts.cost.latency import LatencyTable
from rapdarts.deploy.blueprint import Blueprint
from rapdarts.deploy.model_file import deployed, read_trained
from rapdarts.deploy.space_lookup import Space
from rapdarts.files.run_files import RunFile
from rapdarts.loops.rank import SURE
from rapdarts.reports.cost_table import Costs
from rapdarts.reports.costs import describe_search
from rapdarts.reports.ranking import describe_ranking
from rapdarts.strategy.derive import Derivation
from rapdarts.training.metrics import Evaluation


@dataclass(frozen=True, repr=False)
class Searched:
    """What a search found: the genotype, what else could have been chosen, and what they cost. `report` is result.json."""

    derivation: Derivation
    report: dict[str, Any]
    folder: Path
    space: Space = None

    @property
    def genotype(self) -> Genotype:
        """The genotype that was chosen; it knows the skeleton that it was priced at."""
        return self.derivation.genotype

    @property
    def candidates(self) -> list[Genotype]:
        """Every genotype that could have been chosen, with its costs: see `rapdarts.strategy.derive.Derivation`."""
        return [candidate.genotype for candidate in self.derivation.candidates]

    @property
    def costs(self) -> Costs:
        """Every resource of the chosen genotype's network, counted in that network."""
        return Costs(self.report["counted"])

    @property
    def file(self) -> Path:
        """The file of the genotype."""
        return self.folder / RunFile.GENOTYPE

    def __repr__(self) -> str:
        return f"{describe_search(self.report)}\nwritten to {self.file}"


@dataclass(frozen=True, repr=False)
class Ranked:
    """The order in which a ranking puts genotypes. `report` is result.json, `resources` are the costs worth showing."""

    genotype: Genotype
    report: dict[str, Any]
    folder: Path
    resources: Sequence[str] = ("macs", "params")
    space: Space = None

    @property
    def file(self) -> Path:
        """The file of the genotype in the first place."""
        return self.folder / RunFile.BEST_GENOTYPE

    def __repr__(self) -> str:
        return f"{describe_ranking(self.report, self.resources, SURE)}\nwritten to {self.file}"


@dataclass(frozen=True, repr=False)
class RandomBaseline:
    """What random genotypes of a given cost reach. `report` is result.json."""

    report: dict[str, Any]
    folder: Path

    @property
    def file(self) -> Path:
        """The file of the report."""
        return self.folder / RunFile.RESULT

    def __repr__(self) -> str:
        return f"{self.report['summary']}\nwritten to {self.file}"


@dataclass(frozen=True, repr=False)
class Retrained:
    """What a retraining reached: accuracy on the test images, and that of `best` where one was chosen. `report` is result.json.

    Of several processes, the one that `is_main` has written it.
    """

    test: Evaluation
    best: Evaluation | None
    blueprint: Blueprint
    report: dict[str, Any]
    folder: Path
    is_main: bool = True
    space: Space = None

    @property
    def file(self) -> Path:
        """The file of the trained network."""
        return self.folder / RunFile.NETWORK

    @property
    def costs(self) -> Costs:
        """Every resource of the deployed network."""
        return Costs(self.blueprint.costs)

    @cached_property
    def network(self) -> nn.Sequential:
        """The trained network from pixels in 0..1 to logits, on the CPU, as `rapdarts.load` gives it."""
        return deployed(read_trained(self.file, self.space))

    def __repr__(self) -> str:
        best = [] if self.best is None else [f"best on validation: test accuracy {self.best}"]
        lines = [f"test accuracy {self.test}", *best, costs_line(self.costs), f"written to {self.file}"]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Evaluated:
    """How good a trained network is on test images. `report` holds every measure by name, `words` says them."""

    report: dict[str, Any]
    words: str

    @property
    def accuracy(self) -> float:
        """Test accuracy, 0 to 1."""
        return float(self.report["test_accuracy"])

    @property
    def costs(self) -> Costs:
        """Every resource of the network that is known for its file."""
        return Costs(self.report["costs"])

    def __repr__(self) -> str:
        return self.words


@dataclass(frozen=True, repr=False)
class Exported:
    """A genotype or a trained network in the form that another program reads.

    `content` is a genotype's text; a network's is in `file` alone. `report` says how a network's file agrees with PyTorch.
    """

    file: Path | None
    content: str
    report: dict[str, Any]
    words: str

    def __repr__(self) -> str:
        return self.words


@dataclass(frozen=True, repr=False)
class Measured:
    """A latency table, the file it is written to, and in words how far it can be trusted."""

    table: LatencyTable
    file: Path
    words: str

    def __repr__(self) -> str:
        return f"{self.words}\nwritten to {self.file}"

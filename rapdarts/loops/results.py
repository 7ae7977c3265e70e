"""Results of runs: the genotype or the accuracy, the costs, and the files that hold them.

The functions of the package accept a result as input, through its `folder`, `genotype` or `file` (`lookup.word_of`). `space`
is the user's own space, or None for a space of the package; functions that accept the result use this space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.reading import read_genotype
from rapdarts.config.resources import costs_line
from rapdarts.cost.latency import LatencyTable
from rapdarts.deploy.blueprint import Blueprint
from rapdarts.deploy.model_file import deployed, read_trained
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import plural
from rapdarts.files.run_files import RunFile
from rapdarts.reports.cost_table import Costs
from rapdarts.reports.costs import describe_search
from rapdarts.reports.find_page import describe_found
from rapdarts.reports.ranking import describe_ranking
from rapdarts.reports.warnings import warnings_of
from rapdarts.strategy.derive import Derivation
from rapdarts.training.metrics import Evaluation


@dataclass(frozen=True, repr=False)
class Searched:
    """Result of a search: the genotype, the other candidates, and their costs. `report` is the content of result.json."""

    derivation: Derivation
    report: dict[str, Any]
    folder: Path
    space: Space = None

    @property
    def genotype(self) -> Genotype:
        """The derived genotype, with the skeleton for which its costs were counted."""
        return self.derivation.genotype

    @property
    def candidates(self) -> list[Genotype]:
        """The genotypes that were compared in the derivation, with their costs; see `rapdarts.strategy.derive.Derivation`."""
        return [candidate.genotype for candidate in self.derivation.candidates]

    @property
    def costs(self) -> Costs:
        """Cost of the derived network in every resource, counted in the network itself."""
        return Costs(self.report["counted"])

    @property
    def file(self) -> Path:
        """The file of the genotype."""
        return self.folder / RunFile.GENOTYPE

    def __repr__(self) -> str:
        return f"{describe_search(self.report)}\nwritten to {self.file}"


@dataclass(frozen=True, repr=False)
class Ranked:
    """Result of a ranking. `report` is the content of result.json, and `resources` are the names of the costs to show."""

    genotype: Genotype
    report: dict[str, Any]
    folder: Path
    resources: Sequence[str] = ("macs", "params")
    space: Space = None

    @property
    def file(self) -> Path:
        """The file of the best genotype."""
        return self.folder / RunFile.BEST_GENOTYPE

    def __repr__(self) -> str:
        return f"{describe_ranking(self.report, self.resources)}\nwritten to {self.file}"


@dataclass(frozen=True, repr=False)
class RandomBaseline:
    """Result of a random baseline: accuracies of random genotypes with a given cost. `report` is the content of result.json."""

    report: dict[str, Any]
    folder: Path

    @property
    def file(self) -> Path:
        """The file of the report."""
        return self.folder / RunFile.RESULT

    def __repr__(self) -> str:
        return "\n".join([self.report["summary"], *warnings_of(self.report), f"written to {self.file}"])


@dataclass(frozen=True, repr=False)
class Retrained:
    """Result of a retraining: test accuracy of the final weights, and of the `best` weights if images were held out to choose them.

    `report` is the content of result.json. Only the process with `is_main` set writes this file.
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
        """Cost of the deployed network in every resource."""
        return Costs(self.blueprint.costs)

    @cached_property
    def network(self) -> nn.Sequential:
        """The trained network as returned by `rapdarts.load`: on the CPU, with pixels in 0..1 as input and logits as output."""
        return deployed(read_trained(self.file, self.space))

    def __repr__(self) -> str:
        best = []
        if self.best is not None:
            epochs = self.report["best"]["of_epochs"]
            best = [f"best of {plural(epochs, 'epoch')} on held-out images: test accuracy {self.best}"]
        lines = [f"test accuracy {self.test}", *best, costs_line(self.costs), *warnings_of(self.report)]
        return "\n".join([*lines, f"written to {self.file}"])


@dataclass(frozen=True, repr=False)
class FoundNetwork:
    """Result of `find`: a tested network within the budgets. `report` is the content of result.json."""

    report: dict[str, Any]
    folder: Path
    space: Space = None

    @property
    def genotype(self) -> Genotype:
        """The genotype of the network, with its skeleton."""
        return read_genotype(self.folder / "network" / RunFile.GENOTYPE)

    @property
    def file(self) -> Path:
        """The file of the trained network."""
        return self.folder / "network" / RunFile.NETWORK

    @property
    def onnx(self) -> Path:
        """The network as an ONNX file."""
        return self.folder / "network" / "network.onnx"

    @property
    def accuracy(self) -> float:
        """Test accuracy, 0 to 1."""
        return float(self.report["test_accuracy"])

    @property
    def costs(self) -> Costs:
        """Cost of the network in every resource."""
        return Costs(self.report["costs"])

    @cached_property
    def network(self) -> nn.Sequential:
        """The trained network as returned by `rapdarts.load`: on the CPU, with pixels in 0..1 as input and logits as output."""
        return deployed(read_trained(self.file, self.space))

    def __repr__(self) -> str:
        files = f"written to {self.file}, {self.onnx.name} next to it, and {self.folder / RunFile.PAGE}"
        return f"{describe_found(self.report)}\n{files}"


@dataclass(frozen=True, repr=False)
class Evaluated:
    """Quality of a trained network on test images. `report` holds every measure by name, and `words` is the same report as text."""

    report: dict[str, Any]
    words: str

    @property
    def accuracy(self) -> float:
        """Test accuracy, 0 to 1."""
        return float(self.report["test_accuracy"])

    @property
    def costs(self) -> Costs:
        """Cost of the network in every resource recorded in its file."""
        return Costs(self.report["costs"])

    def __repr__(self) -> str:
        return self.words


@dataclass(frozen=True, repr=False)
class Exported:
    """A genotype or a trained network in a form that another program reads.

    `content` is the text of a genotype; a network is written only to `file`. `report` states how closely the outputs of an
    exported network agree with PyTorch's.
    """

    file: Path | None
    content: str
    report: dict[str, Any]
    words: str

    def __repr__(self) -> str:
        return self.words


@dataclass(frozen=True, repr=False)
class Measured:
    """A latency table, its file, and a description of how reliable the latencies are."""

    table: LatencyTable
    file: Path
    words: str

    def to_json(self) -> dict[str, Any]:
        """Return everything except the times of the primitives, as JSON values."""
        return self.table.head()

    def __repr__(self) -> str:
        return f"{self.words}\nwritten to {self.file}"

"""Genotypes in files: FILE, or FILE:NAME for one of several, with advice for a file without a genotype."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rapdarts.architecture.dialects.nasbench import PRIMITIVES
from rapdarts.architecture.dialects.search import NoGenotype
from rapdarts.architecture.genotype import Genotype, buildable, validate
from rapdarts.architecture.reading import parse_genotype, read_genotype
from rapdarts.architecture.space import KINDS
from rapdarts.deploy.space_lookup import named_space, shipped_spaces
from rapdarts.errors import InputError
from rapdarts.files.atomic import MARKS
from rapdarts.files.run_files import RUN_FILES, RunFile

USUAL = "darts"
"""Space assumed for a genotype that fits no shipped space; messages then say why it does not fit this space."""

OF_RUN = (RunFile.GENOTYPE, RunFile.BEST_GENOTYPE)
"""Files that contain the genotype of a run: that of a search or a retraining, or the best genotype of a ranking."""
SEVERAL = (RunFile.CANDIDATES, RunFile.GENOTYPES, RunFile.RANKING)
"""Files of a run folder that contain several genotypes."""
RECORDS = RUN_FILES - {*OF_RUN, *SEVERAL}

OTHERS = {
    (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".tar", ".npz", ".npy"): "rapdarts reads genotypes from text;"
    " rapdarts derive FILE space=NAME derives one from the alpha arrays of a .npz or .pt file",
    (".pte", ".pt2"): "it is for another runtime; pass the run folder of the network, or its network.safetensors",
}
"""Advice for binary files, by suffix."""


def split_member(name: str) -> tuple[Path, str] | None:
    """Return the file and the name or line of one of its genotypes, as in FILE:NAME; None if there is no such file."""
    file, _, member = name.rpartition(":")
    return (Path(file), member) if file and member and os.path.isfile(file) else None


def genotype_in(path: Path, space: str = "", member: str = "") -> Genotype:
    """Return the genotype in a file. If the file names no space, the genotype gets `space`, else the shipped space that fits.

    Raises InputError. If the file is another file of a run folder, the error names the file with the run's genotype.
    """
    own = next((path.parent / name for name in OF_RUN if os.path.isfile(path.parent / name)), None)
    of_run = f"; the genotype of this run is in {own}" if own is not None and own.name != path.name else ""
    in_run = own is not None or any(os.path.isfile(path.parent / mark) for mark in MARKS)
    if path.name in RECORDS and in_run and os.path.isfile(path):
        raise InputError(
            f"{path} is a record of a run and contains no genotype to build{of_run or '; pass a genotype'}."
        )
    try:
        return settled(read_genotype(path, space, member))
    except NoGenotype as error:
        raise InputError(f"{error.finding}{of_run}.") if of_run else error from None
    except InputError as error:
        advice = next((words for suffixes, words in OTHERS.items() if path.suffix.lower() in suffixes), "")
        if advice and str(error).endswith("is a binary file, not text."):
            raise InputError(f"{path} is a binary file and contains no genotype: {advice}.") from None
        raise


def genotype_of(text: str, space: str = "") -> Genotype:
    """Return the genotype in a string; its space is found as in `genotype_in`. Raises InputError."""
    return settled(parse_genotype(text, "the genotype", space))


def settled(genotype: Genotype) -> Genotype:
    """Return the genotype; without a space, it is assigned a shipped one in which it can be found or, failing that, built."""
    if genotype.space:
        return genotype
    return replace(genotype, space=USUAL if _is_usual(genotype) else _fitting(genotype))


def _is_usual(genotype: Genotype) -> bool:
    """Return whether a genotype belongs to the DARTS space, without importing the spaces and thereby torch."""
    return set(genotype.cells) == set(KINDS) and all(
        (cell.inputs, len(cell.nodes)) == (2, 4)
        and all(name in PRIMITIVES for node in cell.nodes for name, _ in node)
        and all(len({source for _, source in node}) == len(node) <= 2 for node in cell.nodes)
        for cell in genotype.cells.values()
    )


def _fitting(genotype: Genotype) -> str:
    names = sorted(shipped_spaces(), key=lambda name: (name != USUAL, name))
    for fits in (validate, buildable):
        for name in names:
            with suppress(InputError):
                fits(genotype, named_space(name), name)
                return name
    return USUAL

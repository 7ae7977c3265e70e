"""Network lookup: resolves a name, a path or a value to a genotype, a reference network, user code, or a file of trained weights.

Names, files and run folders are looked up only here, without importing torch, so that mistakes are reported at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rapdarts.architecture.dialects.search import UNDERSTOOD, NoGenotype
from rapdarts.architecture.genotype import Genotype, buildable
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import SearchSpace
from rapdarts.config.resolve import experiment_names
from rapdarts.deploy.genotype_files import OF_RUN, genotype_in, genotype_of, split_member
from rapdarts.deploy.own_code import ONLY_COUNTED, PICKLED, advice_on, file_of
from rapdarts.deploy.space_lookup import Space, space_for
from rapdarts.errors import InputError, RapdartsError, nearest, shorten, suggestion
from rapdarts.files.run_files import RunFile, part_of, run_of, unfinished, verb_of
from rapdarts.networks.reference import REFERENCE, find_reference, width_problem

CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
"""Pattern for `package.module:callable`, a network in the user's own code."""

FILES = (
    ".py",
    ".ipynb",
    ".json",
    ".yaml",
    ".yml",
    ".txt",
    ".log",
    ".npz",
    ".npy",
    ".safetensors",
    ".onnx",
    ".pte",
    ".pt2",
    *PICKLED,
)
"""Suffixes of names that can only be meant as files."""

ONNX = ".onnx"

Network = Any
"""Any value that refers to a network: a genotype in any form, the name of a reference network, a run folder, or the result of a run."""

RESULTS = ("rapdarts.loops.results", "rapdarts.strategy.derive")
"""Modules that define the results returned by the library functions."""


@dataclass(frozen=True)
class Found:
    """A network that the user named. Exactly one of `genotype`, `reference`, `code` and `file` is set.

    `name` is what the user wrote, and `where` is where the network was found. `file` is set for trained weights without a
    genotype file. `folder` is the run folder that was named, or that of the run that trained the network.
    """

    name: str
    where: str
    genotype: Genotype | None = None
    reference: str = ""
    code: str = ""
    file: Path | None = None
    folder: Path | None = None

    def the_genotype(self, space: Space = None) -> Genotype:
        """Return the genotype, including one stored in the file of a trained network.

        `space` is the genotype's search space if that space is not shipped with rapdarts. Raises InputError if there is no genotype.
        """
        if self.genotype is not None:
            return self.genotype
        if self.file is None:
            raise InputError(
                f"{self.where} is a reference network, which has no genotype; pass a genotype, such as PDARTS."
            )
        if self.file.suffix == ONNX:
            raise InputError(
                f"{self.file} is an ONNX file, and rapdarts cannot read a genotype from it; pass the run folder of its network, or the"
                f" {RunFile.NETWORK} there."
            )
        genotype, reference = _in_trained(self.file, space)
        if genotype is None:
            raise InputError(
                f"{self.file} is {reference}, a reference network without a genotype; pass a genotype, such as PDARTS."
            )
        return genotype

    def the_reference(self, space: Space = None) -> str:
        """Return the name of the reference network, including one stored in a file; empty for the network of a genotype."""
        if self.file is not None and self.genotype is None and self.file.suffix != ONNX:
            return _in_trained(self.file, space)[1]
        return self.reference


def _in_trained(file: Path, space: Space) -> tuple[Genotype | None, str]:
    """Return the genotype of the network in a file, or the name of its reference network."""
    from rapdarts.deploy.model_file import read_trained

    blueprint = read_trained(file, space).blueprint
    return getattr(blueprint, "genotype", None), getattr(blueprint, "reference", "")


def find_network(
    given: Genotype | str | os.PathLike[str], space: str = "", networks: bool = True, code: bool = False
) -> Found:
    """Return the network that a value, a name, a file, FILE:NAME, a run folder, or the text of a genotype refers to.

    `space` is the search space of a string that does not name one; by default, the shipped space that fits. `networks` says
    whether messages suggest reference networks too, and `code` whether `package.module:callable` is accepted. Raises
    InputError.
    """
    if isinstance(given, Genotype):
        return Found("the genotype", "the genotype", given)
    if type(given).__name__ == "ExportedProgram":
        raise InputError("the layers of an exported program cannot be counted; pass the module that was exported.")
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"a network must be a genotype, a name, a file, or the folder or result of a run, not {type(given).__name__}."
        )
    name = os.fspath(given)
    known, reference = find_genotype(name), find_reference(name)
    if (known or reference) and os.path.lexists(name):
        other = name.lower() if name != name.lower() else name.upper()
        raise InputError(
            f"{name} names both a network and a file or folder here; write ./{name} for the file or folder, or {other} for the network."
        )
    if known is not None:
        return Found(name, name, known)
    if reference is not None:
        return Found(name, name, reference=reference)
    if os.path.exists(name):
        with _advised(Path(name), code):
            return _in_files(name, part_of(Path(name), "network"), space)
    if part := split_member(name):
        with _advised(part[0], code):
            return Found(name, name, genotype_in(part[0], space, part[1]))
    what, forms = "network" if networks else "genotype", "a file, package.module:callable" if code else "a file"
    if any(mark in name for mark in "({|") or name.lstrip().startswith("["):
        try:
            return Found("the genotype", "the genotype", genotype_of(name, space))
        except NoGenotype:
            raise InputError(
                f"there is no {what} {shorten(repr(name))}: it is neither {forms} nor a known name, and it contains no"
                f" genotype; supported formats are {UNDERSTOOD}."
            ) from None
    if code and CODE.fullmatch(name) and not name.partition(":")[0].endswith(".py"):
        return Found(name, name, code=name)
    raise InputError(_nothing_named(name, what, forms, networks, code))


def _nothing_named(name: str, what: str, forms: str, networks: bool, code: bool) -> str:
    """Return the message for a name that is neither a file nor a known name; the other arguments are those of `find_network`."""
    if code and (source := file_of(name)):
        return f"there is no {what} {name!r}; for a network in the Python file {source}, write {name}:NAME."
    file, _, member = name.rpartition(":")
    path = file if file.endswith(FILES) and member else name
    if os.sep in name or path.endswith(FILES):
        return f"there is no file or folder {shorten(path)}; pass an existing path or the name of a {what}."
    if CODE.fullmatch(name):
        return f"{shorten(name)} cannot be used here: {ONLY_COUNTED}; pass a genotype."
    if name in experiment_names():
        return f"{name!r} is an experiment, not a network; put the network before the experiment."
    if networks and (problem := width_problem(name)):
        return problem
    hint = suggestion(name, [*LITERATURE, *(REFERENCE if networks else ())])
    return f"there is no {what} {shorten(repr(name))}: it is neither {forms} nor a known name; {hint}."


@contextmanager
def _advised(file: Path, code: bool) -> Iterator[None]:
    """Add advice to the error for a file without a genotype that may hold a network; `code` is that of `find_network`."""
    try:
        yield
    except NoGenotype as error:
        advice = "" if "Genotype" in error.finding else advice_on(file, code)
        if not advice:
            raise
        raise InputError(f"{error.finding}; {advice}.") from None
    except InputError as error:
        advice = advice_on(file, code) if file.suffix.lower() in PICKLED else ""
        if not advice:
            raise
        raise InputError(f"{str(error).rstrip('.')}; {advice}.") from None


def experiment_named(given: Any) -> str | None:
    """Return the name or the file of an experiment, or an empty string if none is given; None for a value that names a network.

    A misspelt name of an experiment is returned too, so that resolving it raises an error with a suggestion.
    """
    word = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(word, str):
        return None
    if not word or word in experiment_names() or word.endswith((".yaml", ".yml")):
        return word
    is_code = CODE.fullmatch(word) or file_of(word)
    names_network = find_genotype(word) or find_reference(word) or os.path.exists(word) or is_code
    return word if not names_network and nearest(word, experiment_names()) else None


def find_genotype(name: str) -> Genotype | None:
    """Return the published genotype with this name, ignoring case; None if there is none."""
    return next((genotype for known, genotype in LITERATURE.items() if known.lower() == name.lower()), None)


def _in_files(name: str, path: Path, space: str = "") -> Found:
    """Return the network of a run folder or a file."""
    if not os.path.isdir(path):
        if path.suffix in (".safetensors", ONNX):
            return Found(name, name, file=path, folder=run_of(path))
        return Found(name, name, genotype_in(path, space))
    for file in OF_RUN:
        if os.path.exists(path / file):
            return Found(name, str(path / file), genotype_in(path / file, space), folder=run_of(path / file))
    if (path / RunFile.NETWORK).exists():
        trained = path / RunFile.NETWORK
        return Found(name, str(trained), file=trained, folder=run_of(trained))
    if words := unfinished(Path(name)):
        raise InputError(f"{words}.")
    raise InputError(
        f"{path} has no genotype.json: its search has not finished, or it is not a run folder; pass the folder of a finished run."
    )


def find_trained(name: str | os.PathLike[str], purpose: str = "", onnx: bool = True) -> Path:
    """Return the file of a trained network, given its run folder or the file itself.

    `purpose` names the option that needs the network, such as `to=onnx`; `onnx` says whether an ONNX file is accepted. Raises InputError,
    with advice, for a network without weights.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(
            f"a trained network must be a file, or the folder or result of a retraining, not {type(name).__name__}."
        )
    path = part_of(Path(name), "network")
    file = path / RunFile.NETWORK if os.path.isdir(path) else path
    if os.path.isfile(file) and file.suffix == ONNX and not onnx:
        raise InputError(
            f"{file} is an ONNX file, which works only with rapdarts evaluate and rapdarts cost; pass the run folder of its network, or the"
            f" {RunFile.NETWORK} there."
        )
    if os.path.isfile(file) and file.suffix in (".safetensors", ONNX):
        return file
    target, needs = shorten(os.fspath(name)), f"{purpose} needs" if purpose else "it is needed"
    train = f"train it first (rapdarts retrain {target} EXPERIMENT run=FOLDER; in Python, rapdarts.retrain) and pass that folder"
    need = f", and {purpose} needs a trained network" if purpose else ""
    if os.path.isfile(path / RunFile.RANKING):
        raise InputError(
            f"{path} is a ranking, whose networks are in {path / 'trained'}; pass the folder of one, such as {path / 'trained' / '1'}."
        )
    if verb_of(Path(name)) in ("find", "retrain") and (words := unfinished(Path(name))):
        raise InputError(f"{words}.")
    if os.path.isdir(path) and not (path / RunFile.GENOTYPE).exists():
        raise InputError(
            f"{path} has no {RunFile.NETWORK}{f', which {needs}' if purpose else ''}; pass the folder of a finished retraining."
        )
    if path.suffix in (".pte", ".pt2"):
        raise InputError(
            f"{path} is for another runtime, and rapdarts cannot read it; pass its run folder, or the {RunFile.NETWORK} there."
        )
    file_or_onnx = (
        f"its {RunFile.NETWORK}, or an ONNX file written by rapdarts export" if onnx else f"or its {RunFile.NETWORK}"
    )
    wanted = f"pass a run folder created by rapdarts retrain, {file_or_onnx}"
    if os.path.exists(path) or split_member(os.fspath(name)):
        try:
            find_network(name)
        except RapdartsError:
            advice = advice_on((split_member(os.fspath(name)) or (path,))[0], counts=False)
            raise InputError(f"{path} is not a trained network{advice and ': '}{advice}; {wanted}.") from None
        raise InputError(f"{path} has a genotype but no weights{need}; {train}.")
    if find_genotype(os.fspath(name)) or find_reference(os.fspath(name)):
        need = f", and {purpose} needs a trained one" if purpose else ""
        raise InputError(f"{target} is a network without weights{need}; {train}.")
    raise InputError(f"there is no trained network at {shorten(repr(os.fspath(name)))}; {wanted}.")


# --- arguments of library functions ------------------------------------------------------------------------------


def word_of(given: Any) -> Any:
    """Return a path or a name as text, a result as its folder, genotype or file, and anything else unchanged."""
    if type(given).__module__ in RESULTS:
        results = (getattr(given, name, None) for name in ("folder", "genotype", "file"))
        given = next((one for one in results if one is not None), given)
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def countable(network: Network) -> Any:
    """Return a module unchanged, or else the network that the value refers to, which may be in user code. Raises InputError."""
    word = word_of(network)
    return word if is_module(word) else find_network(word, code=True)


def is_module(given: Any) -> bool:
    """Return whether a value is a torch.nn.Module. It cannot be one before torch has been imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.nn.Module)


def own_space(space: Space) -> Space:
    """Return the user's own space unchanged, and None for the name of a shipped space."""
    return None if isinstance(space, str) else space


def space_of(space: Space, *given: Any) -> Space:
    """Return `space` if it is not None, else that of the first result among the other arguments."""
    spaces = [getattr(one, "space", None) for one in given if not isinstance(one, Genotype)]
    own = next((one for one in spaces if one is not None), None)
    return own if space is None else space


def network_to_train(found: Found, space: Space, asked: Mapping[str, str]) -> tuple[Found, SearchSpace | None]:
    """Return the network to train and the space of its genotype; the space is None for a reference network.

    Raises InputError for keys that a reference network does not use, and for a genotype that does not fit the space.
    """
    reference = found.the_reference(space)
    if reference:
        given = "--space" if isinstance(space, os.PathLike) else "space="
        useless = f"{next(iter(asked))}=" if asked else "" if space is None else given
        if useless:
            raise InputError(f"{reference} is a reference network, which does not use {useless}; leave it out.")
        return replace(found, reference=reference, file=None), None
    genotype = found.the_genotype(space)
    own = space_for(genotype, space)
    built = replace(buildable(genotype, own, found.where), space=own.name)
    return replace(found, genotype=built, file=None), own

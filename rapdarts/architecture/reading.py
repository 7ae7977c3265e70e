"""Parsers of genotypes, from a file or a text, in our JSON or in the dialect of another program.

Texts are parsed, never evaluated. An InputError states in one sentence where a text is wrong and why.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rapdarts.architecture import dialects
from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import FORMAT, MAX_FILE_BYTES, SKELETON, VERSION, Genotype
from rapdarts.architecture.space import KINDS, Skeleton
from rapdarts.errors import InputError
from rapdarts.files.json import Fault, as_list, as_object, is_whole, quote_value, reader, record, strict_loads
from rapdarts.files.text import read_text

SPACE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""Pattern of a space's name, which becomes a module name: no character may lead out of the folder of spaces."""

as_space_name = reader(
    lambda value: isinstance(value, str) and SPACE_NAME.fullmatch(value) is not None,
    "a name of up to 64 letters, digits, _ and -",
)
as_stem = reader(lambda value: value in ("cifar", "imagenet"), "cifar or imagenet")


def read_genotype(path: Path, space: str = "darts") -> Genotype:
    """Return the genotype in a file of any dialect. `space` is the genotype's space if the file names none.

    Raises InputError if the file is not regular, too large, not UTF-8, or not a genotype.
    """
    where = str(path)
    text = read_text(path, where, MAX_FILE_BYTES, f"has more than {MAX_FILE_BYTES} bytes, too many for a genotype")
    if "\0" in text:
        raise InputError(f"{where} is not UTF-8 text (it looks like UTF-16 or binary); save it as UTF-8.")
    return parse_genotype(text, where, space)


def parse_genotype(text: str, where: str, space: str = "darts") -> Genotype:
    """Return the genotype in a text: our JSON, or a dialect of another program (`rapdarts.architecture.dialects`).

    `where` names the text in messages. `space` is the genotype's space if the text names none. Raises InputError.
    """
    if text.startswith("\ufeff"):
        raise InputError(f"{where} begins with a byte order mark; save it as UTF-8 without one.")
    if not text.strip():
        raise InputError(f"{where} is empty; it must contain a genotype.")
    foreign = dialects.find_dialect(text)
    return _genotype(foreign(text, where), where, space) if foreign else parse_genotype_json(text, where, space)


def parse_genotype_json(text: str, where: str, space: str = "darts") -> Genotype:
    """Return the genotype in a JSON text: our format, or an NNI dictionary, whose space is `space`. Raises InputError."""
    if len(text) > MAX_FILE_BYTES:
        raise InputError(f"{where} has {len(text)} characters, too many for a genotype.")
    try:
        tree = as_object(strict_loads(text), where)
    except Fault as fault:
        raise InputError(f"{where}, {fault}.") from None
    if "format" not in tree and dialects.is_nni(tree):
        return _genotype(dialects.cells_from_nni(tree, where), where, space)
    if tree.get("format") != FORMAT:
        raise InputError(
            f"{where}: format must be {FORMAT!r}, not {quote_value(tree.get('format'))}; supported formats are {dialects.UNDERSTOOD}."
        )
    version = tree.get("version")
    if not is_whole(version) or version < 1:
        raise InputError(f"{where}: version must be {VERSION}, not {quote_value(version)}.")
    if version > VERSION:
        raise InputError(f"{where} has version {version} and needs a newer rapdarts; this one reads version {VERSION}.")

    required = {"format": None, "version": None, "space": as_space_name, "cells": None}
    facts = record(tree, where, required, {"skeleton": _skeleton, "costs": _costs, "provenance": as_object})
    del facts["format"], facts["version"]
    cells = record(facts["cells"], f"{where}: cells", dict.fromkeys(KINDS[:1]), dict.fromkeys(KINDS[1:]))
    facts["cells"] = {kind: _cell(cell, f"{where}: cell {kind}") for kind, cell in cells.items()}
    return Genotype(**facts)


def _genotype(parsed: dialects.ParsedCells, where: str, space: str) -> Genotype:
    cells = {kind: _cell(tree, f"{where}: cell {kind}") for kind, tree in parsed.cells.items()}
    return Genotype(parsed.space or space, cells, provenance=parsed.provenance)


def _cell(tree: Any, where: str) -> Cell:
    fields = record(tree, where, dict.fromkeys(("inputs", "nodes", "concat")))
    nodes = []
    for number, edges in enumerate(as_list(fields["nodes"], f"{where}, nodes")):
        for position, edge in enumerate(as_list(edges, f"{where}, node {number}")):
            if not isinstance(edge, list) or len(edge) != 2:
                raise InputError(
                    f"{where}, node {number}, edge {position}: must be a pair [primitive, input], not {quote_value(edge)}."
                )
        nodes.append(tuple((primitive, source) for primitive, source in edges))
    try:
        return Cell(fields["inputs"], tuple(nodes), tuple(as_list(fields["concat"], f"{where}, concat")))
    except InputError as error:
        raise InputError(f"{where}, {error}") from None


def _costs(tree: Any, where: str) -> dict[str, int | float]:
    for resource, cost in as_object(tree, where).items():
        if type(cost) not in (int, float):  # not bool, which is a subclass of int
            raise InputError(f"{where}: {quote_value(resource)} must be a number, not {quote_value(cost)}.")
    return dict(tree)


def _skeleton(tree: Any, where: str) -> Skeleton | None:
    if tree is None:
        return None
    fields = record(tree, where, {**dict.fromkeys(SKELETON), "stem": as_stem, "image": as_list})
    if len(fields["image"]) != 3:
        raise InputError(f"{where}: image must be [channels, height, width], not {quote_value(fields['image'])}.")
    for name, high in SKELETON.items():
        for value in fields[name] if name == "image" else [fields[name]] if high else []:
            if not (is_whole(value) and 1 <= value <= high):
                raise InputError(f"{where}: {name} takes whole numbers from 1 to {high}, not {quote_value(value)}.")
    return Skeleton(**{**fields, "image": tuple(fields["image"])})

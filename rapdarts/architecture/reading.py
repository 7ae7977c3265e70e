"""Parsers for genotypes in files and strings, in our JSON format or in the dialect of another program.

Texts are parsed, never evaluated. Each InputError says in one sentence where a text is wrong and why.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.dialects.forms import FORMAT, cells_of, is_ours
from rapdarts.architecture.dialects.search import UNDERSTOOD, find
from rapdarts.architecture.genotype import SKELETON, VERSION, Genotype
from rapdarts.architecture.space import KINDS, Skeleton
from rapdarts.errors import InputError
from rapdarts.files import seal
from rapdarts.files.json import Fault, as_list, as_object, is_whole, quote_value, reader, record, strict_loads
from rapdarts.files.text import read_text

MAX_FILE_BYTES = 2**26
"""Maximum size of a file, which may be the log of a long search."""
MAX_JSON_CHARACTERS = 1_000_000

SPACE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""Pattern for the name of a space. It becomes a module name, so it must not contain dots or slashes."""
HEADER = re.compile(r"\s*#\s*space:\s*([A-Za-z_][A-Za-z0-9_-]{0,63})\s*\n")
"""Pattern for the first line of a text in the DARTS dialect, if it names the space."""

as_space_name = reader(
    lambda value: isinstance(value, str) and SPACE_NAME.fullmatch(value) is not None,
    "a name of up to 64 letters, digits, _ and -",
)
as_stem = reader(lambda value: value in ("cifar", "imagenet"), "cifar or imagenet")


def read_genotype(path: Path, space: str = "darts", member: str = "") -> Genotype:
    """Return the genotype in a file of any dialect. `space` is the genotype's space if the file names none.

    `member` selects one of several genotypes by name or line. Raises InputError if the file is not a regular file, is too
    large, is not UTF-8, or has no genotype, or if it has several genotypes and `member` is empty. Raises DamagedError if the file
    does not match its seal; a file in our own format without a seal is reported.
    """
    where = str(path)
    text = read_text(
        path, where, MAX_FILE_BYTES, f"has more than {MAX_FILE_BYTES:,} bytes, too many for a genotype or a log"
    )
    genotype = parse_genotype(text, where, space, member)
    if own := seal.seal_of_json(text):
        seal.check_belongs(path, own)
    elif f'"{FORMAT}"' in text:
        seal.report_unsealed(path)
    return genotype


def parse_genotype(text: str, where: str, space: str = "darts", member: str = "") -> Genotype:
    """Return the genotype in a text, in our JSON format or in a dialect of another program (`rapdarts.architecture.dialects`).

    `where` names the text in messages. `space` is the genotype's space if the text names none, and `member` selects
    one of several genotypes by name or line. Raises InputError, and DamagedError for a text in our own format that does not match
    its seal.
    """
    text = text.removeprefix("\ufeff")  # a byte order mark, which some editors on Windows write
    if not text.strip():
        raise InputError(f"{where} is empty; it must contain a genotype.")
    if "\0" in text:
        raise InputError(f"{where} is not UTF-8 text (it contains NUL characters); save it as UTF-8.")
    found = find(text, where, member)
    if is_ours(found.value):
        return _ours(found.value, found.where)
    parsed, header = cells_of(found.value, found.where), HEADER.match(text)
    cells = {kind: _cell(tree, f"{found.where}: cell {kind}") for kind, tree in parsed.cells.items()}
    return Genotype(parsed.space or (header[1] if header else space), cells, provenance=found.provenance)


def parse_genotype_json(text: str, where: str) -> Genotype:
    """Return the genotype in a text in our own JSON format. Raises InputError, and DamagedError if it does not match its seal."""
    if len(text) > MAX_JSON_CHARACTERS:
        raise InputError(f"{where} has {len(text)} characters, too many for a genotype.")
    try:
        tree = as_object(strict_loads(text), where)
    except Fault as fault:
        raise InputError(f"{where}, {fault}.") from None
    return _ours(tree, where)


def _ours(tree: dict[str, Any], where: str) -> Genotype:
    """Return the genotype in a parsed object in our own JSON format. Raises the errors of `parse_genotype`."""
    tree = seal.unseal(tree, where)
    if tree.get("format") != FORMAT:
        raise InputError(
            f"{where}: format must be {FORMAT!r}, not {quote_value(tree.get('format'))}; supported formats are {UNDERSTOOD}."
        )
    version = tree.get("version")
    if not is_whole(version) or version < 1:
        raise InputError(f"{where}: version must be {VERSION}, not {quote_value(version)}.")
    if version > VERSION:
        raise InputError(
            f"{where} has version {version}, but this release reads only version {VERSION}; upgrade rapdarts."
        )

    required = {"format": None, "version": None, "space": as_space_name, "cells": None}
    facts = record(tree, where, required, {"skeleton": read_skeleton, "costs": _costs, "provenance": as_object})
    del facts["format"], facts["version"]
    cells = record(facts["cells"], f"{where}: cells", dict.fromkeys(KINDS[:1]), dict.fromkeys(KINDS[1:]))
    facts["cells"] = {kind: _cell(cell, f"{where}: cell {kind}") for kind, cell in cells.items()}
    return Genotype(**facts)


def _cell(tree: Any, where: str) -> Cell:
    fields = record(tree, where, dict.fromkeys(("inputs", "nodes", "concat")))
    nodes = []
    for number, edges in enumerate(as_list(fields["nodes"], f"{where}, nodes")):
        for position, edge in enumerate(as_list(edges, f"{where}, node {number}")):
            if not isinstance(edge, list) or len(edge) != 2:
                raise InputError(
                    f"{where}, node {number}, edge {position} must be a pair [primitive, input], not {quote_value(edge)}."
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


def read_skeleton(tree: Any, where: str) -> Skeleton | None:
    """Return the skeleton in an object of a file, or None for null. Raises InputError for a wrong field or a number out of range."""
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

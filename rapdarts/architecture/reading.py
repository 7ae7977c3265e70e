"""Genotypes read from text: our JSON, and the dialects of other programs, parsed and never evaluated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rapdarts.architecture import dialects
from rapdarts.architecture.genotype import FORMAT, MAX_FILE_BYTES, SKELETON, VERSION, Cell, Genotype, _is_whole
from rapdarts.architecture.space import KINDS, Skeleton
from rapdarts.errors import InputError
from rapdarts.files.json import Fault, as_list, as_object, reader, record, show, strict_loads
from rapdarts.files.text import read_text

SPACE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""A space's name becomes the name of a module, so it may hold nothing that leads out of the folder of spaces."""


space_name = reader(
    lambda value: isinstance(value, str) and SPACE_NAME.fullmatch(value) is not None,
    "a name of up to 64 letters, digits, _ and -",
)


stem = reader(lambda value: value in ("cifar", "imagenet"), "cifar or imagenet")


def read_genotype(path: Path, space: str = "darts") -> Genotype:
    """The genotype in a file of any dialect; `space` is the space where the file leaves it open.

    Raises InputError for what is no regular file, too large, not UTF-8, or not a genotype.
    """
    where = str(path)
    text = read_text(path, where, MAX_FILE_BYTES, f"has more than {MAX_FILE_BYTES} bytes, too many for a genotype")
    if "\0" in text:
        raise InputError(f"{where} is not UTF-8 text (it looks like UTF-16 or binary); save it as UTF-8.")
    return parse(text, where, space)


def parse(text: str, where: str, space: str = "darts") -> Genotype:
    """The genotype a text means, in our JSON or in a dialect of other programs (`rapdarts.architecture.dialects`).

    `where` names the text in messages, `space` is the space where the text leaves it open. Raises InputError.
    """
    if text.startswith("\ufeff"):
        raise InputError(f"{where} begins with a byte order mark; save it as UTF-8 without one.")
    if not text.strip():
        raise InputError(f"{where} is empty; it must hold a genotype.")
    foreign = dialects.reader_of(text)
    return _read(foreign(text, where), where, space) if foreign else parse_json(text, where, space)


def parse_json(text: str, where: str, space: str = "darts") -> Genotype:
    """The genotype a JSON text means: ours, or a dictionary of NNI's, in `space`. Raises InputError."""
    if len(text) > MAX_FILE_BYTES:
        raise InputError(f"{where} has {len(text)} characters, too many for a genotype.")
    try:
        tree = as_object(strict_loads(text), where)
    except Fault as fault:
        raise InputError(f"{where}, {fault}.") from None
    if "format" not in tree and dialects.is_nni(tree):
        return _read(dialects.nni(tree, where), where, space)
    if tree.get("format") != FORMAT:
        raise InputError(
            f"{where}: format must be {FORMAT!r}, not {show(tree.get('format'))}; understood are {dialects.UNDERSTOOD}."
        )
    version = tree.get("version")
    if not _is_whole(version) or version < 1:
        raise InputError(f"{where}: version must be {VERSION}, not {show(version)}.")
    if version > VERSION:
        raise InputError(f"{where} has version {version} and needs a newer rapdarts; this one reads version {VERSION}.")

    required = {"format": None, "version": None, "space": space_name, "cells": None}
    facts = record(tree, where, required, {"skeleton": _skeleton, "costs": _costs, "provenance": as_object})
    del facts["format"], facts["version"]
    cells = record(facts["cells"], f"{where}: cells", dict.fromkeys(KINDS[:1]), dict.fromkeys(KINDS[1:]))
    facts["cells"] = {kind: _cell(cell, f"{where}: cell {kind}") for kind, cell in cells.items()}
    return Genotype(**facts)


def parse_darts(text: str, where: str, space: str = "darts") -> Genotype:
    """The genotype that `Genotype(normal=[(primitive, input), ...], normal_concat=range(2, 6), ...)` means, in `space` unless it names one.

    Raises InputError. What is read besides pairs, `rapdarts.architecture.dialects` says.
    """
    return _read(dialects.python(text, where), where, space)


def parse_nasbench201(text: str, where: str) -> Genotype:
    """The genotype that `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|` means. Raises InputError."""
    return _read(dialects.nasbench201(text, where), where, "nasbench201")


def _read(reading: dialects.ParsedCells, where: str, space: str) -> Genotype:
    cells = {kind: _cell(tree, f"{where}: cell {kind}") for kind, tree in reading.cells.items()}
    return Genotype(reading.space or space, cells, provenance=reading.provenance)


def _cell(tree: Any, where: str) -> Cell:
    fields = record(tree, where, dict.fromkeys(("inputs", "nodes", "concat")))
    nodes = []
    for number, edges in enumerate(as_list(fields["nodes"], f"{where}, nodes")):
        for position, edge in enumerate(as_list(edges, f"{where}, node {number}")):
            if not isinstance(edge, list) or len(edge) != 2:
                raise InputError(
                    f"{where}, node {number}, edge {position}: must be a pair [primitive, input], not {show(edge)}."
                )
        nodes.append(tuple((primitive, source) for primitive, source in edges))
    try:
        return Cell(fields["inputs"], tuple(nodes), tuple(as_list(fields["concat"], f"{where}, concat")))
    except InputError as error:
        raise InputError(f"{where}, {error}") from None


def _costs(tree: Any, where: str) -> dict[str, int | float]:
    for resource, cost in as_object(tree, where).items():
        if type(cost) not in (int, float):  # to Python True is an int as well
            raise InputError(f"{where}: {show(resource)} must be a number, not {show(cost)}.")
    return dict(tree)


def _skeleton(tree: Any, where: str) -> Skeleton | None:
    if tree is None:
        return None
    fields = record(tree, where, {**dict.fromkeys(SKELETON), "stem": stem, "image": as_list})
    if len(fields["image"]) != 3:
        raise InputError(f"{where}: image must be [channels, height, width], not {show(fields['image'])}.")
    for name, high in SKELETON.items():
        for value in fields[name] if name == "image" else [fields[name]] if high else []:
            if not (_is_whole(value) and 1 <= value <= high):
                raise InputError(f"{where}: {name} must be made of whole numbers from 1 to {high}, not {show(value)}.")
    return Skeleton(**{**fields, "image": tuple(fields["image"])})

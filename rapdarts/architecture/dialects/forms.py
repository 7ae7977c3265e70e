"""Forms of genotypes from rapdarts and other programs, with functions to recognise and parse them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rapdarts.architecture.dialects import darts, nasbench, nni
from rapdarts.architecture.dialects.trees import ParsedCells
from rapdarts.architecture.dialects.values import Call
from rapdarts.architecture.space import KINDS
from rapdarts.errors import InputError
from rapdarts.files.json import is_whole

FORMAT = "rapdarts-genotype"
"""Value of the field `format` in our own JSON format."""


def is_ours(value: Any) -> bool:
    """Return whether a value is a genotype in our own JSON format, valid or not."""
    if not isinstance(value, dict):
        return False
    cells = value.get("cells")
    by_kind = isinstance(cells, dict) and not cells.keys().isdisjoint(KINDS)
    return value.get("format") == FORMAT or (by_kind and not is_other(value))


def is_other(value: Any) -> bool:
    """Return whether a value comes from a rapdarts file other than a genotype, such as alphas.json."""
    form = value.get("format") if isinstance(value, dict) else None
    return isinstance(form, str) and form.startswith("rapdarts-") and form != FORMAT


def is_genotype(value: Any) -> bool:
    """Return whether a value has one of the forms of a genotype, valid or not."""
    return is_ours(value) or _parser(value) is not None


def cells_of(value: Any, where: str) -> ParsedCells:
    """Return the cells of a genotype from another program; `where` names it in messages. Raises InputError."""
    parser = _parser(value)
    if parser is None:
        raise InputError(f"{where} is not in a supported genotype format; docs/export.md lists the formats.")
    return parser(value, where)


def _parser(value: Any) -> Callable[[Any, str], ParsedCells] | None:
    """Return the parser for a genotype from another program; None for any other value."""
    if isinstance(value, Call):
        return _of_call if value.name.endswith("Genotype") else None
    if isinstance(value, dict):
        if nni.is_nni(value):
            return nni.cells_of_nni
        if nasbench.is_config(value):
            return nasbench.cells_of_config
        darts_keys = "normal" in value and value.keys() & {"normal_concat", "reduce", "reduce_concat"}
        return darts.cells_of_fields if darts_keys or {"recurrent", "concat"} <= value.keys() else None
    if nasbench.is_bars(value):
        return nasbench.cells_of_bars
    if nasbench.is_bench_cell(value):
        return nasbench.cells_of_bench_lists
    if nasbench.is_compact(value):
        return nasbench.cells_of_compact
    return _of_sequence if _is_sequence(value) else None


def _of_call(call: Call, where: str) -> ParsedCells:
    """Return the cells of Genotype(...). Positional arguments are in the order of `darts.FIELDS`."""
    fields = darts.fields_of_sequence(call.arguments)
    if twice := fields.keys() & call.fields.keys():
        raise InputError(f"{where}: {call.name}(...) has the field {min(twice)} twice; keep one.")
    return darts.cells_of_fields({**fields, **call.fields}, where)


def _of_sequence(value: list[Any], where: str) -> ParsedCells:
    return darts.cells_of_fields(darts.fields_of_sequence(value), where)


def _is_sequence(value: Any) -> bool:
    """Return whether a value is a genotype without field names, such as a named tuple stored as JSON."""

    def is_concat(part: Any) -> bool:
        return isinstance(part, list) and bool(part) and all(map(is_whole, part))

    return (
        isinstance(value, list)
        and len(value) >= len(darts.FIELDS)
        and (darts.is_cell(value[0]) and is_concat(value[1]))
        and (darts.is_cell(value[2]) and is_concat(value[3]))
    )

"""Help of the command line: each command's purpose, and its keys with defaults, units and ranges in aligned columns."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence

from rapdarts.cli.arguments import SWITCHES
from rapdarts.cli.commands import COMMANDS, Command
from rapdarts.config import experiment as config
from rapdarts.config import resolve
from rapdarts.config.key_values import Key, keys, range_text, written
from rapdarts.version import __version__

NARROWEST, WIDEST = 60, 120
"""Minimum width of the help, and maximum width of its running text, in characters."""
LEAST, LEAST_OF_OVERVIEW = 36, 50
"""Minimum widths of the text column, in characters: in the help of a command, and in the overview, where descriptions are longer."""
INDENT = " " * 6
"""Indentation of a description below its key."""
HARD_SPACE = "\N{NO-BREAK SPACE}"


def overview() -> str:
    """Return the help of `rapdarts` itself: a summary of every command."""
    columns = _columns()
    title = f"rapdarts {__version__} finds and trains a neural network that fits your data set and your budget."
    usages = [f"  rapdarts {command.usage}" for command in COMMANDS.values()]
    start = max(map(len, usages)) + 2
    lines = [*_paragraph(title, columns), ""]
    for usage, command in zip(usages, COMMANDS.values(), strict=True):
        lines += _entry([usage], [start], command.sentence, min(columns, WIDEST), LEAST_OF_OVERVIEW)
    lines += [
        "",
        *_paragraph("Use rapdarts VERB --help for the keys of a command, with defaults, units and ranges.", columns),
    ]
    return "\n".join(lines)


def help_of(command: Command) -> str:
    """Return the help of one command, as wide as the terminal: usage, tables of keys, and switches."""
    columns = _columns()
    tables = [table for schema in command.schemas for table in _tables(schema, command.section)]
    everything = [_cells(key) for _, rows in tables for key in rows]
    widths = [max(map(len, column)) + 2 for column in zip(*everything, strict=True)]
    widths[0] += 2  # the indentation

    lines = _paragraph(f"usage: rapdarts {command.usage} [key=value{HARD_SPACE}...] [switches]", columns, " " * 7)
    # Backslashes let a shell read the wrapped command as one.
    example = _wrap(f"rapdarts {command.example}", columns - len(" \\"), " " * 7, " " * 9)
    lines += [*(f"{line} \\" for line in example[:-1]), example[-1]]
    lines += ["", *_paragraph(command.sentence, columns)]
    for heading, rows in tables:
        lines += ["", f"{heading}:"]
        for key in rows:
            name, default, unit = _cells(key)
            lines += _entry([f"  {name}", default, unit], widths, _meaning(key), columns)
    if config.Experiment in command.schemas:
        names = ", ".join(resolve.experiment_names())
        if "EXPERIMENT" in command.usage:
            lines += ["", *_paragraph(f"EXPERIMENT is one of {names}, or your own YAML file.", columns)]
        lines += _paragraph(
            "You may leave out the name of a section if the rest of the key is unambiguous, as in cost.macs=0.2.",
            columns,
        )
    lines += ["", "switches:"]
    for switch in command.all_switches:
        lines += _entry([f"  {switch}{' FILE' if switch == '--space' else ''}"], [18], SWITCHES[switch], columns)
    return "\n".join(lines)


def _tables(schema: type, section: str) -> list[tuple[str, list[Key]]]:
    """Return the keys of a schema under their headings: the top level, then the command's own section, then the others."""
    tables: dict[str, list[Key]] = {}
    for key in keys(schema):
        tables.setdefault(key.name.rpartition(".")[0], []).append(key)

    def place(home: str) -> int:
        own = bool(section) and f"{home}.".startswith(f"{section}.")
        recipe = home.partition(".")[0] in ("search", "retrain", "rank", "find")
        return 0 if not home else 1 if own else 3 if recipe else 2

    top = {config.Launch: "launch", config.Experiment: "experiment"}.get(schema, "keys")
    return [(home or top, tables[home]) for home in sorted(tables, key=place)]


def _cells(key: Key) -> tuple[str, str, str]:
    """Return the name, default and unit of a key."""
    default = json.dumps(key.default) if isinstance(key.default, (list, bool)) else written(key, key.default)
    return key.name, default or "(empty)", key.facts["unit"]


def _meaning(key: Key) -> str:
    """Return a key's help and, in brackets, its choices or its range; a range is never broken across lines."""
    facts = key.facts
    choices = [str(choice) for choice in facts["choices"] or () if choice != ""]
    bounded = any(facts[bound] is not None for bound in ("low", "high", "above", "below"))
    allowed = ", ".join(choices) if choices else range_text(facts).replace(" ", HARD_SPACE) if bounded else ""
    return f"{facts['help']} [{allowed}]" if allowed else str(facts["help"])


# --- widths ------------------------------------------------------------------------------------------------------


def _columns() -> int:
    """Return the width of the terminal (or COLUMNS) in characters, at least NARROWEST; without a terminal, return 80."""
    return max(NARROWEST, shutil.get_terminal_size().columns)


def _entry(cells: Sequence[str], widths: Sequence[int], text: str, columns: int, least: int = LEAST) -> list[str]:
    """Return the lines of one entry: its cells in columns, then its text in the last column.

    If that column would be narrower than `least`, the text follows on the next lines, indented.
    """
    start = sum(widths)
    row = "".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True))
    if columns - start >= least:
        return _wrap(text, columns, row, " " * start)
    head = row.rstrip() if len(row.rstrip()) <= columns else "  ".join(cell for cell in cells if cell)
    return [*_wrap(head.strip(), columns, "  ", INDENT), *_wrap(text, columns, INDENT, INDENT)]


def _paragraph(text: str, columns: int, rest: str = "") -> list[str]:
    """Return running text as lines of at most WIDEST characters, for legibility; all but the first begin with `rest`."""
    return _wrap(text, min(columns, WIDEST), "", rest)


def _wrap(text: str, columns: int, first: str, rest: str) -> list[str]:
    """Return lines of at most `columns` characters that begin with `first` or `rest`; words and HARD_SPACE are never broken."""
    lines = textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(HARD_SPACE, " ") for line in lines]

"""Help fits the terminal: no line is too long, no word is broken, and nothing is left out."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from rapdarts.cli.arguments import SWITCHES
from rapdarts.cli.commands import COMMANDS, Command
from rapdarts.cli.help import help_of, overview
from rapdarts.config import key_values
from rapdarts.config.command_options import ReportConfig

WIDTHS = pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
EVERY = pytest.mark.parametrize("verb", COMMANDS)


@pytest.fixture
def terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set the width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    return columns


def words(text: str) -> str:
    """Return the text on one line, with single spaces."""
    return " ".join(text.replace("\\\n", "\n").split())


@WIDTHS
@EVERY
def test_no_line_is_wider_than_the_terminal(verb: str, terminal: int) -> None:
    lines = help_of(COMMANDS[verb]).splitlines()
    assert max(map(len, lines)) <= terminal
    assert all(line == line.rstrip() for line in lines)


@WIDTHS
def test_no_line_of_the_overview_is_wider_than_the_terminal(terminal: int) -> None:
    lines = overview().splitlines()
    assert max(map(len, lines)) <= min(terminal, 120)
    for verb, command in COMMANDS.items():
        assert any(line.startswith(f"  rapdarts {verb} ") for line in lines)
        assert f"rapdarts {command.usage} {command.sentence}" in words(overview())


@WIDTHS
@EVERY
def test_every_key_is_listed_with_its_default_unit_help_and_range(verb: str, terminal: int) -> None:
    text = help_of(COMMANDS[verb])
    for key in (key for schema in COMMANDS[verb].schemas for key in key_values.keys(schema)):
        is_json = isinstance(key.default, (list, bool))
        default = (json.dumps(key.default) if is_json else key_values.written(key, key.default)) or "(empty)"
        facts, allowed = key.facts, ""
        if facts["choices"]:
            allowed = f"[{', '.join(str(choice) for choice in facts['choices'] if choice != '')}]"
        elif any(facts[bound] is not None for bound in ("low", "high", "above", "below")):
            allowed = f"[{key_values.range_text(facts)}]"
            assert allowed in text  # on one line
        row = words(f"{key.name} {default} {facts['unit']} {facts['help']} {allowed}")
        assert f" {row} " in words(text)
        assert sum(line.startswith(f"  {key.name} ") for line in text.splitlines()) == 1


@WIDTHS
@EVERY
def test_usage_example_purpose_and_switches_are_listed(verb: str, terminal: int) -> None:
    command, text = COMMANDS[verb], words(help_of(COMMANDS[verb]))
    assert text.startswith(f"usage: rapdarts {command.usage} [key=value ...] [switches] rapdarts {command.example} ")
    assert f" {words(command.sentence)} " in text
    for switch in command.all_switches:
        assert words(f"{switch} {'FILE' if switch == '--space' else ''} {SWITCHES[switch]}") in text


@pytest.mark.parametrize("columns", [60])
def test_a_wrapped_example_is_one_command_to_a_shell(terminal: int) -> None:
    text = help_of(COMMANDS["rank"])
    assert "       rapdarts rank runs/first runs/second count=5 \\\n         epochs=10 run=runs/rank\n" in text


@pytest.mark.parametrize("columns", [80])
def test_help_follows_its_key_on_the_next_line_if_space_is_short(terminal: int) -> None:
    lines = help_of(COMMANDS["search"]).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  search.layers "))
    assert lines[at].split() == ["search.layers", "[5,", "11,", "17]", "cells"]
    assert lines[at + 1] == "      depth of the supernet, one value per stage [1 to 1000]"
    assert "  out  (empty)  path  file to write; empty: standard output" in help_of(COMMANDS["report"]).splitlines()


@pytest.mark.parametrize(("columns", "widest"), [(1, 60), (59, 60), (1000, 120)])
def test_running_text_is_60_to_120_columns_wide(terminal: int, widest: int) -> None:
    long = Command("report RUN", "report runs/net", "word " * 100, (ReportConfig,))
    assert widest - len("word ") < max(map(len, help_of(long).splitlines())) <= widest


def test_without_a_terminal_help_is_80_columns_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    script = "from rapdarts.cli.main import main; main(['search', '--help'])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert 76 <= max(map(len, found.stdout.splitlines())) <= 80


def test_the_overview_takes_little_longer_than_starting_python() -> None:
    def seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, timeout=60, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(seconds("-c", "pass") for _ in range(3))  # a slow or busy machine takes longer for both
    assert min(seconds("-m", "rapdarts", "--help") for _ in range(3)) < max(0.15, 5 * bare)

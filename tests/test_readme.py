"""What the README shows: its Python runs, and the words of its commands are words of the command line."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rapdarts import cli, config, help, knobs
from rapdarts.errors import InputError

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(*languages: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every block in one of the languages."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S):
        if found[1] in languages:
            yield README[: found.start()].count("\n") + 2, found[2]


# --- Python ------------------------------------------------------------------------------------------------------


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks in their order in one folder."""
    monkeypatch.chdir(tmp_path)
    shown = list(blocks("python"))
    assert len(shown) >= 5
    for line, text in shown:
        file = tmp_path / f"readme_line_{line}.py"  # what a traceback will name
        file.write_text(text, encoding="utf-8")
        runpy.run_path(str(file))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Genotype(normal=")
    assert " 3433798 Genotype(normal=" in printed[-1]
    assert (tmp_path / "runs" / "trained" / "network.safetensors").is_file()


# --- commands ----------------------------------------------------------------------------------------------------

PLACEHOLDER = re.compile(r"[A-Z]+")
"""RUN, VERB, EXPERIMENT: what a reader puts something else for."""


def commands() -> Iterator[tuple[str, str]]:
    """Every command that is shown, in a block or between backticks, and the line behind it."""
    for _, text in blocks("sh", "text"):
        lines = [line.partition("  #")[0] for line in text.splitlines()] + [""]
        for line, behind in pairwise(lines):
            if found := re.match(r"(?:\$ )?rapdarts (.+)", line):
                yield found[1], behind
    outside = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    for found in re.finditer(r"`rapdarts ([^`]+)`", outside):
        yield " ".join(found[1].split()), ""


def settings() -> Iterator[str]:
    """What the table of searches adds to a command, as whole commands."""
    table = README.split("| what you want | what you add |\n")[1].split("\n\n")[0]
    for row in table.splitlines()[1:]:
        for added in re.findall(r"`([^`]+)`", row.split("|")[2]):
            if "=" in added and not added.startswith(("rapdarts", "tensorboard")):
                yield f"search digits {added}"


def check(words: str) -> None:
    """Raises InputError for a command that there is not, or keys or values that it does not take; runs nothing."""
    verb, *arguments = shlex.split(words)
    if PLACEHOLDER.fullmatch(verb):
        return
    if verb not in help.COMMANDS:
        raise InputError(f"there is no command {verb}.")
    command, call = help.COMMANDS[verb], cli._parse(verb, arguments)
    for pair in call.pairs:
        refusals = []
        for schema in command.schemas:
            try:
                knobs.checked(schema, [pair], command.section)
                break
            except InputError as error:
                refusals.append(error)
        else:
            raise refusals[-1]
    if command.schemas == help.LAUNCH and call.words:
        name = call.words[0 if verb == "search" else -1]
        config.experiment("digits" if PLACEHOLDER.fullmatch(name) else name, call.pairs, command.section)
        config.launch(call.pairs)


COMMANDS = [*commands(), *((words, "") for words in settings())]


@pytest.mark.parametrize(("words", "behind"), COMMANDS, ids=[words[:60] for words, _ in COMMANDS])
def test_the_command_is_one(words: str, behind: str) -> None:
    """A command that the README shows to be refused may be, with that very sentence."""
    try:
        check(words)
    except InputError as error:
        assert behind == f"rapdarts: error: {error}"


def test_commands_are_found() -> None:
    found = {words for words, _ in COMMANDS}
    assert "search digits cost.macs=0.2 cost.bytes=0.2 seed=0 run=runs/demo/search" in found
    assert "export RUN to=nasbench201" in found
    assert "search digits strategy=darts unrolled=true" in found
    assert any(behind.startswith("rapdarts: error") for _, behind in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        "serach digits",
        "search digit",
        "search digits epoch=5",
        "derive RUN budget.param=3",
        "export RUN to=png",
        "search --jason",
    ],
)
def test_the_check_sees(words: str) -> None:
    with pytest.raises(InputError):
        check(words)

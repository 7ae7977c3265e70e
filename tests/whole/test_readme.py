"""Examples in the README and the guides: Python runs, commands are accepted, links are valid."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from rapdarts.cli.arguments import parse
from rapdarts.cli.commands import COMMANDS, LAUNCH
from rapdarts.config import key_values, resolve
from rapdarts.errors import InputError
from tests.pages import ROOT, blocks, session

GUIDES = ("docs/find.md", "docs/search.md", "docs/retrain.md", "docs/costs.md", "docs/export.md", "docs/library.md")
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", *GUIDES)}


# --- Python ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "least", "folder"),
    [
        ("README.md", 1, "trained"),
        pytest.param("docs/library.md", 4, "trained", marks=pytest.mark.proof),
        pytest.param("docs/find.md", 1, "mine/network", marks=pytest.mark.proof),
    ],
)
def test_the_python_examples_run(
    page: str,
    least: int,
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run all blocks of a page in order, in one folder."""
    monkeypatch.chdir(tmp_path)
    shown = list(blocks(PAGES[page], "python"))
    assert len(shown) >= least
    for line, text in shown:
        file = tmp_path / f"{Path(page).stem}_line_{line}.py"  # tracebacks show this name
        file.write_text(text, encoding="utf-8")
        runpy.run_path(str(file))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Genotype(normal=")
    assert page != "docs/library.md" or " 3433798 Genotype(normal=" in printed[-1]
    assert (tmp_path / "runs" / folder / "network.safetensors").is_file()


def test_the_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") <= 150


# --- links -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "experiments/README.md", "docs/performance.md"])
def test_links_are_valid(page: str) -> None:
    """Check that the files and headings that a page links to exist."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        place = (ROOT / page).parent / file if file else ROOT / page
        assert place.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.M)
            assert heading in [re.sub(r"[^\w -]", "", words).lower().replace(" ", "-") for words in headings], target


# --- commands ----------------------------------------------------------------------------------------------------

PLACEHOLDER = re.compile(r"[A-Z]+")
"""Placeholders that readers replace, such as RUN, VERB or EXPERIMENT."""

USAGE = re.compile(r"(^| )\[")
"""Brackets mark optional arguments: the text describes the usage of a command and is not a command."""


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Yield every command in a block or between backticks, and the line after it."""
    for command, output in session(PAGES[page], "sh", "text"):
        yield command, (output or [""])[0]
    outside = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.M | re.S)
    for found in re.finditer(r"`rapdarts ([^`]+)`", outside):
        yield " ".join(found[1].split()), ""


def settings(page: str, command: str) -> Iterator[str]:
    """Yield the command with each of the settings that the page's table suggests adding."""
    table = PAGES[page].split("| to get | add |\n")[1].split("\n\n")[0]
    for row in table.splitlines()[1:]:
        for added in re.findall(r"`([^`]+)`", row.split("|")[2]):
            if "=" in added and not added.startswith(("rapdarts", "tensorboard", "torchrun")):
                yield f"{command} {added.replace('RESOURCE', 'macs')}"


def check(line: str) -> None:
    """Raise InputError for an unknown command, or for keys or values that it does not accept. Runs nothing."""
    verb, *arguments = shlex.split(line)
    if PLACEHOLDER.fullmatch(verb) or USAGE.search(line):
        return
    if verb not in COMMANDS:
        raise InputError(f"there is no command {verb}.")
    command, call = COMMANDS[verb], parse(verb, arguments, COMMANDS[verb].all_switches)
    for pair in call.pairs:
        refusals = []
        for schema in command.schemas:
            try:
                key_values.checked(schema, [pair], command.section)
                break
            except InputError as error:
                refusals.append(error)
        else:
            raise refusals[-1]
    if command.schemas == LAUNCH and call.words:
        # A run folder has its own experiment.
        alone = verb == "retrain" and len(call.words) == 1
        name = "digits" if alone else call.words[0 if verb == "search" else -1]
        from_reader = PLACEHOLDER.fullmatch(name) or name.endswith(".yaml")
        resolve.resolve_experiment("digits" if from_reader else name, call.pairs, command.section)
        resolve.resolve_launch(call.pairs)


SETTINGS = [*settings("docs/search.md", "search digits"), *settings("docs/retrain.md", "retrain PDARTS digits")]
SHOWN = dict.fromkeys([*chain.from_iterable(map(commands, PAGES)), *((line, "") for line in SETTINGS)])


@pytest.mark.parametrize(("line", "following"), SHOWN, ids=[line[:60] for line, _ in SHOWN])
def test_commands_are_accepted(line: str, following: str) -> None:
    """A command may fail if the page shows exactly the error message after the command."""
    try:
        check(line)
    except InputError as error:
        assert following == f"rapdarts: error: {error}"


def test_commands_are_found() -> None:
    found = {line for line, _ in SHOWN}
    assert "search digits cost.macs=0.2 cost.bytes=0.2 seed=0 run=runs/steps/search" in found
    assert "export RUN to=nasbench201" in found
    assert "search digits strategy=darts unrolled=true" in found
    assert "retrain PDARTS digits retrain.batch=64 accumulate=2" in found
    assert any(following.startswith("rapdarts: error") for _, following in SHOWN)


@pytest.mark.parametrize(
    "line",
    [
        "serach digits",
        "search digit",
        "search digits epoch=5",
        "derive RUN budget.param=3",
        "export RUN to=png",
        "search --jason",
    ],
)
def test_the_check_refuses_wrong_commands(line: str) -> None:
    with pytest.raises(InputError):
        check(line)

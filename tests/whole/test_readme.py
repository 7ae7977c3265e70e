"""What the README and the pages behind it show: Python runs, commands are words of the command line, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import pytest

from rapdarts.cli.arguments import parse
from rapdarts.cli.commands import COMMANDS, LAUNCH
from rapdarts.config import key_values, resolve
from rapdarts.errors import InputError

GUIDES = ("docs/search.md", "docs/retrain.md", "docs/costs.md", "docs/export.md")
ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", *GUIDES)}


def blocks(page: str, *languages: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every block in one of the languages."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", PAGES[page], re.M | re.S):
        if found[1] in languages:
            yield PAGES[page][: found.start()].count("\n") + 2, found[2]


# --- Python ------------------------------------------------------------------------------------------------------


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks in their order in one folder."""
    monkeypatch.chdir(tmp_path)
    shown = list(blocks("README.md", "python"))
    assert len(shown) >= 4
    for line, text in shown:
        file = tmp_path / f"readme_line_{line}.py"  # what a traceback will name
        file.write_text(text, encoding="utf-8")
        runpy.run_path(str(file))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Genotype(normal=")
    assert " 3433798 Genotype(normal=" in printed[-1]
    assert (tmp_path / "runs" / "trained" / "network.safetensors").is_file()


# --- links -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "experiments/README.md", "docs/performance.md"])
def test_links_lead_somewhere(page: str) -> None:
    """To a file that is there, and to a heading of it."""
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
"""RUN, VERB, EXPERIMENT: what a reader puts something else for."""

USAGE = re.compile(r"(^| )\[")
"""What may be left out stands in brackets, in no command but in how one is written."""


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Every command that is shown, in a block or between backticks, and the line behind it."""
    for _, text in blocks(page, "sh", "text"):
        lines = [line.partition("  #")[0] for line in text.splitlines()] + [""]
        for line, behind in pairwise(lines):
            if found := re.match(r"(?:\$ )?rapdarts (.+)", line):
                yield found[1], behind
    outside = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.M | re.S)
    for found in re.finditer(r"`rapdarts ([^`]+)`", outside):
        yield " ".join(found[1].split()), ""


def settings(page: str, command: str) -> Iterator[str]:
    """What a page's table of settings adds to a command, as whole commands."""
    table = PAGES[page].split("| what you want | what you add |\n")[1].split("\n\n")[0]
    for row in table.splitlines()[1:]:
        for added in re.findall(r"`([^`]+)`", row.split("|")[2]):
            if "=" in added and not added.startswith(("rapdarts", "tensorboard", "torchrun")):
                yield f"{command} {added.replace('RESOURCE', 'macs')}"


def check(words: str) -> None:
    """Raises InputError for a command that there is not, or keys or values that it does not take; runs nothing."""
    verb, *arguments = shlex.split(words)
    if PLACEHOLDER.fullmatch(verb) or USAGE.search(words):
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
        # A run folder brings its own experiment.
        alone = verb == "retrain" and len(call.words) == 1
        name = "digits" if alone else call.words[0 if verb == "search" else -1]
        of_a_reader = PLACEHOLDER.fullmatch(name) or name.endswith(".yaml")
        resolve.resolve_experiment("digits" if of_a_reader else name, call.pairs, command.section)
        resolve.resolve_launch(call.pairs)


SETTINGS = [*settings("docs/search.md", "search digits"), *settings("docs/retrain.md", "retrain PDARTS digits")]
SHOWN = dict.fromkeys([*chain.from_iterable(map(commands, PAGES)), *((words, "") for words in SETTINGS)])


@pytest.mark.parametrize(("words", "behind"), SHOWN, ids=[words[:60] for words, _ in SHOWN])
def test_the_command_is_one(words: str, behind: str) -> None:
    """A command that is shown to be refused may be, with that very sentence."""
    try:
        check(words)
    except InputError as error:
        assert behind == f"rapdarts: error: {error}"


def test_commands_are_found() -> None:
    found = {words for words, _ in SHOWN}
    assert "search digits cost.macs=0.2 cost.bytes=0.2 seed=0 run=runs/demo/search" in found
    assert "export RUN to=nasbench201" in found
    assert "search digits strategy=darts unrolled=true" in found
    assert "retrain PDARTS digits retrain.batch=64 accumulate=2" in found
    assert any(behind.startswith("rapdarts: error") for _, behind in SHOWN)


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

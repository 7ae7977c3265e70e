"""Names of the files in a run folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rapdarts
from rapdarts.files.run_files import RUN_FILES, RunFile, resuming, unfinished, verb_of


def test_file_names_are_unique() -> None:
    names = [name for key, name in vars(RunFile).items() if key.isupper()]
    assert len(names) == len(RUN_FILES) and all(type(name) is str and Path(name).name == name for name in names)


def test_no_other_module_spells_out_a_file_name() -> None:
    """Exceptions: rapdarts measure, whose table is outside run folders, and words that also have another meaning."""
    others = {"checkpoint", "lock"}
    package = Path(rapdarts.__file__).parent
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in RUN_FILES - others
    ]
    elsewhere = [place.partition(":")[0] for place in found if not place.startswith("files/run_files.py:")]
    assert elsewhere == ["config/command_options.py"]


@pytest.mark.parametrize(
    "text", ['{"verb": []}', '{"verb": {}}', '{"verb": "fly"}', '{"verb": null}', "[]", "{}", "", "3"]
)
def test_an_unknown_verb_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(text)
    assert verb_of(tmp_path) == unfinished(tmp_path) == ""


def test_a_run_is_continued_by_its_own_command(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"verb": "rank"}')
    assert resuming(tmp_path) == f"rapdarts rank RUN run={tmp_path} resume=true"

"""Names of the files in a run folder."""

from __future__ import annotations

from pathlib import Path

from rapdarts.files.run_files import RUN_FILES, RunFile


def test_no_two_files_have_one_name() -> None:
    names = [name for key, name in vars(RunFile).items() if key.isupper()]
    assert len(names) == len(RUN_FILES) and all(type(name) is str and Path(name).name == name for name in names)

"""Lookup of shipped search spaces, of space files written by users, and of genotypes from the literature."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rapdarts.architecture.literature import LITERATURE
from rapdarts.deploy.lookup import find_genotype
from rapdarts.deploy.space_lookup import named_space, space_from_file
from rapdarts.errors import InputError
from tests.spaces import NAMES, OWN


@pytest.mark.parametrize(
    "name, nearest",
    [("dart", "darts"), ("Filter", "filters"), ("nas-net", "nasnet"), ("", None), ("__init__", None)],
)
def test_an_unknown_space_suggests_the_nearest_name(name: str, nearest: str | None) -> None:
    with pytest.raises(InputError) as error:
        named_space(name)
    text = str(error.value)
    assert repr(name) in text and ", ".join(NAMES) in text and "--space FILE" in text
    assert (f"the nearest is {nearest} (choose from " if nearest else "; choose from ") in text


def test_space_files_do_not_shadow_modules(tmp_path: Path) -> None:
    path = tmp_path / "torch.py"
    path.write_text(OWN)
    assert space_from_file(path).name == "mine"
    import torch as again

    assert again is torch


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "does not define SPACE = rapdarts.SearchSpace"),
        ("SPACE = {'none': None}", "does not define SPACE"),
        ("import no_such_package", "fails when it is run: ModuleNotFoundError: No module named 'no_such_package'"),
        ("SPACE = (", "fails when it is run: SyntaxError"),
        ("1 / 0", "fails when it is run: ZeroDivisionError"),
        ("SPACE = \0", "fails when it is run"),
    ],
)
def test_unusable_space_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        space_from_file(path)
    assert message in str(error.value) and str(path) in str(error.value)
    if message.startswith("fails"):
        assert not [name for name in sys.modules if name.endswith("broken")]


@pytest.mark.parametrize("name", ["nowhere.py", "folder", "space.txt", ""])
def test_path_that_is_not_a_python_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "space.txt").write_text(OWN)
    with pytest.raises(InputError, match="there is no such Python file"):
        space_from_file(tmp_path / name)


@pytest.mark.parametrize("name", LITERATURE)
def test_genotype_names_ignore_case(name: str) -> None:
    assert find_genotype(name.lower()) is find_genotype(name.upper()) is LITERATURE[name]


def test_unknown_genotype_is_none() -> None:
    assert find_genotype("darts_v3") is None

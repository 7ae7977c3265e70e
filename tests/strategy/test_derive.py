"""Deriving from a finished search: its alphas are read as strictly as any file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapdarts.errors import DamagedError
from rapdarts.strategy.derive import space_of_alphas


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"space": "darts", "space": "x"}', "line 1, column 20: the key 'space' stands twice in one object"),
        (b'{"space": "darts", "alpha": NaN}', "line 1, column 29: NaN is not a finite number"),
        (b"[" * 100_000, "line 1, column 51: nested deeper than 50 levels"),
        (b"[]", "it must be an object {...}, not []"),
        (b"\xff", "it is not UTF-8 text (byte 0); save it as UTF-8"),
    ],
)
def test_alphas_are_read_as_strictly(raw: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "alphas.json"
    path.write_bytes(raw)
    with pytest.raises(DamagedError) as refusal:
        space_of_alphas(path)
    assert str(refusal.value) == f"{path} is damaged ({words})."

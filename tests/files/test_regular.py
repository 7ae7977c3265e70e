"""Files that a user names: opened only if they are regular and not too large, and never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rapdarts.errors import InputError, printable
from rapdarts.files.regular import open_regular, read_bytes
from tests.hung import in_time


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, most=5) == b"12345"
    with open_regular(path) as file:
        assert file.read() == b"12345"
    for read in (read_bytes, open_regular):
        with pytest.raises(InputError, match=r"a has 5 bytes; at most 4 can be read\.$"):
            read(path, most=4)
        with pytest.raises(InputError, match=r"^plan=a is too large for a plan\.$"):
            read(path, "plan=a", 4, "is too large for a plan")


def test_a_file_of_the_kernel_states_no_size() -> None:
    with pytest.raises(InputError, match="has more than 10 bytes"):
        read_bytes(Path("/proc/self/status"), most=10)


def test_a_path_that_is_replaced_after_the_check_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The type of the file is checked again when it is open; opening a FIFO does not wait for a writer."""
    path, other = tmp_path / "a", os.stat(__file__)
    os.mkfifo(path)
    with monkeypatch.context() as patch, in_time():
        patch.setattr(os, "stat", lambda *_, **__: other)
        with pytest.raises(InputError, match=r"a is not a regular file\.$"):
            open_regular(path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("ѕкот 犬 é", "ѕкот 犬 é"),
        ("a\x1b[31m\r\n\tb", "a\\x1b[31m\\r\\n\\tb"),
        ("a\u202eb\u2066\u200b\x9b", "a\\u202eb\\u2066\\u200b\\x9b"),
        ("\udcff\U000e0001", "\\udcff\\U000e0001"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(f"{text}\n{text}\t", lines=True).count("\n") == 1 + 2 * text.count("\n")
    assert printable(shown) == shown

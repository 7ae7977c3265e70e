"""Text files: anything but a small regular file in UTF-8 is rejected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rapdarts.errors import InputError
from rapdarts.files.text import read_text


def test_only_small_utf8_files_are_read(tmp_path: Path) -> None:
    names = ("fifo", "text", "latin", "utf16", "little", "binary", "pickled")
    fifo, text, latin, utf16, little, binary, pickled = (tmp_path / name for name in names)
    os.mkfifo(fifo)
    text.write_bytes("grün".encode())
    latin.write_bytes(b"gr\xfcn")
    utf16.write_bytes("grün".encode("utf-16"))
    little.write_bytes("\xfc1".encode("utf-16-le"))
    binary.write_bytes(b"\x89P\0\0")
    pickled.write_bytes(b"\x80\4\x95")
    assert read_text(text, "it", 5, "is large") == "grün"
    for path, words in [
        (fifo, "it is no file."),
        (tmp_path, "it is no file."),
        (Path(os.devnull), "it is no file."),
        (tmp_path / "none", "it cannot be read: No such file or directory."),
        (tmp_path / "a\0b", "'it' is not the name of a file."),
        (latin, "it is not UTF-8 text (invalid byte at offset 2); save it as UTF-8."),
        (binary, "it is a binary file, not text."),
        (pickled, "it is a binary file, not text."),
        (little, "it is not UTF-8 text (it looks like UTF-16); save it as UTF-8."),
        (utf16, "it is large."),
    ]:
        with pytest.raises(InputError) as refusal:
            read_text(path, "it", 5, "is large", "is no file")
        assert str(refusal.value) == words

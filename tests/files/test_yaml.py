"""Unambiguous YAML: numbers, words, lists and maps are read, and everything else is rejected with a one-line error."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapdarts.errors import InputError
from rapdarts.files.yaml import MAX_DEPTH, MAX_FILE_BYTES, parse_value, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        ("-2.5E+2", -250.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+5", 5),
        ("0", 0),
        ("0.5", 0.5),
        ("4294967295", 2**32 - 1),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("digits", "digits"),
        ("'010'", "010"),
        ('"no"', "no"),
        ("y", "y"),
        ("0output/x", "0output/x"),
        ("2026-11-22-run", "2026-11-22-run"),
        ("[1, 2e1, three]", [1, 20.0, "three"]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_plain_values_are_read(text: str, value: Any) -> None:
    found = parse_value(text, "key")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1e999"])
def test_infinity_and_nan_are_left_to_range_checks(text: str) -> None:
    found = parse_value(text, "key")
    assert isinstance(found, float)
    assert not math.isfinite(found)


MISLEADING = (
    "010 08 -007 00.5 1:30 1:30:00 190:20:30.15 no yes on OFF 0x1F 0b1 1_000 2026-01-02 2026-01-02T10:00:00Z = <<".split()  # noqa: SIM905
)


@pytest.mark.parametrize("text", MISLEADING)
def test_ambiguous_values_are_rejected(text: str) -> None:
    with pytest.raises(InputError, match=r"^key=.* cannot be read: .* is ambiguous in YAML; write .*quotes\.$"):
        parse_value(text, "key")
    with pytest.raises(InputError, match="is ambiguous in YAML"):
        parse_value(f"[1, {text}]", "key")
    assert parse_value(f"'{text}'", "key") == text


REFUSED = [
    ("a: ${oc.env:HOME}", "'${' is not supported; write the value"),
    ("a: 'x${y}'", "'${' is not supported"),
    ("a: !!python/object/apply:os.system [touch x]", "the tag tag:yaml.org,2002:python/object/apply:os.system is not"),
    ("a: !!str 3", "the tag tag:yaml.org,2002:str is not supported"),
    ("a: ! x", "the tag ! is not supported"),
    ("a: &x 3\nb: *x", "anchors and aliases are not supported"),
    ("a: *x", "anchors and aliases are not supported"),
    ("<<: {a: 1}", "<< is ambiguous in YAML"),
    ("? [a, b]\n: 1", "a key must be a name"),
    ("3: 1", "a key must be a name"),
    ("a: 1\nb: 2\na: 3", "the key a appears twice"),
    ("a: {b: 1, b: 1}", "the key b appears twice"),
    ("a: " + "[" * (MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH} levels"),
    ("a: " + "{b: " * 3000 + "1" + "}" * 3000, f"nested deeper than {MAX_DEPTH} levels"),
    ("a: " + "9" * 5000, "the number has more than 100 digits"),
    ("a: 1\n---\nb: 2", "expected a single document in the stream, but found another document"),
    ("a: [1", "expected ',' or ']'"),
    ("a: b: c", "mapping values are not allowed here"),
    ("a: \x01", "is not valid YAML"),
    ("- 1\n- 2", "must contain keys with values, such as seed: 1"),
    ("only words", "must contain keys"),
    ("3", "must contain keys"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[words[:30] for _, words in REFUSED])
def test_unsupported_yaml_is_rejected(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refusal:
        list(read_yaml(path))
    sentence = str(refusal.value)
    assert sentence.startswith(str(path))
    assert words in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300 + len(str(path))


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: 2\na: 3", 3), ("a:\n  b: 1\n\n  b: 2", 4), ("a: 1\nb: no", 2), ("\n\na: [", 3)]
)
def test_errors_name_the_line(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"mine.yaml:{line}: "):
        list(read_yaml(path))


def test_an_alias_bomb_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 18)]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"bomb.yaml:1: anchors and aliases"):
        list(read_yaml(path))


def test_files_that_are_not_small_text_are_rejected(tmp_path: Path) -> None:
    large, other, fifo = tmp_path / "large.yaml", tmp_path / "other.yaml", tmp_path / "fifo.yaml"
    large.write_text("# a comment\n" * 100_000)
    other.write_bytes("grün: 1".encode("latin-1"))
    os.mkfifo(fifo)
    for path, words in [
        (large, f"has more than {MAX_FILE_BYTES:,} bytes, too many for a configuration."),
        (other, "is not UTF-8 text (invalid byte at offset 2); save it as UTF-8."),
        (fifo, "is not a regular file."),
        (tmp_path, "is not a regular file."),
        (tmp_path / "none.yaml", "cannot be read: No such file or directory."),
    ]:
        with pytest.raises(InputError) as refusal:
            list(read_yaml(path))
        assert str(refusal.value) == f"{path} {words}"


def test_keys_are_dotted(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# nothing\n")
    assert list(read_yaml(path)) == []
    path.write_text("seed: 1\nsearch:\n  cost: {macs: 1e-1}\n  layers: [1, 2]\nsearch.lr: 3\ndata:\n")
    assert list(read_yaml(path)) == [
        ("seed", 1),
        ("search.cost.macs", 0.1),
        ("search.layers", [1, 2]),
        ("search.lr", 3),
        ("data", None),
    ]


PIECES = [*"a10:-,[]{}'\"#&*!|>?%@`\n\t\\é\0", "-1", "${x}", "<<", "~", ".inf", "1e9", "010"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join) | st.text(max_size=20))
def test_any_text_is_read_or_rejected(text: str) -> None:
    try:
        parse_value(text, "key")
    except InputError as refusal:
        assert "\n" not in str(refusal).replace(text, "")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damaged_file_is_read_or_rejected(data: st.DataObject, tmp_path: Path) -> None:
    raw = bytearray(b"seed: 1\nsearch:\n  layers: [3, 4]\n  cost: {macs: 1e-3}\n  rule: 'darts' # why\n")
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mine.yaml"
    path.write_bytes(raw)
    try:
        list(read_yaml(path))
    except InputError as refusal:
        assert str(refusal).startswith(str(path))

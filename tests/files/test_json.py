"""Strict JSON: unambiguous texts are read, everything else is rejected with its position, and fields are checked by name."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapdarts.errors import InputError
from rapdarts.files.json import MAX_DEPTH, MAX_DIGITS, Fault, as_list, as_object, dump, number, record, strict_loads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
).filter(lambda value: "Infinity" not in json.dumps(value))


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_written_json_reads_back(value: Any) -> None:
    assert strict_loads(json.dumps(value)) == value
    assert strict_loads(json.dumps(value, ensure_ascii=False, indent=3)) == value
    assert strict_loads(dump(value)) == value


def test_layout_depends_on_depth() -> None:
    assert dump({"a": 1, "b": {}, "c": [[1, 2], [3]]}) == '{\n  "a": 1,\n  "b": {},\n  "c": [[1, 2], [3]]\n}'
    assert dump([[[1]], [[2]]]) == "[\n  [[1]],\n  [[2]]\n]"
    with pytest.raises(ValueError):
        dump({"a": math.nan})


REFUSED = [
    ("", "syntax", "line 1, column 1: not JSON: Expecting value"),
    ("{}{}", "syntax", "line 1, column 3: not JSON: Extra data"),
    ('{\n "a": 01}', "syntax", "line 2, column 8: not JSON: Expecting ',' delimiter"),
    ('{"a": 1,\n "a": 2}', "key", "line 2, column 2: the key 'a' is repeated in one object"),
    ('[{"a": {"b": 1, "\\u0062": 2}}]', "key", "line 1, column 17: the key 'b' is repeated in one object"),
    ("[1, NaN]", "number", "line 1, column 5: NaN is not a finite number"),
    ('{"a": -Infinity}', "number", "line 1, column 7: -Infinity is not a finite number"),
    ("-1e999", "number", "line 1, column 1: the number '-1e999' is too large"),
    ("1" + "0" * MAX_DIGITS, "number", "line 1, column 1: the number has more than 18 digits"),
    ("9" * 100_000, "number", "line 1, column 1: the number has more than 18 digits"),
    (
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "depth",
        "line 1, column 51: values are nested deeper than 50 levels",
    ),
    ("[" * 100_000, "depth", "line 1, column 51: values are nested deeper than 50 levels"),
    ('{"a":' * 100_000, "depth", "line 1, column 251: values are nested deeper than 50 levels"),
]


@pytest.mark.parametrize(("text", "kind", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_invalid_json_is_rejected_at_its_position(text: str, kind: str, words: str) -> None:
    with pytest.raises(Fault) as refusal:
        strict_loads(text)
    assert (refusal.value.kind, str(refusal.value)) == (kind, words)
    assert words.endswith(f": {refusal.value.problem}")
    assert refusal.value.found in text.replace("\\u0062", "b")


def test_values_at_the_limits_are_read() -> None:
    assert strict_loads("-" + "9" * MAX_DIGITS) == 1 - 10**MAX_DIGITS
    assert strict_loads("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert strict_loads('[{"a": 1}, {"a": ["a", "NaN", "1e999", "[[{", "\\"a\\": 1"]}]') == [
        {"a": 1},
        {"a": ["a", "NaN", "1e999", "[[{", '"a": 1']},
    ]


def test_overflowing_numbers_become_infinity_on_request() -> None:
    assert strict_loads("[1e999, -1e999]", infinite=True) == [math.inf, -math.inf]
    for text in ("NaN", "Infinity", "9" * 19):
        with pytest.raises(Fault):
            strict_loads(text, infinite=True)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*'{}[],:"\\ \n-.e019a', "null", "NaN", '"a":', "1e999", "é"]), max_size=15).map("".join)
)
def test_any_text_is_read_as_json_or_rejected(text: str) -> None:
    try:
        value = strict_loads(text)
    except Fault as refusal:
        assert "\n" not in str(refusal)
    else:
        assert value == json.loads(text)


# --- fields ------------------------------------------------------------------------------------------------------


def test_fields_are_read_in_the_order_of_their_readers() -> None:
    share = number(0, 1, above=True)
    found = record(
        {"c": 3, "b": 0.5, "a": "x"}, "it", {"a": None, "b": share}, {"c": number(1, 9, whole=True), "d": None}
    )
    assert list(found.items()) == [("a", "x"), ("b", 0.5), ("c", 3)]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ([1], "it must be an object {...}, not [1]."),
        ({"share": 1, "counts": 1}, "it: there is no field 'counts'; the nearest is count (choose from share, count)."),
        ({"count": 1}, "it: the field share is missing."),
        ({"share": 0}, "it: share must be a number above 0, up to 1, not 0."),
        ({"share": True}, "it: share must be a number above 0, up to 1, not True."),
        ({"share": math.inf}, "it: share must be a number above 0, up to 1, not inf."),
        ({"share": "x" * 1000}, "it: share must be a number above 0, up to 1, not '" + "x" * 76 + "...."),
        ({"share": 1, "count": 0}, "it: count must be a whole number from 1 to 1e+06, not 0."),
        ({"share": 1, "count": 1.0}, "it: count must be a whole number from 1 to 1e+06, not 1.0."),
    ],
)
def test_errors_name_the_field(tree: Any, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        record(tree, "it", {"share": number(0, 1, above=True)}, {"count": number(1, 1e6, whole=True)})
    assert str(refusal.value) == words


def test_objects_and_lists() -> None:
    assert as_object({"a": 1}, "it") == {"a": 1} and as_list([1], "it") == [1]
    with pytest.raises(InputError, match=r"^it must be an object \{\.\.\.\}, not 'x'\.$"):
        as_object("x", "it")
    with pytest.raises(InputError, match=r"^it must be a list, not \(1,\)\.$"):
        as_list((1,), "it")

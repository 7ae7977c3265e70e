"""Knobs: names, types, ranges, and saving; tests with `every` cover every knob of the product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapdarts.config import command_options
from rapdarts.config.experiment import BudgetConfig, Experiment, Launch, SearchConfig
from rapdarts.config.finding import FindConfig
from rapdarts.config.key_values import (
    Key,
    check_range,
    checked,
    differences,
    full_name,
    keys,
    knob,
    parse_settings,
    save_yaml,
    split_override,
    written,
)
from rapdarts.config.resources import RESOURCES
from rapdarts.errors import InputError
from rapdarts.files.yaml import read_yaml

SCHEMAS = [
    Experiment,
    Launch,
    command_options.DeriveConfig,
    command_options.EvaluateConfig,
    command_options.ExportConfig,
    command_options.ReportConfig,
    command_options.CountConfig,
]


def kind_of(key: Key) -> tuple[type, Any]:
    """Return the type of a knob, or of its elements if it is a list, and a function that makes a knob's value from one of this type."""
    in_a_list = get_origin(key.type) is list
    return (get_args(key.type)[0], lambda value: [value]) if in_a_list else (key.type, lambda value: value)


def every(wanted: Callable[[Key], Any] = lambda key: True) -> pytest.MarkDecorator:
    """Parametrise a test by every knob of the product for which `wanted` is true."""
    found = [(schema, key) for schema in SCHEMAS for key in keys(schema) if wanted(key)]
    named = [pytest.param(schema, key, id=f"{schema.__name__}-{key.name}") for schema, key in found]
    return pytest.mark.parametrize(("schema", "key"), named)


def refusal(schema: type, name: str, value: Any) -> str:
    with pytest.raises(InputError) as refused:
        checked(schema, [(name, value)])
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# --- every knob of the product -----------------------------------------------------------------------------------


@every()
def test_every_knob_has_help_and_a_valid_default(schema: type, key: Key) -> None:
    assert key.facts["help"]
    check_range(key, key.default)
    assert checked(schema, [(key.name, key.default)]) == [(key.name, key.default)]


@every()
def test_other_types_are_rejected(schema: type, key: Key) -> None:
    kind, wrap = kind_of(key)
    wrong = {
        int: [True, 2.5, None, [], "one"],
        float: [True, None, [], "cheap", "inf", "nan"],
        bool: [1, 0.0, None, "yes"],
    }
    if key.facts["amount"]:
        wrong[kind] = [True, []] if key.default is None else [True, None, []]
    for value in wrong.get(kind, [1, 2.5, True, None, []]):
        sentence = refusal(schema, key.name, wrap(value) if value != [] else [[]])
        assert sentence.startswith(key.name)
        assert " takes " in sentence or " cannot be read: " in sentence
    if key.type is not kind:
        assert "takes a list such as [" in refusal(schema, key.name, 3 if kind is str else "3")


@every(lambda key: kind_of(key)[0] in (int, float) and not key.facts["amount"])
def test_numbers_out_of_range_are_rejected(schema: type, key: Key) -> None:
    kind, wrap = kind_of(key)
    negative = [] if key.facts["low"] is not None and key.facts["low"] < -5 else [-5]
    for value in [*negative, -1e30, 1e30, math.inf, -math.inf, math.nan, 10**99, 1e-320 if kind is float else 10**12]:
        assert refusal(schema, key.name, wrap(value)).startswith(key.name)
    low, high = key.facts["low"], key.facts["high"]
    for inside in (low, high):
        if inside is not None:
            check_range(key, wrap(kind(inside)))
    for outside in (key.facts["above"], key.facts["below"]):
        if outside is not None:
            assert "is out of range; it must be " in refusal(schema, key.name, wrap(outside))


@every(lambda key: key.facts["choices"])
def test_an_unknown_choice_suggests_the_nearest(schema: type, key: Key) -> None:
    right = next(choice for choice in key.facts["choices"] if choice)
    is_text = isinstance(right, str)
    assert (f"the nearest is {right} (choose from " if is_text else "; choose from ") in refusal(
        schema, key.name, right + "x" if is_text else right + 1
    )


@every(lambda key: key.facts["amount"])
def test_an_amount_may_be_written_as_a_number(schema: type, key: Key) -> None:
    assert checked(schema, [(key.name, 3_000_000), (key.name, 0.002)]) == [(key.name, 3e6), (key.name, 0.002)]


@every(lambda key: key.facts["amount"])
def test_an_amount_is_a_number_in_the_unit_of_its_resource(schema: type, key: Key) -> None:
    unit = RESOURCES[key.facts["amount"]].unit
    text, value = (f"8m{unit}", 0.008) if unit in ("J", "s") else (f"1.5M{unit}", 1.5e6)
    assert checked(schema, [(key.name, text)]) == [(key.name, value)]
    empty = [(key.name, given) for given in ("", None if key.default is None else 0)]
    assert checked(schema, empty) == [(key.name, key.default)] * 2
    for wrong in ("many", "-1", "8 apples", "inf", math.inf, math.nan, 10**400):
        assert refusal(schema, key.name, wrong).startswith(f"{key.name}=")
    if key.default is None:
        assert checked(schema, [(key.name, "none")]) == [(key.name, key.facts["none"])]
        assert refusal(schema, key.name, "0") == refusal(schema, key.name, 0)
    else:
        assert refusal(schema, key.name, "none").startswith(
            f"{key.name}=none is not an amount of {key.facts['amount']}; "
        )


@every(lambda key: key.facts["auto"] is not None)
def test_auto_stands_for_a_value_outside_the_range(schema: type, key: Key) -> None:
    auto = key.facts["auto"]
    assert checked(schema, [(key.name, "auto"), (key.name, auto)]) == [(key.name, auto), (key.name, auto)]
    assert written(key, auto) == "auto" != written(key, key.facts["low"])
    assert "it must be auto, or " in refusal(schema, key.name, min(key.facts["low"], auto) - 1)
    assert "it must be auto, or " in refusal(schema, key.name, str(auto))  # users must write the word


@every(lambda key: kind_of(key)[0] is str)
def test_strings_with_special_meanings_are_rejected(schema: type, key: Key) -> None:
    for value in ("${oc.env:HOME}", "???", "a\0b"):
        assert key.name in refusal(schema, key.name, kind_of(key)[1](value))


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "section", "name"),
    [
        ("seed", "search", "seed"),
        ("search.lr", "retrain", "search.lr"),
        ("cost.macs", "search", "search.cost.macs"),
        ("cost.macs", "", "search.cost.macs"),
        ("alpha_lr", "retrain", "search.alpha_lr"),
        ("lr", "search", "search.lr"),
        ("lr", "retrain", "retrain.lr"),
        ("layers", "search", "search.layers"),
        ("stem", "search", "skeleton.stem"),
        ("random.count", "search", "search.random.count"),
    ],
)
def test_sections_may_be_left_out(given: str, section: str, name: str) -> None:
    assert full_name(Experiment, given, section) == name


@pytest.mark.parametrize(
    ("given", "section", "names"),
    [
        ("lr", "", "search.lr or retrain.lr"),
        ("layers", "find", "skeleton.layers or search.layers"),
        ("macs", "search", "search.cost.macs, search.budget.macs or search.random.macs"),
    ],
)
def test_ambiguous_keys_list_their_meanings(given: str, section: str, names: str) -> None:
    with pytest.raises(InputError, match=f"the key '{given}' is ambiguous: it could be {names}; write the full name"):
        full_name(Experiment, given, section)


@pytest.mark.parametrize(
    ("given", "section", "name"),
    [
        ("layers", "retrain", "skeleton.layers"),
        ("channels", "retrain", "skeleton.channels"),
        ("layers", "rank", "skeleton.layers"),
        ("lr", "rank", "retrain.lr"),
        ("layers", "search", "search.layers"),
        ("epochs", "rank", "rank.epochs"),
        ("max_skips", "retrain", "search.max_skips"),
    ],
)
def test_a_key_means_a_section_that_the_command_uses(given: str, section: str, name: str) -> None:
    assert full_name(Experiment, given, section) == name


@pytest.mark.parametrize(
    ("given", "section", "nearest"),
    [
        ("epochss", "search", "search.epochs"),
        ("epochss", "retrain", "retrain.epochs"),
        ("batchsize", "search", "search.batch"),
        ("batchsize", "retrain", "retrain.batch"),
        ("search.epoch", "retrain", "search.epochs"),
        ("retrain.epoch", "search", "retrain.epochs"),
        ("retrian.lr", "search", "retrain.lr"),
        ("serach.lr", "retrain", "search.lr"),
        ("Seed", "search", "seed"),
        ("sed", "search", "seed"),
        ("devise", "retrain", "device"),
        ("crops", "search", "data.crop"),
        ("data.pth", "search", "data.path"),
        ("cost.mac", "search", "search.cost.macs"),
        ("cost.byte", "search", "search.cost.bytes"),
        ("cost-macs", "search", "search.cost.macs"),
        ("search.cost.mcas", "search", "search.cost.macs"),
        ("search.macs", "search", "search.cost.macs"),
        ("rnu", "search", "run"),
        ("resme", "retrain", "resume"),
        ("drop_paths", "search", "retrain.drop_path"),
        ("x" * 1_000_000 + "epochs", "search", None),
        ("zzz", "search", None),
        ("search.zzz", "search", None),
        ("ѕeed", "search", "seed"),  # a Cyrillic letter
    ],
)
def test_the_nearest_key_is_in_the_right_section(given: str, section: str, nearest: str | None) -> None:
    with pytest.raises(InputError) as refused:
        full_name(Experiment, given, section, beside=Launch)
    sentence = str(refused.value)
    assert sentence.startswith("there is no key ")
    assert len(sentence) < 200
    if nearest:
        assert sentence == f"there is no key {given!r}; the nearest is {nearest}."
    else:
        assert sentence.endswith("; rapdarts search --help lists all keys.")


@pytest.mark.parametrize(("given", "example"), [("data", "data.name"), ("search.cost", "search.cost.macs")])
def test_a_section_is_not_a_key(given: str, example: str) -> None:
    with pytest.raises(InputError, match=f"{given} is a section, not a key; use one of its keys, such as {example}"):
        full_name(Experiment, given, "search")


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert split_override("data.path=a=b") == ("data.path", "a=b")
    assert split_override("data.path=") == ("data.path", "")
    for text in ("=3", " =3", "seed"):
        with pytest.raises(InputError, match="has no key; write key=value"):
            split_override(text)


# --- values ------------------------------------------------------------------------------------------------------


@dataclass
class Inner:
    share: float = knob(0.5, "a share", above=0, below=1)
    names: list[str] = knob([], "names")


@dataclass
class Outer:
    """A schema with knobs of every type."""

    count: int = knob(3, "a count", "things", low=1, high=10)
    on: bool = knob(False, "a switch")
    word: str = knob("a", "a word")
    sizes: list[int] = knob([1, 2], "sizes", low=0)
    rates: list[float] = knob([], "rates", low=0, high=1)
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "4", 4),
        ("count", "1e1", 10),
        ("count", 5.0, 5),
        ("on", "true", True),
        ("word", "010", "010"),
        ("word", "", ""),
        ("word", "a b", "a b"),
        ("sizes", "[0, 1e2]", [0, 100]),
        ("sizes", "[]", []),
        ("rates", "[0, 1, 5e-1]", [0.0, 1.0, 0.5]),
        ("inner.share", "1e-3", 0.001),
        ("share", "0.25", 0.25),
        ("names", "[a, 'b c']", ["a", "b c"]),
    ],
)
def test_values_are_parsed_from_the_command_line(name: str, text: Any, value: Any) -> None:
    ((full, found),) = checked(Outer, [(name, text)])
    assert found == value
    assert type(found) is type(value)
    assert {full: found} == {name: value} or full == f"inner.{name}"
    loaded = parse_settings(Outer, [(name, text)])
    assert value in (getattr(loaded, name, None), getattr(loaded.inner, full.rpartition(".")[2], None))


def test_the_last_of_several_pairs_wins() -> None:
    assert parse_settings(Outer, [("count", 4), ("share", 0.1), ("count", "6"), ("inner.share", "0.2")]) == Outer(
        count=6, inner=Inner(share=0.2)
    )


def test_defaults_are_not_shared() -> None:
    first, second = parse_settings(Outer, []), parse_settings(Outer, [])
    first.sizes.append(3)
    assert second.sizes == Outer().sizes == [1, 2]


def test_errors_name_the_file() -> None:
    with pytest.raises(InputError, match=r"^mine.yaml: count=0 is out of range; it must be 1 to 10\.$"):
        parse_settings(Outer, [("count", 0)], where="mine.yaml")
    with pytest.raises(InputError, match=r"^mine.yaml: there is no key 'cuont'; the nearest is count\.$"):
        parse_settings(Outer, [("cuont", 0)], where="mine.yaml")
    with pytest.raises(InputError, match=r"^mine.yaml: there is no key 'zzz'; the keys are count, on, word, sizes, "):
        parse_settings(Outer, [("zzz", 0)], where="mine.yaml")


def test_a_value_that_is_not_set_differs_as_none() -> None:
    old = Experiment(search=SearchConfig(budget=BudgetConfig(params=90e3)))
    assert differences(old, Experiment(find=FindConfig(time="5m"))) == [
        "search.budget.params: 90k -> none",
        "find.time: none -> 5m",
    ]


def test_differences_are_listed() -> None:
    assert differences(Outer(), Outer()) == []
    assert differences(Outer(), Outer(on=True, inner=Inner(share=0.1))) == [
        "on: False -> True",
        "inner.share: 0.5 -> 0.1",
    ]


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15).filter(
    lambda text: "${" not in text and text != "???"
)
ODD = st.sampled_from(
    ["no", "1e3", "010", "08", "1:30", "null", " a ", "a: b", "- a", "1_0", "2026-01-02", ".inf", "0x1", "<<"]
) | st.sampled_from([*"y~#'[=!\té", "a\nb", "a\n\n b", "word " * 30])
VALUES = st.builds(
    Outer,
    count=st.integers(1, 10),
    on=st.booleans(),
    word=WORDS | ODD,
    sizes=st.lists(st.integers(0, 10**12), max_size=4),
    rates=st.lists(st.floats(1e-30, 1) | st.just(0.0), max_size=4),
    inner=st.builds(
        Inner,
        share=st.floats(0, 1, exclude_min=True, exclude_max=True).filter(lambda x: x >= 1e-30),
        names=st.lists(WORDS | ODD, max_size=3),
    ),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_saved_values_read_back(value: Outer, tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    path.write_text(save_yaml(value), encoding="utf-8")
    assert parse_settings(Outer, list(read_yaml(path))) == value


@pytest.mark.parametrize("text", ["\x85", "a\x85b", "\u2028", "\ufeff", "\x07"])
def test_unusual_characters_read_back(text: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.yaml"
    # The list holds strings that look like values of other types.
    value = Outer(word=text, inner=Inner(names=["08", "0E0", "no", ""]))
    path.write_text(save_yaml(value), encoding="utf-8")
    assert parse_settings(Outer, list(read_yaml(path))) == value


def test_invalid_utf8_is_rejected() -> None:
    with pytest.raises(InputError, match=r"^'a\\udcff' is not valid UTF-8 and cannot be saved; rename that file\.$"):
        save_yaml(Outer(word="a\udcff"))

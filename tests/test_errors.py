"""Suggestions: a slip names what was meant, what is no slip of anything lists what there is."""

from __future__ import annotations

from rapdarts.errors import FEW, installation, nearest, suggestion


def test_the_nearest_name_needs_no_case() -> None:
    assert nearest(" SEP_conv_3x3 ", ["skip_connect", "sep_conv_3x3"]) == "sep_conv_3x3"
    assert nearest("pdart", ["DARTS_V1", "PDARTS"]) == "PDARTS"


def test_what_is_near_nothing_has_no_nearest() -> None:
    assert nearest("qqq", ["search", "derive"]) is None
    assert nearest("x" * 1_000_000, ["a", "b"]) is None
    assert nearest("", ["a"]) is None


def test_the_words() -> None:
    assert suggestion("serch", ["search", "derive"]) == "the nearest is search, of search, derive"
    assert suggestion("qqq", ["search", "derive"]) == "there are search, derive"
    assert suggestion("qqq", ["search"]) == "there is only search"


def test_a_long_list_stands_only_where_nothing_is_near() -> None:
    names = [f"network{number}" for number in range(FEW + 1)]
    assert suggestion("network1x", names) == "the nearest is network1"
    assert suggestion("qqq", names) == f"there are {', '.join(names)}"


def test_of_many_names_those_that_begin_so_are_said() -> None:
    names = [f"cell_{letter}" for letter in "abcdefg"] + [f"other{number}" for number in range(10)]
    assert suggestion("Cell", names) == "there are cell_a, cell_b, cell_c, cell_d, cell_e, cell_f, cell_g"
    assert suggestion("cell_h", names).startswith("the nearest is cell_")


def test_installation_works_with_and_without_a_checkout() -> None:
    assert (
        installation("onnx")
        == "pip install 'rapdarts[onnx]', or in a checkout pip install -c constraints.txt '.[onnx]'"
    )

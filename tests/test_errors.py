"""Suggestions for a misspelt name (the nearest name, or else all names), and advice on installation."""

from __future__ import annotations

from rapdarts.errors import FEW, installation, nearest, suggestion


def test_the_nearest_name_ignores_case() -> None:
    assert nearest(" SEP_conv_3x3 ", ["skip_connect", "sep_conv_3x3"]) == "sep_conv_3x3"
    assert nearest("pdart", ["DARTS_V1", "PDARTS"]) == "PDARTS"


def test_a_name_unlike_all_others_has_no_nearest() -> None:
    assert nearest("qqq", ["search", "derive"]) is None
    assert nearest("x" * 1_000_000, ["a", "b"]) is None
    assert nearest("", ["a"]) is None


def test_suggestions_list_all_names_after_the_nearest() -> None:
    assert suggestion("serch", ["search", "derive"]) == "the nearest is search (choose from search, derive)"
    assert suggestion("qqq", ["search", "derive"]) == "choose from search, derive"
    assert suggestion("qqq", ["search"]) == "the only choice is search"


def test_long_lists_are_shown_only_if_no_name_is_near() -> None:
    names = [f"network{number}" for number in range(FEW + 1)]
    assert suggestion("network1x", names) == "the nearest is network1"
    assert suggestion("qqq", names) == f"choose from {', '.join(names)}"


def test_names_that_begin_with_the_given_text_are_listed() -> None:
    names = [f"cell_{letter}" for letter in "abcdefg"] + [f"other{number}" for number in range(10)]
    assert suggestion("Cell", names) == "similar names are cell_a, cell_b, cell_c, cell_d, cell_e, cell_f, cell_g"
    assert suggestion("cell_h", names).startswith("the nearest is cell_")


def test_installation_is_explained_with_and_without_a_checkout() -> None:
    assert (
        installation("onnx")
        == "pip install 'rapdarts[onnx]', or, in a checkout, pip install -c constraints.txt '.[onnx]'"
    )

"""The contract of a primitive, `factory(channels, stride, affine)`: ours keep it, and one that breaks it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapdarts.deploy.space_lookup import named_space, space_from_file
from rapdarts.errors import InputError
from rapdarts.networks.primitives import check_primitives
from tests.spaces import NAMES


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("['none', 'skip_connect']", "mapping of names to factories, not a list"),
        ("{'mine': lambda channels: nn.Identity()}", "mine fails at stride 1: TypeError"),
        (
            "{'mine': lambda channels, stride, affine: nn.Conv2d(3, channels, 1)}",
            "mine fails at stride 1: RuntimeError",
        ),
        ("{'mine': lambda channels, stride, affine: nn.Identity()}", r"mine makes \(1, 4, 4, 6\) of"),
    ],
)
def test_a_primitive_that_breaks_the_contract_is_named(tmp_path: Path, broken: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(
        f"from torch import nn\nfrom rapdarts import SearchSpace\nSPACE = SearchSpace('mine', {broken})\n"
    )
    space = space_from_file(tmp_path / "mine.py")
    with pytest.raises(InputError, match=words):
        check_primitives(space, "mine.py")


@pytest.mark.parametrize("name", NAMES)
def test_our_own_primitives_keep_the_contract(name: str) -> None:
    check_primitives(named_space(name), name)

"""The contract of a primitive, `factory(channels, stride, affine)`: built-in primitives fulfil it, and errors name those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapdarts.deploy.space_lookup import named_space, space_from_file
from rapdarts.errors import InputError
from rapdarts.networks.primitives import check_primitives
from tests.spaces import NAMES


@pytest.mark.parametrize(
    ("primitives", "message"),
    [
        ("['none', 'skip_connect']", "mapping from names to factories, not a list"),
        ("{'mine': lambda channels: nn.Identity()}", "mine fails at stride 1: TypeError"),
        (
            "{'mine': lambda channels, stride, affine: nn.Conv2d(3, channels, 1)}",
            "mine fails at stride 1: RuntimeError",
        ),
        (
            "{'mine': lambda channels, stride, affine: nn.Identity()}",
            r"mine maps \(1, 4, 4, 6\) to \(1, 4, 4, 6\) instead of \(1, 4, 2, 3\)",
        ),
    ],
)
def test_the_error_names_the_primitive_that_violates_the_contract(
    tmp_path: Path, primitives: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(
        f"from torch import nn\nfrom rapdarts import SearchSpace\nSPACE = SearchSpace('mine', {primitives})\n"
    )
    space = space_from_file(tmp_path / "mine.py")
    with pytest.raises(InputError, match=message):
        check_primitives(space, "mine.py")


@pytest.mark.parametrize("name", NAMES)
def test_built_in_primitives_fulfil_the_contract(name: str) -> None:
    check_primitives(named_space(name), name)

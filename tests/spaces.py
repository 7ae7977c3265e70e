"""Spaces to test with: every one that ships (a new one is tested by being there), and the file of a user's own."""

from __future__ import annotations

import pkgutil

import search_spaces

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(search_spaces.__path__)))
"""Names of the spaces that ship."""

OWN = '''
"""Shuffles channels between two grouped convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rapdarts.networks.primitives import choose
from rapdarts import SearchSpace


@dataclass
class Settings:
    groups: int = 2


def grouped(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride, 1, groups=Settings().groups, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


SPACE = SearchSpace("mine", {**choose("none", "skip_connect", "avg_pool_3x3"), "grouped": grouped}, nodes=3)
'''
"""A file that holds a space of a user's own."""

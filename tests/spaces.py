"""Spaces for tests: all shipped spaces, including any added later, and a file with a user-defined space."""

from __future__ import annotations

import pkgutil

import search_spaces

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(search_spaces.__path__)))
"""Names of the shipped spaces."""

OWN = '''
"""A space with a grouped convolution."""

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
"""Source of a file that defines a space."""

"""Every space that ships: a new one is tested by being there."""

from __future__ import annotations

import pkgutil

import search_spaces

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(search_spaces.__path__)))

"""Deprecated module, kept for one release: import `Mixing` and `SearchSpace` from `rapdarts` instead."""

from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space, space_from_file

__all__ = ["Mixing", "SearchSpace", "Skeleton", "named_space", "space_from_file"]

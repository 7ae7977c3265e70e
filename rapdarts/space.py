"""The former place of search spaces' values, kept for one release: import them from `rapdarts`."""

from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space, space_from_file

__all__ = ["Mixing", "SearchSpace", "Skeleton", "named_space", "space_from_file"]

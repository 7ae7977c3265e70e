"""Genotypes in the forms that other programs read."""

from __future__ import annotations

from collections.abc import Callable

from rapdarts.genotype import Genotype

FORMATS: dict[str, Callable[[Genotype], str]] = {
    "json": Genotype.to_json,
    "darts": lambda genotype: genotype.to_darts() + "\n",
}
"""What `rapdarts export to=` writes."""

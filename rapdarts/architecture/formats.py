"""Genotypes in the forms that other programs read."""

from __future__ import annotations

from collections.abc import Callable

from rapdarts.architecture.drawing import dot, draw
from rapdarts.architecture.genotype import Genotype

FORMATS: dict[str, Callable[[Genotype], str]] = {
    "json": Genotype.to_json,
    "darts": lambda genotype: f"# space: {genotype.space}\n{genotype.to_darts()}\n",
    "nasbench201": lambda genotype: f"{genotype.to_nasbench201()}\n",
    "dot": dot,
    "svg": draw,
}
"""What `rapdarts export to=` writes of a genotype."""

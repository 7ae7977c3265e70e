"""Formats in which a genotype can be written for other programs."""

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
"""Writers by their name in `rapdarts export to=`. Each returns the complete text of a file."""

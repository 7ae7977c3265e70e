"""Export formats: which keys mean something for which."""

from __future__ import annotations

from collections.abc import Collection

from rapdarts.config.commands import ExportConfig
from rapdarts.errors import InputError, shorten

DATA = {"data.name", "data.path", "data.size"}
USEFUL = {
    "safetensors": {"licence"},
    "onnx": {"licence", *DATA, "precision", "calibration"},
    "pt2": {"licence", *DATA},
    "executorch": DATA,
}
"""The keys, besides to and out, that mean something for a format of trained networks; for those of a genotype none does."""


def check_keys(options: ExportConfig, given: Collection[str], experiment: str) -> None:
    """Raises InputError for a key or an experiment that a format has no use for."""
    idle = set(given) - {"to", "out", *USEFUL.get(options.to, ())}
    if idle:
        raise InputError(f"to={options.to} has no use for {min(idle)}=; leave it out.")
    if options.to not in USEFUL and experiment:
        raise InputError(
            f"to={options.to} writes a genotype, which has no use for the experiment {shorten(experiment)}; leave it out."
        )
    if "calibration" in given and options.precision == 32:
        raise InputError("calibration= belongs to precision=8; leave it out, or add that.")

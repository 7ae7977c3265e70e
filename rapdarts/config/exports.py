"""Formats that `rapdarts export to=` writes: the content of each, the settings that apply to it, and the packages it needs.

Writers are listed by format in rapdarts.architecture.writing (genotypes) and rapdarts.deploy.verify (networks); `safetensors` is
a copy of the file that the retraining writes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rapdarts.errors import InputError, shorten

_DATA = ("data.name", "data.path", "data.size", "data.range", "data.layout")


@dataclass(frozen=True)
class ExportFormat:
    """A format of genotypes or of trained networks.

    `keys` are the keys of ExportConfig, besides `to` and `out`, that apply to the format. `extra` is the extra of rapdarts that
    the format needs, or empty.
    """

    name: str
    of_genotype: bool = False
    keys: tuple[str, ...] = ()
    extra: str = ""


EXPORTS = {
    form.name: form
    for form in (
        ExportFormat("json", of_genotype=True),
        ExportFormat("darts", of_genotype=True),
        ExportFormat("nasbench201", of_genotype=True),
        ExportFormat("dot", of_genotype=True),
        ExportFormat("svg", of_genotype=True),
        ExportFormat("safetensors", keys=("licence",)),
        ExportFormat("onnx", keys=("licence", *_DATA, "precision", "calibration"), extra="onnx"),
        ExportFormat("pt2", keys=("licence", *_DATA)),
        ExportFormat("executorch", keys=_DATA, extra="executorch"),
    )
}
"""All formats, the genotype formats first."""


def check_export(to: str, given: Collection[str], precision: int, experiment: str = "") -> None:
    """Raise InputError if one of the keys `given`, or an experiment, does not apply to the format `to`."""
    form = EXPORTS[to]
    idle = set(given) - {"to", "out", *form.keys}
    if idle:
        raise InputError(f"to={to} does not use {min(idle)}=; leave it out.")
    if form.of_genotype and experiment:
        useless = f"the experiment {shorten(experiment)}"
        raise InputError(f"to={to} writes a genotype and does not use {useless}; leave it out.")
    if "calibration" in given and precision == 32:
        raise InputError("calibration= needs precision=8; add precision=8, or leave calibration= out.")

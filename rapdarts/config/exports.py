"""Formats that `rapdarts export to=` writes: what each is of, which settings mean something for it, and what it needs installed.

The writers stand under the same names in rapdarts.architecture.formats (genotypes) and rapdarts.deploy.verify (networks);
`safetensors` is the file of the retraining itself.
"""

from __future__ import annotations

from dataclasses import dataclass

_DATA = ("data.name", "data.path", "data.size")


@dataclass(frozen=True)
class ExportFormat:
    """A format of genotypes, or else of trained networks.

    `keys` are those of ExportConfig, besides to and out, that mean something for it; `extra` is the extra of the package
    that has to be installed, empty where none has.
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
"""Every format, those of genotypes first."""

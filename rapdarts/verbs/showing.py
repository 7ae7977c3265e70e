"""`export` and `report`: what was found, in forms for others to read."""

from __future__ import annotations

from pathlib import Path

from rapdarts import knobs
from rapdarts.call import Call, deliver
from rapdarts.options import ExportConfig, ReportConfig
from rapdarts.verbs.naming import genotype_asked


def export(call: Call) -> None:
    call.expect(1)
    target = call.target("a genotype: a file, a run folder or a literature name such as PDARTS")
    options = knobs.load(ExportConfig, call.pairs)
    from rapdarts.export import FORMATS

    genotype, _ = genotype_asked(target)
    deliver(FORMATS[options.to](genotype), options.out)


def report(call: Call) -> None:
    call.target("run folders")
    options = knobs.load(ReportConfig, call.pairs)
    from rapdarts.report import table

    deliver(table([Path(word) for word in call.words]), options.out)

"""`export`: a genotype or a trained network in a format for other programs."""

from __future__ import annotations

from rapdarts import api
from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer, out, say
from rapdarts.config.command_keys import parse_options
from rapdarts.config.command_options import ExportConfig
from rapdarts.config.exports import EXPORTS
from rapdarts.errors import InputError


def export(call: Call) -> None:
    call.expect(2)
    target = call.target("a genotype (a file, a run folder or a name such as PDARTS), or a trained network")
    options = parse_options(ExportConfig, call.pairs)
    if call.json and EXPORTS[options.to].of_genotype:
        raise InputError(f"to={options.to} writes a genotype and does not use --json; leave --json out.")
    found = api.export(target, options.to, experiment=call.word(1), settings=call.values, space=call.space_file)
    if found.report:
        answer(call, found.report, f"{found!r}")
    elif found.file is None:
        out(found.content, end="")
    else:
        say(f"{found!r}")

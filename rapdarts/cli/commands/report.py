"""`report`: a table of finished runs."""

from __future__ import annotations

from rapdarts import api
from rapdarts.cli.arguments import Call
from rapdarts.cli.output import out, say
from rapdarts.config.command_keys import parse_options
from rapdarts.config.command_options import ReportConfig


def report(call: Call) -> None:
    call.target("run folders")
    options = parse_options(ReportConfig, call.pairs)
    found = api.report(call.words, options.out)
    if found.left_out:
        say(f"left out: {'; '.join(found.left_out)}")
    if options.out:
        say(f"written to {options.out}")
    else:
        out(found.text, end="")

"""`find`: a trained, tested and exported network for a data set and a budget."""

from __future__ import annotations

from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer
from rapdarts.cli.print_config import print_config, resolve_call


def find(call: Call) -> None:
    call.expect(1)
    if call.print_config:
        print_config(call, resolve_call(call))
        return
    from rapdarts import api

    found = api.find(call.word(0), call.values, space=call.space_file)
    answer(call, found.report, f"{found!r}")

"""`derive`: another genotype from a finished search."""

from __future__ import annotations

from rapdarts import api
from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer, say
from rapdarts.config.command_keys import parse_options
from rapdarts.config.own_resources import derive_schema


def derive(call: Call) -> None:
    call.target("the folder of a finished search, or its alphas.json")
    options = parse_options(derive_schema(), call.pairs)
    found = api.derive(call.words, call.values, space=call.space_file)
    if call.json:
        for line in found.remarks:
            say(line)
    written = f"\nwritten to {options.out}" if options.out else "\nnot written to a file; add out=FILE to save it"
    answer(call, found.best_first(), f"{found.describe(options.count)}{written}")

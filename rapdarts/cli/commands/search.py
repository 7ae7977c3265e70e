"""`search`: a search for a genotype, or the accuracy of random genotypes."""

from __future__ import annotations

from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer
from rapdarts.cli.print_config import print_config, resolve_call


def search(call: Call) -> None:
    call.expect(1)
    config = resolve_call(call)
    if call.print_config:
        print_config(call, config)
        return
    from rapdarts import api

    run = api.random_baseline if config.search.strategy == "random" else api.search
    found = run(call.word(0), call.values, space=call.space_file)
    answer(call, found.report, f"{found!r}")

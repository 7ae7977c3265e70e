"""`retrain`: training of a genotype's network or a reference network from scratch."""

from __future__ import annotations

from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer
from rapdarts.cli.print_config import print_config, resolve_call
from rapdarts.deploy.lookup import find_network


def retrain(call: Call) -> None:
    call.expect(2)
    target = call.target(
        "a genotype (a file, a run folder or a published name such as PDARTS), or a reference network such as lenet"
    )
    if call.print_config:
        print_config(call, resolve_call(call, 1, find_network(target).folder))
        return
    from rapdarts import api

    found = api.retrain(target, call.word(1), call.values, space=call.space_file)
    if found.is_main:
        answer(call, found.report, f"{found!r}")

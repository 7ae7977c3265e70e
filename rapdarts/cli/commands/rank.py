"""`rank`: the best candidates of one or several searches, trained briefly and sorted by accuracy."""

from __future__ import annotations

from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer
from rapdarts.cli.print_config import print_config
from rapdarts.loops.ranking_settings import experiment_of_ranking, searches


def rank(call: Call) -> None:
    call.target("the folder of at least one finished search")
    if call.print_config:
        print_config(call, experiment_of_ranking(searches(call.words)[0], call.pairs)[0])
        return
    from rapdarts import api

    found = api.rank(call.words, call.values, space=call.space_file)
    answer(call, found.report, f"{found!r}")

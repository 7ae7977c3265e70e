"""`search` and `derive`: from data to a genotype, and once more from what a search left."""

from __future__ import annotations

from pathlib import Path

from rapdarts.cli.arguments import Call
from rapdarts.cli.naming import experiment_asked, space_asked
from rapdarts.cli.output import answer
from rapdarts.files.run_files import RunFile


def search(call: Call) -> None:
    call.expect(1)
    config, launch = experiment_asked(call, call.target("an experiment, such as digits"))
    if config is None:
        return
    from rapdarts.loops import launch as launches
    from rapdarts.reports.costs import describe_search

    space, code = space_asked(config.search.space, call.space), launches.source(call.space)
    name = Path(call.words[0]).stem
    if config.search.strategy == "random":
        result, file = launches.baseline(config, space, launch, name, code)
        answer(call, result, f"{result['summary']}\nwritten to {file}")
        return
    found = launches.search(config, space, launch, name, code)
    answer(
        call,
        found.report,
        f"{describe_search(found.report)}\nwritten to {found.folder / RunFile.GENOTYPE}",
    )

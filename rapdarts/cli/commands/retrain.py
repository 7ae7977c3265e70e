"""`retrain`: from a genotype to a trained network."""

from __future__ import annotations

from pathlib import Path

from rapdarts.cli.arguments import Call
from rapdarts.cli.naming import costs_line, experiment_asked, plan_asked
from rapdarts.cli.output import answer, say
from rapdarts.config import resolve
from rapdarts.config.experiment import Experiment
from rapdarts.errors import InputError
from rapdarts.files.run_files import RunFile


def retrain(call: Call) -> None:
    call.expect(2)
    target = call.target(
        "a genotype (a file, a run folder or a literature name such as PDARTS), or a reference network such as lenet"
    )
    if len(call.words) < 2:
        raise InputError("rapdarts retrain needs an experiment after the network, such as digits.")
    config, launch = experiment_asked(call, call.words[1])
    if config is None:
        return
    from rapdarts.loops import launch as launches

    _remark_on_data(target, config)
    plan, name = plan_asked(call, target), Path(call.words[1]).stem
    found = launches.retrain(config, plan, launch, name, launches.source(call.space))
    if not found.is_main:
        return
    words = f"test accuracy {found.test}"
    if found.best is not None:
        words += f"\nbest on validation: test accuracy {found.best}"
    answer(call, found.report, f"{words}\n{costs_line(found.costs)}\nwritten to {found.file}")


def _remark_on_data(target: str, config: Experiment) -> None:
    """Says so where a search's run folder is named, and its data are others than those that will be trained on."""
    if not (Path(target) / RunFile.CONFIG).is_file():
        return
    searched, asked = resolve.experiment_of_run(Path(target)).data, config.data
    if (searched.name, searched.path) != (asked.name, asked.path):
        names = [f"{data.name} {data.path}".strip() for data in (searched, asked)]
        say(f"{target} searched on {names[0]}; this trains on {names[1]}")

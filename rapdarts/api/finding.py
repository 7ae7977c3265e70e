"""Find a network for a data set and a budget, in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapdarts.api.own_space import with_own_resources
from rapdarts.api.process import unchanged_process
from rapdarts.api.runs import searched
from rapdarts.config.experiment import Experiment, Launch, budget_limits
from rapdarts.config.given import AnyPath, Settings, find_experiment
from rapdarts.config.resolve import Pairs, keys_given_in
from rapdarts.deploy.space_lookup import Space
from rapdarts.errors import InputError
from rapdarts.files.run_files import begun, resuming, verb_of
from rapdarts.training.claim import reserved

if TYPE_CHECKING:
    from rapdarts.loops.results import FoundNetwork


@unchanged_process
@with_own_resources
def find(
    experiment: AnyPath | Experiment | Settings = "",
    settings: Settings | None = None,
    *,
    data: Any = None,
    test: Any = None,
    space: Space = None,
    run: AnyPath = "",
    resume: bool = False,
    progress: bool = True,
    **keys: Any,
) -> FoundNetwork:
    """Find a network within a budget, train it, test it and export it, as `rapdarts find` does.

    Several searches are averaged. Their best cells are trained briefly on part of the training images and compared on the rest;
    every round keeps the better half, until one cell is left. Its network is trained, tested once, and exported as an ONNX file.
    `time`, `effort` or `plan` sets the amount of work. With `proof=True`, the network is compared with random cells that get the
    same compute. The arguments are those of `search`. Raises RapdartsError.
    """
    given = find_experiment("find", experiment, settings, keys, run, resume, in_memory=data is not None)
    config = given.config
    check_findable(config, given.pairs, given.launch)
    with reserved("find", given.launch, given.called, config) as place:
        own, config = searched(config, space)
        from rapdarts.loops.finding import run_find
        from rapdarts.loops.in_programs import as_it_was, reader_of
        from rapdarts.training.log import Screen

        read = reader_of(config, data, test)
        with as_it_was():
            return run_find(config, own, place, given.called, space, read, Screen(silent=not progress))


def check_findable(config: Experiment, pairs: Pairs, launch: Launch) -> None:
    """Raise InputError for an experiment without a budget, and for keys that `find` sets itself."""
    if not budget_limits(config.search.budget):
        raise InputError(_no_budget(launch))
    if config.search.strategy == "random":
        raise InputError(
            "search.strategy=random does not search for a cell; choose pdarts or darts, or use rapdarts search."
        )
    if config.search.replicas != 1:
        raise InputError(
            f"rapdarts find does not use search.replicas={config.search.replicas}; set find.replicas={config.search.replicas} instead."
        )
    if config.find.proof and config.search.relax.stop_ratio:
        raise InputError("find.proof=true needs searches of a fixed length; set search.relax.stop_ratio=0.")
    planned = [
        key for key, name in keys_given_in("rank", pairs, "find").items() if name in ("rank.count", "rank.epochs")
    ]
    if planned:
        raise InputError(
            f"rapdarts find sets {planned[0]} itself; leave it out, and set find.effort, find.time or find.plan instead."
        )


def _no_budget(launch: Launch) -> str:
    """Return the message for settings without a budget; a run to resume already has one."""
    folder, example = Path(launch.run), "such as budget.params=100k or budget.macs=5M"
    if not launch.resume:
        return f"rapdarts find needs a budget; add one, {example}."
    if begun(folder) and verb_of(folder):
        return (
            f"the budget of the run in {folder} is missing from this command; resume it with {resuming(folder)}, or repeat the whole"
            " command with resume=true."
        )
    return f"{folder} contains no run to resume; check its path. To start a new run there, add a budget, {example}."

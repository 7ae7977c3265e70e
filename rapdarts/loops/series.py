"""Retraining of several networks, one after the other, in a run that continues if the training of a network diverges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rapdarts.config.experiment import Experiment, RetrainConfig
from rapdarts.data.dataset import DataSet
from rapdarts.deploy.blueprint import Blueprint
from rapdarts.errors import DivergedError, plural
from rapdarts.loops.retrain import Trained, retrain, write_network
from rapdarts.training.run import Run


def retrain_once(
    config: Experiment,
    blueprint: Blueprint,
    data: DataSet,
    run: Run,
    folder: str,
    what: str,
    outcome: Callable[[Trained | None], dict[str, Any]],
) -> dict[str, Any]:
    """Retrain a network as a stage of the run, write its files into `folder`, and return its `outcome`.

    The outcome consists of plain values and tensors. If the stage is already finished, the outcome is read from the
    checkpoint. If the training diverges, the result is `outcome(None)` with the reason under "diverged", and no files are
    written. Raises Preempted if a signal stops the run.
    """

    def train() -> dict[str, Any]:
        try:
            trained = retrain(config, blueprint, data, run, what)
        except DivergedError as error:
            return {**outcome(None), "diverged": str(error)}
        write_network(run, folder, trained, blueprint, data)
        return outcome(trained)

    return run.remember(train)


def all_diverged(networks: int, recipe: RetrainConfig) -> DivergedError:
    """Return the error for a series in which the training of every network diverged."""
    return DivergedError(
        f"every training diverged at retrain.lr={recipe.lr:g} ({plural(networks, 'network')})."
        " Lower the learning rate, and start a new run with run=PATH."
    )

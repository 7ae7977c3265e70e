"""Measurement of a latency table for runs with a price or a budget on latency but without a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.command_options import MeasureConfig
from rapdarts.config.experiment import Experiment, Launch, SearchConfig
from rapdarts.config.resolve import wants_latency
from rapdarts.cost.latency import LatencyTable, read_latency_table
from rapdarts.cost.measure import expected_seconds
from rapdarts.data.dataset import DataSet
from rapdarts.deploy import skeletons
from rapdarts.deploy.latency_table import describe_table, measure_skeleton
from rapdarts.files.run_files import RunFile
from rapdarts.training.claim import check_free
from rapdarts.training.device import device_named
from rapdarts.training.log import Screen

WHERE = "the latency table of this run"


def lacks_table(settings: SearchConfig) -> bool:
    """Return whether latency has a price or a budget, but no table is named."""
    return wants_latency(settings) and not settings.latency


def latency_of_run(
    config: Experiment,
    space: SearchSpace,
    data: DataSet,
    launch: Launch,
    screen: Screen,
    like: Genotype | None = None,
) -> LatencyTable | None:
    """Return a measured latency table if the settings of a run need a table but do not name one; otherwise, return None.

    A resumed run uses the table in its folder. A random baseline uses the skeleton of the genotype `like`.
    """
    if not lacks_table(config.search):
        return None
    folder = Path(launch.run)
    if launch.run and not launch.resume:
        check_free(folder)  # raises before the measurement, which takes minutes
    kept = folder / RunFile.LATENCY
    if launch.run and launch.resume and os.path.isfile(kept):
        return replace(read_latency_table(kept), where=WHERE)
    skeleton, _ = skeletons.to_build(like, config.skeleton, data)
    return measured_first(space, skeleton, config.device, screen)


def measured_first(space: SearchSpace, skeleton: Skeleton, device: str, screen: Screen) -> LatencyTable:
    """Report that latency has to be measured first, and measure a table."""
    screen.say("latency has a price or a budget, but search.latency is not set: measuring this device first")
    return measured_table(space, skeleton, device, screen)


def measured_table(
    space: SearchSpace, skeleton: Skeleton, device: str, screen: Screen, pause: Callable[[], object] = lambda: None
) -> LatencyTable:
    """Measure a table with the default settings of `rapdarts measure`, and print a summary; `pause` is called between rounds."""
    with _threads_restored():
        table = measure_skeleton(space, skeleton, MeasureConfig(device=device), screen, pause)
    screen.say(describe_table(table))
    return replace(table, where=WHERE)


def expected_time(space: SearchSpace, skeleton: Skeleton, device: str) -> float:
    """Return the expected time of `measured_table` in seconds."""
    options = MeasureConfig(device=device)
    with _threads_restored():
        on = device_named(options.device, options.threads)
        return expected_seconds(space, skeleton, on, options.rounds, options.networks)


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Restore the number of CPU threads, which a measurement sets, after the `with` block."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)

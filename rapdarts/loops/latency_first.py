"""Latency tables for runs that price or bound latency without naming a table: they are measured first."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.command_options import MeasureConfig
from rapdarts.config.experiment import Experiment, Launch, SearchConfig
from rapdarts.config.resolve import wants_latency
from rapdarts.cost.latency import LatencyTable, read_latency_table
from rapdarts.data.dataset import DataSet
from rapdarts.deploy import skeletons
from rapdarts.deploy.latency_table import describe_table, measure_skeleton
from rapdarts.files.run_files import RunFile
from rapdarts.training.folder import check_free
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
    """Return a measured latency table for a run whose settings need one but name none; otherwise, return None.

    A resumed run uses the table in its folder. A random baseline builds the skeleton of the genotype that it is `like`.
    """
    if not lacks_table(config.search):
        return None
    folder = Path(launch.run)
    if launch.run and not launch.resume:
        check_free(folder)  # before minutes of measuring
    kept = folder / RunFile.LATENCY
    if launch.run and launch.resume and os.path.isfile(kept):
        return replace(read_latency_table(kept), where=WHERE)
    skeleton, _ = skeletons.to_build(like, config.skeleton, data)
    return measured_first(space, skeleton, config.device, screen)


def measured_first(space: SearchSpace, skeleton: Skeleton, device: str, screen: Screen) -> LatencyTable:
    """Measure a table as `rapdarts measure` does by default, and report it."""
    screen.say("latency has a price or a budget, but search.latency names no table: measuring this device first")
    threads = torch.get_num_threads()
    try:
        table = measure_skeleton(space, skeleton, MeasureConfig(device=device), screen)
    finally:
        torch.set_num_threads(threads)
    screen.say(describe_table(table))
    return replace(table, where=WHERE)

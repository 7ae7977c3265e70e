"""Helpers for runs that a program starts: data from memory, and the state of the process restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rapdarts.config.experiment import Experiment
from rapdarts.data.dataset import DataSet, Reader, build_dataset, build_test_set
from rapdarts.data.in_memory import read_in_memory, read_test_in_memory
from rapdarts.deploy.evaluation import TrainedNetwork
from rapdarts.deploy.run_data import data_to_test
from rapdarts.errors import InputError
from rapdarts.training.device import return_freed_memory


def reader_of(config: Experiment, data: Any, test: Any) -> Reader | None:
    """Return a function that loads a program's data onto a device, or None if `data` is None.

    Raises InputError for `test` without `data`.
    """
    if data is None:
        if test is not None:
            raise InputError("test= is passed without data=; pass data= too, or leave out test=.")
        return None
    read = read_in_memory(config.data, data, test)

    def on_device(device: torch.device) -> DataSet:
        return build_dataset(config.data, read, device, config.seed)

    return on_device


def reader_to_test(network: TrainedNetwork, config: Experiment, data: Any, test: Any) -> Reader | None:
    """Return a function that loads a program's test images for a network onto a device, or None if it passes none.

    Without `data`, all images of `test` are tested; their labels number the classes of the network.
    """
    if data is None and test is None:
        return None
    if data is None:
        alone = read_test_in_memory(config.data, test, network.class_names)
        return lambda device: build_test_set(config.data, alone, device)
    read = read_in_memory(config.data, data, test)
    return lambda device: data_to_test(network.path, config.data, read, device, config.seed)


@contextmanager
def as_it_was() -> Iterator[None]:
    """Restore what training changes in a process: torch's random generators, number of threads and current GPU, and glibc's settings."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    used = torch.cuda.is_initialized()
    gpu, states = (torch.cuda.current_device(), torch.cuda.get_rng_state_all()) if used else (0, [])
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        if torch.cuda.is_initialized():
            torch.cuda.set_device(gpu)
            if used:
                torch.cuda.set_rng_state_all(states)
            else:  # as if the program had used a GPU first
                torch.cuda.manual_seed_all(torch.initial_seed())
        return_freed_memory()

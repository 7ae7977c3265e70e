"""Latency of a single network on this device: a genotype, a reference network, a trained network or the user's own module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rapdarts.config.command_options import CountConfig, MeasureConfig
from rapdarts.config.resources import show
from rapdarts.config.shapes import Inputs, each, shown
from rapdarts.cost.latency import Timing, device_name
from rapdarts.cost.measure import WARM_UP, clock, settled, timer
from rapdarts.cost.trace import trace
from rapdarts.deploy.lookup import Found
from rapdarts.deploy.network_costs import network_of, onnx_file, refuse
from rapdarts.deploy.space_lookup import Space
from rapdarts.deploy.user_network import UserNetwork
from rapdarts.errors import InputError, first_line, plural, ran_out_of_memory
from rapdarts.interruptions import during
from rapdarts.training.device import device_named
from rapdarts.training.log import Screen

OF_ALL = frozenset({"device", "threads", "batch", "rounds"})
"""Keys of `rapdarts measure` that apply to every network."""


@dataclass(frozen=True)
class NetworkLatency:
    """Time of a forward pass in eval mode through a network on this device, for `batch` images or other `inputs`."""

    target: str
    inputs: Inputs
    batch: int
    device: str
    threads: int
    torch: str
    precision: str
    clock: str
    timing: Timing

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as JSON values; times are in seconds."""
        values = {**vars(self), "input": self.inputs, "latency": asdict(self.timing)}
        del values["inputs"], values["timing"]
        return {**values, "images_per_second": self.batch / self.timing.median_s}

    def __repr__(self) -> str:
        low, median, high = (
            show(seconds, "latency") for seconds in (self.timing.p10_s, self.timing.median_s, self.timing.p90_s)
        )
        single = len(each(self.inputs)) == 1 and len(self.inputs) == 3
        batch = f"a batch of {self.batch}" if self.batch > 1 else "one image" if single else "a batch of one"
        rate = f", {self.batch / self.timing.median_s:,.0f} images/s" if self.batch > 1 else ""
        threads = f", {plural(self.threads, 'thread')}" if self.clock != "events" else ""
        return (
            f"{self.target}: {batch} of {shown(self.inputs)} takes {median} (10th to 90th percentile of"
            f" {plural(self.timing.n, 'round')}: {low} to {high}){rate}, in {self.precision} on {self.device}{threads}"
        )


@during("measuring latency")
def measure_network(
    found: Found | nn.Module, options: MeasureConfig, given: Iterable[str], space: Space, screen: Screen
) -> NetworkLatency:
    """Measure the latency of a network; `given` lists the keys that the user set.

    Networks built by rapdarts run as they do after retraining, in channels-last memory format. The user's own network runs
    unchanged. Raises InputError if a key does not apply or the network fails to run.
    """
    if file := onnx_file(found):
        raise InputError(
            f"{file[1]} is an ONNX file, which rapdarts measure does not run; use rapdarts evaluate {file[1]} EXPERIMENT"
            " (in Python, rapdarts.evaluate) instead."
        )
    skeleton = {name: getattr(options, name) for name in ("input", "classes", "layers", "channels", "stem")}
    network, useful = network_of(found, CountConfig(**skeleton), space)
    refuse("measure", given, useful & {*skeleton} | OF_ALL, network.name)
    device = device_named(options.device, options.threads)
    built = network.build()
    run = _call(built, network, found, device, options.batch)
    time_of = timer(device)
    screen.start("measuring", 0, options.rounds)
    try:
        seconds = _seconds(run, time_of, options.rounds, screen)
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        why = first_line(error, type(error).__name__).rstrip(".")
        raise InputError(
            f"{network.name} fails when it runs: {why[:300]}; fix the network or change input=."
        ) from error
    finally:
        screen.stop()
    where = device_name(device), torch.get_num_threads(), torch.__version__
    precision = next((str(one.dtype) for one in built.parameters()), "torch.float32").removeprefix("torch.")
    return NetworkLatency(
        network.name, network.image, options.batch, *where, precision, clock(device), Timing.of(seconds)
    )


def _call(
    built: nn.Module, network: Any, found: Found | nn.Module, device: torch.device, batch: int
) -> Callable[[], object]:
    """Return a function that runs the network on random inputs.

    Raises InputError if the network cannot take such inputs or cannot be moved to the device.
    """
    trace(built, network.image)  # raises with the name of the layer that fails
    own = isinstance(network, UserNetwork)
    try:
        module = copy.deepcopy(built) if isinstance(found, nn.Module) else built
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if not own:
                module = settled(module, network.image)
            dtype = next((one.dtype for one in module.parameters() if one.is_floating_point()), torch.float32)
            inputs = [torch.randn(batch, *shape, dtype=dtype) for shape in each(network.image)]
        module = module.eval().to(device)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if ran_out_of_memory(error):
            raise
        why = first_line(error, type(error).__name__).rstrip(".")
        raise InputError(
            f"{network.name} cannot be copied to {device}: {why[:300]}; use a network that can be copied."
        ) from error
    if not own:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = [one.to(memory_format=torch.channels_last) for one in inputs]
    return partial(_run, module, [one.to(device) for one in inputs])


def _run(module: nn.Module, inputs: list[Tensor]) -> object:
    return module(*inputs)


def _seconds(
    run: Callable[[], object], time_of: Callable[[Callable[[], object]], float], rounds: int, screen: Screen
) -> list[float]:
    with torch.no_grad():
        for _ in range(WARM_UP):
            run()
        found = []
        for _ in range(rounds):
            found.append(time_of(run))
            screen.step()
        return found

"""Latency tables of this device: choice of the skeleton, measurement with progress, and description of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config.command_options import MeasureConfig
from rapdarts.config.experiment import Experiment, image_shape
from rapdarts.config.resources import show
from rapdarts.cost import measure
from rapdarts.cost.latency import LatencyTable, device_name
from rapdarts.data.dataset import load_dataset
from rapdarts.deploy import skeletons
from rapdarts.errors import InputError
from rapdarts.interruptions import during
from rapdarts.training.device import device_named
from rapdarts.training.log import Screen


def measure_space(
    space: SearchSpace, config: Experiment | None, options: MeasureConfig, screen: Screen
) -> tuple[LatencyTable, str]:
    """Measure every primitive of a space in the skeleton of an experiment or of the space.

    The options override values of the skeleton. Returns the table and its description. Raises InputError if the
    experiment's width is auto and the options set no width.
    """
    skeleton = _skeleton(space, config, options, device_named(options.device, options.threads))
    table = measure_skeleton(space, skeleton, options, screen)
    return table, f"{_head(space, skeleton, options)}\n{describe_table(table)}"


@during("measuring latency")
def measure_skeleton(
    space: SearchSpace,
    skeleton: Skeleton,
    options: MeasureConfig,
    screen: Screen,
    pause: Callable[[], object] = lambda: None,
) -> LatencyTable:
    """Measure every primitive of a space in a skeleton. Report the progress, and warn if the table is not reliable.

    `pause` is called between rounds; it may raise an error to stop the measurement.
    """
    device = device_named(options.device, options.threads)
    screen.say(f"measuring {_head(space, skeleton, options)}")
    try:
        rounds = _rounds(options.rounds, screen, pause)
        table = measure.measure(space, skeleton, device, rounds, options.networks, options.batch, options.seed)
    finally:
        screen.stop()
    if not table.check.reliable:
        screen.say("this table predicts latencies poorly: measure again with more rounds, or on a less busy machine")
    return table


def _head(space: SearchSpace, skeleton: Skeleton, options: MeasureConfig) -> str:
    device = device_named(options.device, options.threads)
    shape, cells = "x".join(map(str, skeleton.image)), f"{skeleton.layers} cells x {skeleton.channels} channels"
    where = device_name(device) + (f" with {options.threads} threads" if options.threads > 1 else "")
    return f"{space.name}: {cells}, {shape}, {skeleton.classes} classes, {skeleton.stem} stem, batch size {options.batch}, on {where}"


def describe_table(table: LatencyTable) -> str:
    """Describe a latency table, and how well it predicts the networks measured as a check."""
    check = table.check
    rank = "undefined" if check.spearman is None else f"{check.spearman:.2f}"
    return (
        f"fixed part {show(table.fixed_s, 'latency')}; {len(table.places)} positions of primitives, scaled by {table.scale:.3g}\n"
        f"check: {check.networks} networks outside the calibration take {show(check.fastest_s, 'latency')} to"
        f" {show(check.slowest_s, 'latency')}; rank correlation {rank}, median error {check.median_error:.1%},"
        f" maximum error {check.max_error:.1%}"
        f" (the same network measured again: {check.noise:.1%})"
    )


def _skeleton(space: SearchSpace, config: Experiment | None, options: MeasureConfig, device: torch.device) -> Skeleton:
    """Return the skeleton to measure: from the options, else from the experiment and its data, else from the space."""
    image = image_shape(options.input) if options.input else None
    if config is None:
        base, stem = skeletons.of_space(space), options.stem or "auto"
    else:
        if not (options.channels or config.skeleton.channels):
            raise InputError(
                "skeleton.channels=auto needs a search with budgets; set it to a number, such as channels=16."
            )
        own_image, classes = skeletons.IMAGE, skeletons.CLASSES
        if not (image and options.classes):
            data = load_dataset(config.data, device, config.seed)
            own_image, classes = data.image, data.classes
        base = Skeleton(config.skeleton.layers, options.channels or config.skeleton.channels, own_image, classes)
        stem = options.stem or config.skeleton.stem
    return skeletons.changed(base, options.layers, options.channels, image, options.classes, stem)


def _rounds(count: int, screen: Screen, pause: Callable[[], object]) -> Iterator[int]:
    """Yield the number of each round after a call of `pause`, and show the progress."""
    screen.start("measuring", 0, count)
    for number in range(count):
        pause()
        yield number
        screen.step()
        if (number + 1) % -(-count // 4) == 0:
            screen.epoch(f"round {number + 1}/{count}", number + 1)

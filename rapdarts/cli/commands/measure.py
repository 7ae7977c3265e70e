"""TODO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rapdarts.cli.arguments import Call
from rapdarts.cli.naming import space_asked
from rapdarts.cli.output import answer, write
from rapdarts.config import experiment as configuration
from rapdarts.config import knobs, resolve
from rapdarts.config.commands import MeasureConfig
from rapdarts.config.units import show
from rapdarts.errors import InputError, shorten

if TYPE_CHECKING:
    pass


def measure(call: Call) -> None:
    call.expect(1)
    options = knobs.parse_settings(MeasureConfig, call.pairs)
    if not (Path(options.out).name and Path(options.out).parent.is_dir()):  # said before minutes are spent
        raise InputError(f"out={shorten(options.out)} cannot be written; name a file in a folder that is there.")
    from rapdarts.architecture.space import Skeleton, stem_for
    from rapdarts.cost import latency
    from rapdarts.cost import measure as stopwatch
    from rapdarts.data.dataset import load_dataset
    from rapdarts.training.device import device_named
    from rapdarts.training.log import Screen

    device = device_named(options.device, options.threads)
    config = resolve.resolve_experiment(call.words[0], []) if call.words else None
    space = space_asked(options.space or ("" if call.space else config.search.space if config else "darts"), call.space)
    layers, channels = (config.skeleton.layers, config.skeleton.channels) if config else space.deployment
    layers, channels = options.layers or layers, options.channels or channels
    if not channels:
        raise InputError("skeleton.channels=auto is found by a search within budgets; give a number: channels=16.")
    image, classes = configuration.image_shape(options.input) if options.input else (3, 32, 32), options.classes or 10
    if config and not (options.input and options.classes):
        data = load_dataset(config.data, device, config.seed)
        image, classes = image if options.input else data.image, options.classes or data.classes
    stem = stem_for(options.stem or (config.skeleton.stem if config else "auto"), image)
    skeleton = Skeleton(layers, channels, image, classes, stem)

    shape, cells = "x".join(map(str, image)), f"{layers} cells x {channels} channels"
    where = latency.device_name(device) + (f" with {options.threads} threads" if options.threads > 1 else "")
    head = f"{space.name}: {cells}, {shape}, {classes} classes, {stem} stem, batch {options.batch}, on {where}"
    screen = Screen()
    screen.say(f"measuring {head}")

    def rounds() -> Iterator[int]:
        screen.start("measuring", 0, options.rounds)
        for number in range(options.rounds):
            yield number
            screen.step()
            if (number + 1) % -(-options.rounds // 4) == 0:
                screen.epoch(f"round {number + 1}/{options.rounds}", number + 1)

    try:
        table = stopwatch.measure(space, skeleton, device, rounds(), options.networks, options.batch, options.seed)
    finally:
        screen.stop()
    write(options.out, table.to_json())
    check = table.check
    rank = "undefined" if check.spearman is None else f"{check.spearman:.2f}"
    lines = [
        head,
        f"fixed {show(table.fixed_s, 'latency')}, primitives x {table.scale:.3g}, at {len(table.places)} places",
        f"check: {check.networks} other networks take {show(check.fastest_s, 'latency')} to {show(check.slowest_s, 'latency')};"
        f" rank correlation {rank}, error {check.median_error:.1%} in the median, {check.max_error:.1%} at most"
        f" (the same network, measured again: {check.noise:.1%})",
        f"written to {options.out}",
    ]
    if not check.reliable:
        screen.say("this table prices networks poorly: measure again with more rounds=, or on a quieter machine")
    answer(call, table.head(), "\n".join(lines))

"""Count the costs of networks, layers, search spaces and filter designs, and measure latency."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rapdarts.api.own_space import with_own_resources
from rapdarts.api.process import unchanged_process
from rapdarts.config import resolve
from rapdarts.config.command_options import CountConfig, MeasureConfig
from rapdarts.config.given import AnyPath, Settings, command_options
from rapdarts.config.hardware import HardwareConfig
from rapdarts.config.shapes import Inputs
from rapdarts.deploy import lookup
from rapdarts.deploy.lookup import Network
from rapdarts.deploy.space_lookup import Space, find_space
from rapdarts.files import atomic, seal

if TYPE_CHECKING:
    from rapdarts.cost.layers import NetworkCosts
    from rapdarts.deploy.network_latency import NetworkLatency
    from rapdarts.loops.results import Measured
    from rapdarts.reports.cost_table import Costs


@unchanged_process
@with_own_resources
def costs(
    network: Network,
    image: Inputs | None = None,
    classes: int | None = None,
    *,
    channels: int | None = None,
    layers: int | None = None,
    stem: str | None = None,
    precision: int | None = None,
    hardware: AnyPath | HardwareConfig | None = None,
    space: Space = None,
) -> Costs:
    """Count the costs of a network for one image: macs, params, bytes, activations, traffic, energy (J) and peak_memory (bytes).

    `network` is any module, a genotype in any form that `read` accepts, the result of a run, the name of a reference
    network, or `package.module:callable`. A module with several inputs takes several shapes: `image=((3, 32, 32), (5,))`.
    The skeleton of a genotype is chosen as in `derived`. `precision` is in bits (32, 16 or 8); `hardware` is a file or a
    `HardwareConfig`. In the result, `known_accuracy` holds the published test accuracies (0 to 1) of a NAS-Bench-201 cell by
    data set, and `not_counted` names the operations that have no formula for their MACs. Raises InputError.
    """
    found = lookup.countable(network)
    from rapdarts.deploy.network_costs import cost_of, options_of
    from rapdarts.loops.in_programs import as_it_was
    from rapdarts.reports.cost_table import Costs

    file = hardware if isinstance(hardware, HardwareConfig) else os.fspath(hardware or "")
    asked = {"channels": channels, "layers": layers, "image": image, "classes": classes, "stem": stem}
    options = options_of(any_shape=True, **asked, precision=precision)
    given = [name for name, value in asked.items() if value is not None]
    with as_it_was():
        return Costs(*cost_of(found, options, given, file, lookup.space_of(space, network)))


@unchanged_process
@with_own_resources
def layer_costs(
    networks: Network | Sequence[Network], settings: Settings | None = None, *, space: Space = None, **keys: Any
) -> list[NetworkCosts]:
    """Count the costs of networks layer by layer, as `rapdarts cost` does, with the same keys; `plot` writes bar charts.

    `networks` is a network, or a sequence of networks, in any form that `costs` accepts. Raises InputError.
    """
    options, given = command_options(CountConfig, settings, keys)
    several = networks if isinstance(networks, list | tuple) else [networks]
    found = [lookup.countable(one) for one in several]
    from rapdarts.deploy.network_costs import count_layers
    from rapdarts.loops.in_programs import as_it_was
    from rapdarts.reports import costs as charts
    from rapdarts.reports.plots import picture_to_write

    picture = picture_to_write(options.plot) if options.plot else None
    with as_it_was():
        counted = count_layers(found, options, given, space, " ".join(str(lookup.word_of(one)) for one in several))
    if picture is not None:
        charts.draw_layers(counted, picture)
    return counted


@unchanged_process
@with_own_resources
def space_prices(settings: Settings | None = None, *, space: Space = None, **keys: Any) -> dict[str, Any]:
    """Count the costs of all networks of a search space, as `rapdarts cost space=NAME` does. Return JSON values. Raises InputError."""
    options, given = command_options(CountConfig, settings, keys)
    own = find_space(space, options.space)
    from rapdarts.deploy.network_costs import prices_of_space
    from rapdarts.loops.in_programs import as_it_was

    with as_it_was():
        return prices_of_space(own, options, given)


@unchanged_process
def filter_designs(settings: Settings | None = None, **keys: Any) -> dict[str, Any]:
    """Count the costs of five filter designs for one layer, as `rapdarts cost filters` does. Return JSON values. Raises InputError."""
    options, given = command_options(CountConfig, settings, keys)
    from rapdarts.deploy.network_costs import designs

    return designs(options, given)


@unchanged_process
@with_own_resources
def measure(
    target: Network = "",
    settings: Settings | None = None,
    *,
    space: Space = None,
    progress: bool = True,
    **keys: Any,
) -> Measured | NetworkLatency:
    """Measure the latency of a network, or of every primitive of a space, on this device, as `rapdarts measure` does.

    If `target` is a network in any form that `costs` accepts, return the time of its forward pass. If it is an experiment
    or empty, return the latency table of a space and the path of its file; the experiment sets the skeleton and the images
    unless `keys` set them. Raises InputError.
    """
    options, given = command_options(MeasureConfig, settings, keys)
    experiment = lookup.experiment_named(target)
    if experiment is None:
        return _measure_network(target, options, given, space, progress)
    out = atomic.file_to_write(options.out)
    config = resolve.resolve_experiment(experiment, []) if experiment else None
    own = find_space(space, options.space or ("" if space else config.search.space if config else "darts"))
    from rapdarts.deploy.latency_table import measure_space
    from rapdarts.loops.in_programs import as_it_was
    from rapdarts.loops.results import Measured
    from rapdarts.training.log import Screen

    with as_it_was():
        table, words = measure_space(own, config, options, Screen(silent=not progress))
    atomic.write_atomically(out, seal.seal_json(table.to_json()))
    return Measured(table, out, words)


def _measure_network(
    network: Network, options: MeasureConfig, given: frozenset[str], space: Space, progress: bool
) -> NetworkLatency:
    found = lookup.countable(network)
    from rapdarts.deploy.network_latency import measure_network
    from rapdarts.loops.in_programs import as_it_was
    from rapdarts.training.log import Screen

    with as_it_was():
        return measure_network(found, options, given, lookup.space_of(space, network), Screen(silent=not progress))

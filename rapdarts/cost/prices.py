"""Price tables for the precision, hardware and latency table in the settings of a search."""

from __future__ import annotations

from pathlib import Path

import torch

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config import key_values
from rapdarts.config.experiment import SearchConfig, budget_limits
from rapdarts.config.hardware import HardwareConfig, is_built_in
from rapdarts.config.resources import RESOURCES
from rapdarts.cost.count import Counter, additive, resources
from rapdarts.cost.expected import PriceTable
from rapdarts.cost.latency import LatencyTable, with_latency
from rapdarts.cost.latency import read_latency_table as read_latency
from rapdarts.cost.own_resources import full_price_table
from rapdarts.errors import InputError
from rapdarts.files.yaml import read_yaml


def read_hardware(path: str) -> HardwareConfig:
    """Read hardware energies from a file, or return the defaults if `path` is empty or their name. Raises InputError."""
    if is_built_in(path):
        return HardwareConfig()
    settings = read_yaml(Path(path), example="mac_32: 4.6")
    return key_values.parse_settings(HardwareConfig, [("name", Path(path).stem), *settings], where=path)


def counters(settings: SearchConfig) -> dict[str, Counter]:
    """Return the counters, by resource, for a search's precision and hardware. Raises InputError as `read_hardware` does."""
    return resources(settings.precision, read_hardware(settings.hardware))


def check_priced(settings: SearchConfig, space: SearchSpace, table: PriceTable) -> None:
    """Raise InputError if a price or a budget is set for a resource that the table lacks because it is not defined or not additive."""
    limits = budget_limits(settings.budget)
    for name in {**{name: 0 for name, price in vars(settings.cost).items() if price}, **limits}:
        if name in table.resources or name in RESOURCES:
            continue
        if name not in space.resources:
            raise InputError(
                f"the resource {name} is not defined; use --space with a file that contains RESOURCES = {{{name!r}: function}}."
            )
        why = next(note for note in table.notes if note.startswith(f"{name} is not additive"))
        raise InputError(f"{why}; leave out {'budget' if name in limits else 'cost'}.{name}.")


def prices(
    settings: SearchConfig,
    space: SearchSpace,
    skeleton: Skeleton,
    device: torch.device | None = None,
    measured: LatencyTable | None = None,
) -> PriceTable:
    """Return the prices of every choice for the deployment skeleton, in all additive resources.

    Latency is included if the settings name a latency table, or if a newly measured table is passed as `measured`.
    Raises InputError if a hardware or latency table is invalid, or if the latency table was measured for a different skeleton
    or device. The expected device is the one that `search.latency_of` names, or `device` if that is not set.
    """
    table = full_price_table(space, skeleton, additive(counters(settings)))
    check_priced(settings, space, table)
    if measured is not None:
        return with_latency(table, measured)
    if not settings.latency:
        return table
    latency = read_latency(Path(settings.latency))
    latency.check_fits(space, skeleton, None if settings.latency_of else device)
    if settings.latency_of not in ("", latency.device):
        raise InputError(
            f"{settings.latency} was measured on {latency.device}, not on search.latency_of={settings.latency_of};"
            " correct search.latency_of, or use a table that was measured on that device."
        )
    return with_latency(table, latency)

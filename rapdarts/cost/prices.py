"""Price tables with the precision, hardware and latency that the settings of a search name."""

from __future__ import annotations

from pathlib import Path

import torch

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config import key_values
from rapdarts.config.experiment import HardwareConfig, SearchConfig
from rapdarts.cost.count import Counter, additive, resources
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.cost.latency import LatencyTable, with_latency
from rapdarts.cost.latency import read_latency_table as read_latency
from rapdarts.errors import InputError
from rapdarts.files.yaml import read_yaml


def read_hardware(path: str) -> HardwareConfig:
    """Return the hardware energies in a file, or the defaults for an empty path. Raises InputError if the file is not a hardware table."""
    if not path:
        return HardwareConfig()
    return key_values.parse_settings(HardwareConfig, [("name", Path(path).stem), *read_yaml(Path(path))], where=path)


def counters(settings: SearchConfig) -> dict[str, Counter]:
    """Return the counters, by resource, at a search's precision and hardware. Raises InputError as `read_hardware` does."""
    return resources(settings.precision, read_hardware(settings.hardware))


def prices(
    settings: SearchConfig,
    space: SearchSpace,
    skeleton: Skeleton,
    device: torch.device | None = None,
    measured: LatencyTable | None = None,
) -> PriceTable:
    """Return the prices of every choice at the deployment skeleton, in all additive resources.

    Latency is included if the settings name a latency table, or if `measured` is one that was measured for this purpose.
    Raises InputError if a hardware or latency table is invalid, or if the latency table was measured for another skeleton or
    on another device than `device`. With `search.latency_of`, it must have been measured on the device of that name instead.
    """
    table = price_table(space, skeleton, additive(counters(settings)))
    if measured is not None:
        return with_latency(table, measured)
    if not settings.latency:
        return table
    latency = read_latency(Path(settings.latency))
    latency.check_fits(space, skeleton, None if settings.latency_of else device)
    if settings.latency_of not in ("", latency.device):
        raise InputError(
            f"{settings.latency} was measured on {latency.device}, not on search.latency_of={settings.latency_of};"
            " correct search.latency_of, or use a table of that device."
        )
    return with_latency(table, latency)

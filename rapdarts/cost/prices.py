"""Prices and budgets as an experiment asks for them: what the table holds, which bounds stand, and what width they leave room for."""

from __future__ import annotations

from pathlib import Path

import torch

from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.config import key_values
from rapdarts.config.experiment import HardwareConfig, SearchConfig
from rapdarts.cost.count import Counter, additive, resources
from rapdarts.cost.expected import PriceTable, price_table
from rapdarts.cost.latency import read_latency_table as read_latency
from rapdarts.cost.latency import with_latency
from rapdarts.errors import InputError
from rapdarts.files.yaml import read_yaml


def read_hardware(path: str) -> HardwareConfig:
    """The energies in a file, or the default ones where none is named. Raises InputError for a file that is no such table."""
    if not path:
        return HardwareConfig()
    return key_values.parse_settings(HardwareConfig, [("name", Path(path).stem), *read_yaml(Path(path))], where=path)


def counters(settings: SearchConfig) -> dict[str, Counter]:
    """Every resource that can be counted, as a search asks for it. Raises InputError for a hardware table that is none."""
    return resources(settings.precision, read_hardware(settings.hardware))


def prices(
    settings: SearchConfig, space: SearchSpace, skeleton: Skeleton, device: torch.device | None = None
) -> PriceTable:
    """What every choice costs at the deployment skeleton, in all resources that add up, time included where it was measured.

    Raises InputError for a hardware or latency table that cannot be used, or was measured for another skeleton or,
    unless `search.latency_of` names it, on another device than `device`.
    """
    table = price_table(space, skeleton, additive(counters(settings)))
    if not settings.latency:
        return table
    latency = read_latency(Path(settings.latency))
    latency.check_fits(space, skeleton, None if settings.latency_of else device)
    if settings.latency_of not in ("", latency.device):
        raise InputError(
            f"{settings.latency} was measured on {latency.device}, not on search.latency_of={settings.latency_of}."
        )
    return with_latency(table, latency)

"""Energy of each operation on the hardware that a network is deployed on."""

from __future__ import annotations

from dataclasses import dataclass

from rapdarts.config.key_values import knob


@dataclass(frozen=True)
class HardwareConfig:
    """Energies of arithmetic and memory reads, from the file `search.hardware`. Defaults are for 45 nm at 0.9 V (Horowitz, ISSCC 2014)."""

    name: str = knob("horowitz_45nm", "name of the hardware")
    mac_8: float = knob(0.23, "int8 multiply and add", "pJ", above=0, high=1e12)
    mac_16: float = knob(1.5, "fp16 multiply and add", "pJ", above=0, high=1e12)
    mac_32: float = knob(4.6, "fp32 multiply and add", "pJ", above=0, high=1e12)
    dram_32: float = knob(640.0, "reading 32 bits from DRAM", "pJ", above=0, high=1e12)


def is_built_in(hardware: str) -> bool:
    """Return whether `search.hardware` stands for the defaults: it is empty, or their name, as printed with every energy."""
    return hardware in ("", HardwareConfig().name)

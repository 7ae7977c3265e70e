"""Costs of a network that is given as a graph of operations, such as an ONNX file, without its original modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapdarts.config.hardware import HardwareConfig
from rapdarts.cost.layers import CONVENTIONS, NetworkCosts
from rapdarts.cost.trace import Image


@dataclass(frozen=True)
class GraphCosts(NetworkCosts):
    """Costs of a graph. Only the entries of `costs` are known; the entry `bytes` is the size of the weights in the file. `rows`
    is empty.
    """

    @property
    def figures(self) -> dict[str, float | None]:
        """All figures of a table of costs; unknown figures are None."""
        return {name: self.costs.get(name) for name in CONVENTIONS}

    def to_json(self) -> dict[str, Any]:
        """Return the known costs as JSON values."""
        return {
            "target": self.name,
            **self.costs,
            "input": self.image,
            "classes": self.classes,
            "not_counted": dict(self.not_counted),
            "layers": [],
        }


def graph_costs(
    name: str, image: Image, classes: int, costs: dict[str, float], not_counted: Mapping[str, Sequence[str]]
) -> GraphCosts:
    """Return the costs of a graph that maps images (channels, height, width) to `classes` logits; see `NetworkCosts` for `not_counted`."""
    return GraphCosts(
        name=name,
        image=image,
        classes=classes,
        precision=32,
        hardware=HardwareConfig(),
        costs=costs,
        rows=[],
        modules=[],
        macs_with_bn_relu=0,
        thop="a graph has no modules",
        not_counted=not_counted,
    )

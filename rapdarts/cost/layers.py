"""Costs of a network layer by layer: rows of layers and modules, totals by kind, and alternative counting conventions."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rapdarts.architecture.space import Skeleton
from rapdarts.config.hardware import HardwareConfig
from rapdarts.config.resources import RESOURCES
from rapdarts.config.shapes import Inputs, each
from rapdarts.cost.count import Counter, joules, not_counted, resources
from rapdarts.cost.fast_shapes import FastShapes, parts_of
from rapdarts.cost.quantized import bytes_in_int8_file
from rapdarts.cost.recorder import Op
from rapdarts.cost.trace import remembering, trace
from rapdarts.errors import first_line

LAYERS = ("conv", "linear", "matmul", "pool")
"""Kinds of operations that have their own row."""
MOST_ROWS = 60
"""Number of rows above which the costs are shown by module."""
REST = "(rest)"
"""Name of the row for parameters that no layer reads."""
NUMBERS = ("output", "params", "weights", "biases", "macs")

CONVENTIONS = {resource.name: resource.convention for resource in RESOURCES.values() if resource.count} | {
    "macs_with_bn_relu": "macs, plus 2 per element of batch norms and 1 per element of ReLUs (another convention)",
    "thop_macs": "macs of convolution and linear modules, as counted by thop (thop.profile also counts norms and pools)",
}
"""Description of each figure in a table of costs."""


@dataclass(frozen=True)
class Row:
    """Output elements, parameters and MACs of a layer, or of a module including its submodules.

    `shape` excludes the batch. `weights` and `biases` are those of convolutions and linear layers. `params` also includes the
    parameters of the batch norms after them.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    output: int
    params: int
    weights: int
    biases: int
    macs: int

    @classmethod
    def of(cls, rows: Sequence[Row], layer: str, shape: tuple[int, ...] = ()) -> Row:
        """Merge several rows into one."""
        kind = rows[0].kind if len(rows) == 1 else f"{len(rows)} layers"
        return cls(layer, kind, shape, **{name: sum(getattr(row, name) for row in rows) for name in NUMBERS})


class CountedNetwork(Protocol):
    """Protocol of a network that can be counted, such as a deployment blueprint.

    `image` is (channels, height, width), or the shapes of several inputs. `classes` is 0 if it has to be read from the
    network's output. `build` is called with the meta device as default device, so it allocates no weights.
    """

    @property
    def name(self) -> str: ...

    @property
    def image(self) -> Inputs: ...

    @property
    def classes(self) -> int: ...

    def build(self) -> nn.Module: ...


@dataclass(frozen=True)
class NetworkCosts:
    """Costs of a network at a precision (bits per weight and activation), on hardware with given energies.

    `rows` has one row per layer, `modules` one row per module. `thop` is the number of MACs that the package thop counts, or the
    reason why thop fails. `not_counted` maps each operation that has no MAC formula to its layers. If the precision is 8,
    `int8_file` is the size in bytes of the weights in an 8-bit ONNX file. For a genotype's network, `skeleton` is its skeleton,
    and `auxiliary` is the number of parameters of the auxiliary head that training can add. `known_accuracy` is the published test
    accuracy (0 to 1) of the genotype's cell by data set, or None.
    """

    name: str
    image: Inputs
    classes: int
    precision: int
    hardware: HardwareConfig
    costs: dict[str, float]
    rows: list[Row]
    modules: list[Row]
    macs_with_bn_relu: int
    thop: int | str
    not_counted: Mapping[str, Sequence[str]]
    int8_file: int | None = None
    skeleton: Skeleton | None = None
    auxiliary: int = 0
    known_accuracy: Mapping[str, float] | None = None

    @property
    def short(self) -> list[Row]:
        """Rows by layer, or by module if there are more than MOST_ROWS layers."""
        return self.rows if len(self.rows) <= MOST_ROWS else self.modules

    @property
    def figures(self) -> dict[str, float | None]:
        """All costs that are single numbers; `thop_macs` is None if thop fails."""
        thop = self.thop if isinstance(self.thop, int) else None
        return {**self.costs, "macs_with_bn_relu": self.macs_with_bn_relu, "thop_macs": thop}

    def bytes_of(self, elements: int) -> int:
        """Return the size in bytes of `elements` elements at the precision of these costs."""
        return elements * self.precision // 8

    def to_json(self) -> dict[str, Any]:
        """Return the costs as JSON values, with sizes in bytes at the precision, shares of the MACs (0 to 1) and energies in joules."""
        head: dict[str, Any] = {"target": self.name, **self.costs}
        tail: dict[str, Any] = {"by_kind": self._kinds(), "layers": [self._row(row) for row in self.rows]}
        if self.skeleton:
            head["skeleton"] = vars(self.skeleton)
            tail["auxiliary_head"] = {"params": self.auxiliary}
        if self.known_accuracy:
            head["known_accuracy"] = dict(self.known_accuracy)
        head |= {"input": self.image, "classes": self.classes}
        head |= {"precision": self.precision, "hardware": self.hardware.name}
        head |= {"macs_with_bn_relu": self.macs_with_bn_relu, "thop_macs": self.figures["thop_macs"]}
        head["not_counted"] = dict(self.not_counted)
        if self.int8_file is not None:
            head["bytes_in_int8_file"] = self.int8_file
        return head | ({"thop_error": self.thop} if isinstance(self.thop, str) else {}) | tail

    def _row(self, row: Row) -> dict[str, Any]:
        return {
            "layer": row.layer,
            "kind": row.kind,
            "shape": row.shape,
            "output_bytes": self.bytes_of(row.output),
            "params": row.params,
            "weights": row.weights,
            "biases": row.biases,
            "macs": row.macs,
            "share": row.macs / max(1, self.costs["macs"]),
        }

    def _kinds(self) -> dict[str, dict[str, float]]:
        """Return the costs of convolutions, linear layers and everything else; they add up to the totals."""
        kinds = {}
        whole = Row.of(self.rows, "")
        for kind in ("conv", "linear"):
            part = Row.of([row for row in self.rows if row.kind == kind], "")
            kinds[kind] = replace(part, params=part.weights + part.biases)
        rest = {name: getattr(whole, name) - sum(getattr(part, name) for part in kinds.values()) for name in NUMBERS}
        kinds["other"] = replace(whole, **rest)
        found = {}
        for kind, part in kinds.items():
            arithmetic, reading = joules(part.macs, part.params, self.precision, self.hardware)
            found[kind] = {
                "macs": part.macs,
                "params": part.params,
                "weights": part.weights,
                "output_bytes": self.bytes_of(part.output),
                "energy_macs": arithmetic,
                "energy_weights": reading,
            }
        return found


def network_costs(
    subject: CountedNetwork,
    precision: int,
    hardware: HardwareConfig,
    *,
    skeleton: Skeleton | None = None,
    auxiliary: int = 0,
    known_accuracy: Mapping[str, float] | None = None,
    own: Mapping[str, Counter] = MappingProxyType({}),
) -> NetworkCosts:
    """Count the costs of a network, layer by layer; `skeleton`, `auxiliary` and `known_accuracy` are copied to the result.

    `own` contains the counters of user-defined resources.

    Raises InputError, naming the layer, if the network does not accept the image.
    """
    with torch.device("meta"):
        network = subject.build()
    image = subject.image
    with remembering():
        counters = {**resources(precision, hardware), **own}
        costs = {name: resource(network, image) for name, resource in counters.items()}
        run, missing = trace(network, image), not_counted(network, image)
        int8_file = bytes_in_int8_file(network, image) if precision == 8 else None
    rows = rows_of(network, run.ops)
    norms, relus = (sum(op.size for op in run.ops if op.kind == kind) for kind in ("norm", "relu"))
    return NetworkCosts(
        subject.name,
        image,
        subject.classes or run.sizes[run.output],
        precision,
        hardware,
        costs,
        rows,
        by_module(network, rows, run.ops),
        int(costs["macs"]) + 2 * norms + relus,
        second_opinion(network, image),
        missing,
        int8_file,
        skeleton,
        auxiliary,
        known_accuracy,
    )


def rows_of(network: nn.Module, ops: Iterable[Op]) -> list[Row]:
    """Return a row for every operation of a kind in LAYERS, and for every other layer with parameters that is not folded.

    The parameters of folded layers, mostly batch norms, are added to the row before them, or to the first row. Parameters
    that no operation reads get their own row. Operations outside all submodules have the layer name ''. The products of all
    steps of a recurrent layer, such as an LSTM, are one row.
    """
    left = dict(network.named_parameters())
    rows: list[Row] = []
    early = 0
    for op in ops:
        mine = [left.pop(name) for name in op.parameters if name in left]
        params = _sizes(mine)
        own = bool(mine) and not op.free and not (rows and rows[-1].layer == op.layer)
        if op.kind in LAYERS or own:
            biases = _sizes(parameter for parameter in mine if parameter.dim() < 2)
            weights, biases = (params - biases, biases) if op.macs else (0, 0)
            rows.append(Row(op.layer, op.kind, _of_one(op.shape), op.size, params + early, weights, biases, op.macs))
            early = 0
        elif rows:
            rows[-1] = replace(rows[-1], params=rows[-1].params + params)
        else:
            early += params
    rest = early + _sizes(left.values())
    rows = [*_without_steps(network, rows)]
    return [*rows, Row(REST, "other", (), 0, rest, 0, 0, 0)] if rest else rows


def _without_steps(network: nn.Module, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows in which those of one recurrent layer that follow each other are merged; its shape is left out."""
    for layer, group in groupby(rows, lambda row: row.layer):
        parts = list(group)
        if layer != REST and isinstance(network.get_submodule(layer), nn.RNNBase):
            yield replace(Row.of(parts, layer), kind=parts[0].kind)
        else:
            yield from parts


def _of_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its first dimension if that is the batch of one image."""
    return shape[1:] if shape[:1] == (1,) else shape


def _sizes(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() * parts_of(parameter) for parameter in parameters)


def by_module(network: nn.Module, rows: Sequence[Row], ops: Iterable[Op]) -> list[Row]:
    """Return one row for each module, with the shape of its last operation's output."""
    home = {layer: module_of(network, layer) for layer in {row.layer for row in rows} | {op.layer for op in ops}}
    shapes = {home[op.layer]: _of_one(op.shape) for op in ops}
    modules: dict[str, list[Row]] = {}
    for row in rows:
        modules.setdefault(home[row.layer], []).append(row)
    return [Row.of(inside, name, shapes.get(name, ())) for name, inside in modules.items()]


def module_of(network: nn.Module, layer: str) -> str:
    """Return the name of the outermost module around a layer, such as cells.3 or stem; lists of modules do not count."""
    parts = layer.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        module = network.get_submodule(name)
        list_of_modules = type(module) is nn.Sequential and any(any(part.children()) for part in module)
        if not (list_of_modules or isinstance(module, nn.ModuleList | nn.ModuleDict)):
            return name
    return layer


def second_opinion(network: nn.Module, image: Inputs) -> int | str:
    """Return the MACs of convolutions and linear layers as counted by thop on a copy without weights, or the reason why it fails."""
    tensors = list(chain(network.parameters(), network.buffers()))
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
    pixels = tuple(torch.empty(1, *shape, dtype=dtype, device="meta") for shape in each(image))
    bare = {id(tensor): nn.Parameter(tensor.detach().to("meta"), requires_grad=False) for tensor in tensors}
    try:
        import thop
        from thop.profile import register_hooks

        twin = copy.deepcopy(network, bare)
        free = {kind: _count_nothing for kind in register_hooks if not issubclass(kind, (_ConvNd, nn.Linear))}
        with FastShapes():
            return round(thop.profile(twin, pixels, custom_ops=free, verbose=False)[0])
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"


def _count_nothing(module: nn.Module, given: object, result: object) -> None:
    """Count nothing; used as the hook for layers that have no MACs in our convention."""

"""Files for runtimes that do not need rapdarts: metadata for every format, and functions to write and open .pt2 and .pte files.

A network here is a function from pixels (n, c, h, w), float32 in 0..1, to logits (n, classes). The packages for a format
are optional: they are imported only to write or open such a file, and an error names a missing package.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rapdarts.architecture.genotype import SKELETON
from rapdarts.errors import InputError, installation, printable
from rapdarts.files.json import strict_loads
from rapdarts.interruptions import foreign

Function = Callable[[Tensor], Tensor]
"""Function from pixels (n, c, h, w), float32 in 0..1, to logits (n, classes), float32, both on the CPU."""

EXTRAS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "executorch": ("executorch",)}
"""Packages installed by each extra of `pip install 'rapdarts[EXTRA]'`."""

TRACED = 2
"""Batch size for tracing a network with a dynamic batch size. With a single image, torch would treat the batch size as a constant."""

PT2_FACTS = "rapdarts.json"
"""Name of the file with the facts inside a .pt2 archive."""


@dataclass(frozen=True)
class Facts:
    """Metadata of a file: the image (channels, height, width), the classes in the order of the logits, a description, and a licence."""

    image: tuple[int, int, int]
    class_names: tuple[str, ...]
    network: str = ""
    licence: str = ""

    @property
    def texts(self) -> dict[str, str]:
        """The facts as strings by name, for the metadata of a file; lists are encoded as JSON."""
        texts = {
            "image": json.dumps(self.image),
            # Undecodable bytes in the name of a folder cannot be written as text.
            "class_names": json.dumps(self.class_names, ensure_ascii=not "".join(self.class_names).isprintable()),
            "pixels": "float32 in 0..1; the normalisation is part of the network",
            "network": self.network,
            "licence": self.licence,
        }
        return {key: printable(value, lines=True) for key, value in texts.items() if value}


def facts_of(texts: dict[str, str], where: str) -> Facts:
    """Parse the facts in the metadata of a file. Raises InputError if the image or the classes are missing or malformed."""
    try:
        image, names = strict_loads(texts["image"]), strict_loads(texts["class_names"])
        if not (len(image) == 3 and all(type(side) is int and 0 < side <= SKELETON["image"] for side in image)):
            raise ValueError
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise ValueError
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"the metadata of {where} have no valid image and class_names; use a file written by rapdarts export."
        ) from None
    return Facts(tuple(image), tuple(names), texts.get("network", ""), texts.get("licence", ""))


def need(extra: str, what: str) -> None:
    """Raise InputError, with the install command, if a package of an extra is missing; `what` names the feature that needs it."""
    for package in EXTRAS.get(extra, ()):
        try:
            with foreign(), _quiet():
                importlib.import_module(package)
        except ImportError:
            raise InputError(f"{what} needs the package {package}; install it with {installation(extra)}.") from None


# --- opening -----------------------------------------------------------------------------------------------------


def open_pt2(content: bytes) -> Function:
    """Return the network in a .pt2 file given as bytes."""
    with _quiet():
        program = torch.export.load(io.BytesIO(content)).module()
    return torch.no_grad()(program)


def open_executorch(content: bytes) -> Function:
    """Return the network in a .pte file given as bytes, run by the ExecuTorch runtime, one image at a time."""
    need("executorch", "a .pte file")
    from executorch.runtime import Runtime

    with _quiet():
        program = Runtime.get().load_program(content)

    def run(images: Tensor) -> Tensor:
        with _quiet():
            method = program.load_method("forward")
            # The logits are in the method's own memory, which the next image overwrites.
            return torch.cat([method.execute([image.contiguous()])[0].clone() for image in images.split(1)])

    return run


# --- writing -----------------------------------------------------------------------------------------------------


def to_pt2(network: nn.Module, facts: Facts) -> bytes:
    """Export the network with torch.export, for batches of any size, with its facts in `extra/rapdarts.json` of the archive."""
    stream = io.BytesIO()
    with _quiet():
        program = _traced(network, torch.zeros(TRACED, *facts.image), dynamic=True)
        torch.export.save(program, stream, extra_files={PT2_FACTS: json.dumps(facts.texts, ensure_ascii=False)})
    return stream.getvalue()


def to_executorch(network: nn.Module, facts: Facts) -> bytes:
    """Export the network to an ExecuTorch program for one image at a time.

    Operations that XNNPACK supports run on XNNPACK, all others on portable kernels. The batch is one image, because the
    runtime plans its memory ahead and would reserve enough for the largest batch.
    """
    need("executorch", "to=executorch")
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = _traced(network, torch.zeros(1, *facts.image), dynamic=False)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


def _traced(network: nn.Module, images: Tensor, dynamic: bool) -> ExportedProgram:
    """Trace the network into a graph, without notes on the origin of nodes, because they contain file names of this machine."""
    shapes = ({0: Dim("batch", min=1)},) if dynamic else None
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(note, None)
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress stdout, stderr and warnings: these packages print many messages that users cannot act on."""
    _flush()
    level = logging.root.manager.disable
    kept = {number: os.dup(number) for number in (1, 2) if _is_open(number)}
    with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for number in kept:
            os.dup2(nowhere.fileno(), number)
        try:
            yield
        finally:
            _flush()
            for number, descriptor in kept.items():
                os.dup2(descriptor, number)
                os.close(descriptor)
            logging.disable(level)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()

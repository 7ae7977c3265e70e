"""Networks in files that other runtimes run, without rapdarts: ONNX, torch.export and ExecuTorch.

A network here is a function of pixels (n, c, h, w), float32 in 0..1, that gives logits (n, classes). The packages behind
a format are extras: they are imported when a file of it is written or opened, and a missing one is named.
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

from rapdarts.errors import InputError
from rapdarts.files.json import strict_loads

Function = Callable[[Tensor], Tensor]
"""Pixels (n, c, h, w), float32 in 0..1, to logits (n, classes), float32, both on the CPU."""

EXTRAS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "executorch": ("executorch",)}
"""The packages that each extra of `pip install 'rapdarts[EXTRA]'` brings."""

TRACED = 2
"""Images in the batch that a network of any batch is traced with; with a single one torch would take 1 for a constant."""

PT2_FACTS = "rapdarts.json"
"""The file inside a .pt2 archive that holds the facts."""


@dataclass(frozen=True)
class Facts:
    """What a file says: the image (channels, height, width), the classes in the order of the logits, and in words what it is."""

    image: tuple[int, int, int]
    class_names: tuple[str, ...]
    network: str = ""
    licence: str = ""

    @property
    def texts(self) -> dict[str, str]:
        """The facts as the texts that a file keeps by name, lists as JSON."""
        texts = {
            "image": json.dumps(self.image),
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "pixels": "float32 in 0..1; the normalisation is part of the network",
            "network": self.network,
            "licence": self.licence,
        }
        return {key: value for key, value in texts.items() if value}


def facts_of(texts: dict[str, str], where: str) -> Facts:
    """The facts that a file keeps. Raises InputError where it says nothing of image and classes."""
    try:
        image, names = strict_loads(texts["image"]), strict_loads(texts["class_names"])
        if not (len(image) == 3 and all(type(side) is int and side > 0 for side in image)):
            raise ValueError
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise ValueError
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"{where} does not say its image and class_names in its metadata; give a file that rapdarts export wrote."
        ) from None
    return Facts(tuple(image), tuple(names), texts.get("network", ""), texts.get("licence", ""))


def need(extra: str, what: str) -> None:
    """Raises InputError, which says what to install, unless all packages of an extra (if any) are there; `what` needs them."""
    for package in EXTRAS.get(extra, ()):
        try:
            with _quiet():
                importlib.import_module(package)
        except ImportError:
            raise InputError(f"{what} needs the package {package}: pip install 'rapdarts[{extra}]'") from None


# --- opening -----------------------------------------------------------------------------------------------------


def open_pt2(content: bytes) -> Function:
    """The network in the bytes of a .pt2 file."""
    with _quiet():
        program = torch.export.load(io.BytesIO(content)).module()
    return torch.no_grad()(program)


def open_executorch(content: bytes) -> Function:
    """The network in the bytes of a .pte file, run by ExecuTorch's own runtime, an image at a time."""
    need("executorch", "a .pte file")
    from executorch.runtime import Runtime

    with _quiet():
        program = Runtime.get().load_program(content)

    def run(images: Tensor) -> Tensor:
        with _quiet():
            method = program.load_method("forward")
            # The logits lie in the method's own memory, which the next image overwrites.
            return torch.cat([method.execute([image.contiguous()])[0].clone() for image in images.split(1)])

    return run


# --- writing -----------------------------------------------------------------------------------------------------


def to_pt2(network: nn.Module, facts: Facts) -> bytes:
    """The network as torch.export keeps it, for batches of any size, with its facts in the archive's `extra/rapdarts.json`."""
    stream = io.BytesIO()
    with _quiet():
        program = _traced(network, torch.zeros(TRACED, *facts.image), dynamic=True)
        torch.export.save(program, stream, extra_files={PT2_FACTS: json.dumps(facts.texts, ensure_ascii=False)})
    return stream.getvalue()


def to_executorch(network: nn.Module, facts: Facts) -> bytes:
    """The network as an ExecuTorch program for one image at a time, on XNNPACK where that knows an operation, portable elsewhere.

    One image, because the runtime plans its memory ahead, and would plan for the largest batch.
    """
    need("executorch", "to=executorch")
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = _traced(network, torch.zeros(1, *facts.image), dynamic=False)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


def _traced(network: nn.Module, images: Tensor, dynamic: bool) -> ExportedProgram:
    """The network as a graph, without the notes on where each node comes from: they name the files of this machine."""
    shapes = ({0: Dim("batch", min=1)},) if dynamic else None
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        for note in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(note, None)
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, nothing is written to stdout and stderr, warnings included: these packages say much that no user can act on."""
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

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
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rapdarts.errors import DamagedError, InputError
from rapdarts.files.json import strict_loads

Function = Callable[[Tensor], Tensor]
"""Pixels (n, c, h, w), float32 in 0..1, to logits (n, classes), float32, both on the CPU."""

EXTRAS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "executorch": ("executorch",)}
"""The packages that each extra of `pip install 'rapdarts[EXTRA]'` brings."""

TRACED = 2
"""Images in the batch that a network of any batch is traced with; with a single one torch would take 1 for a constant."""

PIXELS, LOGITS = "pixels", "logits"
"""What the input and the output of an ONNX file of ours are called."""

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


def onnx_network(path: Path) -> Function:
    """The network in an ONNX file of ours, run by onnxruntime on the CPU.

    Raises InputError where onnxruntime or the file is missing, DamagedError for a file that is not ONNX.
    """
    return open_onnx(_read(path), str(path))


def onnx_facts(path: Path) -> Facts:
    """What an ONNX file says about its network. Raises InputError where it says nothing, and as `onnx_network` does."""
    texts = _session(_read(path), str(path)).get_modelmeta().custom_metadata_map
    return facts_of(texts, str(path))


def open_onnx(content: bytes, where: str = "the ONNX file") -> Function:
    """The network in the bytes of an ONNX file; `where` names it in messages. Raises as `onnx_network` does."""
    session = _session(content, where)
    ends = [session.get_inputs(), session.get_outputs()]
    if [len(end) for end in ends] != [1, 1] or [end[0].type for end in ends] != ["tensor(float)"] * 2:
        raise InputError(
            f"{where} does not take one tensor of float32 to another, as pixels to logits; give one that does."
        )
    (pixels,), (logits,) = ([tensor.name for tensor in end] for end in ends)

    def run(images: Tensor) -> Tensor:
        shape = tuple(images.shape)
        try:
            (found,) = session.run([logits], {pixels: images.numpy()})
        except Exception as error:  # as in `_session`
            raise InputError(f"{where} does not run on images {shape} ({_reason(error)}).") from None
        if found.ndim != 2 or len(found) != len(images):
            raise InputError(
                f"{where} makes {found.shape} of images {shape}, not logits (n, classes) for each of them."
            )
        return torch.from_numpy(found)

    return run


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _session(content: bytes, where: str) -> Any:
    need("onnx", "an ONNX file")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    # A file may name others that hold its weights; from a folder that is none, none of this machine's is read for it.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common class
        raise DamagedError(
            f"{where} is no ONNX file that onnxruntime can run, or is damaged ({_reason(error)})."
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# --- writing -----------------------------------------------------------------------------------------------------


def to_onnx(network: nn.Module, facts: Facts) -> bytes:
    """The network as an ONNX file for batches of any size, with its facts as metadata."""
    need("onnx", "to=onnx")
    traced = torch.zeros(TRACED, *facts.image)
    with _quiet():
        program: Any = torch.onnx.export(
            network,
            (traced,),
            dynamo=True,
            dynamic_shapes=({0: Dim("batch", min=1)},),
            input_names=[PIXELS],
            output_names=[LOGITS],
            verbose=False,
        )
    model = program.model_proto
    # What the exporter notes of every node is three times the weights, and names the files of this machine.
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for part in (*model.graph.initializer, *model.graph.value_info):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    _describe(model, facts)
    return bytes(model.SerializeToString())


def _describe(model: Any, facts: Facts) -> None:
    for key, value in facts.texts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def to_int8(content: bytes, facts: Facts, batches: Iterable[Tensor]) -> bytes:
    """An ONNX file with weights and activations of 8 bits: weights scaled by channel, activations by what `batches` of pixels show.

    Quantised after training by onnxruntime, into pairs of QuantizeLinear and DequantizeLinear; signed on both sides.
    """
    need("onnx", "precision=8")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # what quantize_static asks for
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            pixels = next(self.batches, None)
            return None if pixels is None else {PIXELS: pixels.numpy()}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "quantised"))
        given.write_bytes(content)
        quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantised),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load(str(quantised))
    del model.metadata_props[:]
    _describe(model, facts)
    return bytes(model.SerializeToString())


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

"""ONNX files: writing, quantising and running."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from rapdarts.deploy.onnx_costs import onnx_costs, read_onnx
from rapdarts.deploy.runtimes import TRACED, Facts, Function, _quiet, facts_of, need
from rapdarts.errors import DamagedError, InputError
from rapdarts.files import seal

PIXELS, LOGITS = "pixels", "logits"
"""Names of the input and the output in our ONNX files."""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file written by rapdarts: its metadata, and the costs that can be counted in its graph."""

    path: Path
    image: tuple[int, int, int]
    class_names: tuple[str, ...]
    costs: Mapping[str, float]
    not_counted: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read a file. Raises InputError if the metadata lack the image or the classes, and DamagedError if the file is not ONNX."""
        facts = onnx_facts(path)
        counted = onnx_costs(path)
        return cls(path, facts.image, facts.class_names, counted.amounts, counted.not_counted)

    def open(self, device: torch.device) -> Function:
        """Return the network, run by onnxruntime on the CPU: a function from pixels (n, c, h, w) in 0..1 to logits (n, classes)."""
        return onnx_network(self.path)


def onnx_network(path: Path) -> Function:
    """Return the network in one of our ONNX files, run by onnxruntime on the CPU.

    Raises InputError if onnxruntime or the file is missing, and DamagedError if the file is not ONNX.
    """
    return open_onnx(read_onnx(path), str(path))


def onnx_facts(path: Path) -> Facts:
    """Return the facts in the metadata of an ONNX file. Raises InputError if they are missing, and the errors of `onnx_network`."""
    texts = _session(read_onnx(path), str(path)).get_modelmeta().custom_metadata_map
    facts = facts_of(texts, str(path))
    if seal.KEY not in texts:
        seal.report_unsealed(path)
    return facts


def open_onnx(content: bytes, where: str = "the ONNX file") -> Function:
    """Return the network in an ONNX file given as bytes; `where` names the file in messages. Raises the errors of `onnx_network`."""
    session = _session(content, where)
    ends = [session.get_inputs(), session.get_outputs()]
    if [len(end) for end in ends] != [1, 1] or [end[0].type for end in ends] != ["tensor(float)"] * 2:
        raise InputError(
            f"{where} must have one float32 input (pixels) and one float32 output (logits); use a file written by rapdarts export."
        )
    (pixels,), (logits,) = ([tensor.name for tensor in end] for end in ends)

    def run(images: Tensor) -> Tensor:
        shape = tuple(images.shape)
        try:
            (found,) = session.run([logits], {pixels: images.numpy()})
        except Exception as error:  # as in `_session`
            raise InputError(f"{where} cannot be run on images of shape {shape} ({_reason(error)}).") from None
        if found.ndim != 2 or len(found) != len(images):
            raise InputError(
                f"{where} returns shape {found.shape} for images of shape {shape}, not logits (n, classes)."
            )
        return torch.from_numpy(found)

    return run


def _session(content: bytes, where: str) -> Any:
    need("onnx", "an ONNX file")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    # A file may name other files that hold its weights. A path that is not a folder prevents onnxruntime from reading them.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common class
        raise DamagedError(
            f"{where} is not an ONNX file that onnxruntime can run, or is damaged ({_reason(error)})."
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def to_onnx(network: nn.Module, facts: Facts) -> bytes:
    """Export the network to an ONNX file for batches of any size, with its facts as metadata. Return the bytes of the file."""
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
    # The exporter's notes on every node take three times as much space as the weights and contain file names of this machine.
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for part in (*model.graph.initializer, *model.graph.value_info):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    _describe(model, facts)
    return seal.seal_bytes(model.SerializeToString())


def _describe(model: Any, facts: Facts) -> None:
    for key, value in {seal.KEY: seal.BLANK, **facts.texts}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def to_int8(content: bytes, facts: Facts, batches: Iterable[Tensor]) -> bytes:
    """Quantise an ONNX file to 8-bit weights and activations. Return the bytes of the new file.

    Weights are scaled per channel, and activations by their range on `batches` of pixels, each (n, c, h, w) in 0..1.
    onnxruntime inserts pairs of QuantizeLinear and DequantizeLinear (post-training quantisation); all integers are signed.
    """
    need("onnx", "precision=8")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the interface that quantize_static expects
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
    return seal.seal_bytes(model.SerializeToString())

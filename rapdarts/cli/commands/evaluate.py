"""`evaluate`: accuracy and costs of a trained network in any supported file format."""

from __future__ import annotations

from rapdarts import api
from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer


def evaluate(call: Call) -> None:
    call.expect(2)
    target = call.target("a run folder created by rapdarts retrain, a network.safetensors, or an ONNX file")
    found = api.evaluate(target, call.word(1), call.values, space=call.space_file)
    answer(call, found.report, f"{found!r}")

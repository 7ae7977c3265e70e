"""`measure`: latency of a network, or of the primitives of a space, on this device."""

from __future__ import annotations

from rapdarts import api
from rapdarts.cli.arguments import Call
from rapdarts.cli.output import answer


def measure(call: Call) -> None:
    call.expect(1)
    found = api.measure(call.word(0), call.values, space=call.space_file)
    answer(call, found.to_json(), f"{found!r}")

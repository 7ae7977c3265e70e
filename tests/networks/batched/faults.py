"""Faults planted in kernels that Triton's interpreter runs, and a CPU that passes for a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rapdarts.networks.batched import bundles, verified

OUTPUTS = {
    "_convolve": ["target"],
    "_correlate": ["target"],
    "_split_gradient": ["to_depthwise", "to_pointwise"],
    "_moments": ["sums"],
    "_normalise": ["target", "statistics", "running_mean", "running_var"],
    "_reduce": ["sums"],
    "_input_gradient": ["target"],
    "_pool": ["target"],
    "_pool_backward": ["target"],
    "_store_statistics": ["statistics"],
    "_sum_terms": ["first", "others"],
    "_skip_gradient": ["target"],
    "mean_and_variance": [0, 1],
    "term": [0],
}
"""Kernels, each with the names of the tensors that it writes; functions that kernels call, with the indices of their results."""

KINDS = ("1 % wrong", "not a number", "exception")
FAULTS = [(kernel, kind) for kernel in OUTPUTS for kind in KINDS]


def plant(patch: pytest.MonkeyPatch, kernel: str, kind: str, outputs: Sequence[Any] = ()) -> list[str]:
    """Plant a fault in the `outputs` of a kernel (default: all); return the names of all kernels launched or called from now on."""
    from rapdarts.networks.batched.kernels import norms

    function: Any = type(norms.term)
    run, call, seen = function.run, function.__call__, []
    outputs = outputs or OUTPUTS.get(kernel, [])

    def begin(name: str) -> bool:
        seen.append(name)
        if name == kernel and kind == "exception":
            raise ValueError("this kernel cannot be compiled\nand much more")
        return name == kernel

    factor = {"1 % wrong": 1.01, "not a number": float("nan")}.get(kind, 1.0)

    def faulty_run(self: Any, *given: Any, **options: Any) -> None:
        wrong = begin(self.fn.__name__)
        run(self, *given, **options)
        for name, value in zip(self.arg_names, given, strict=False):
            if wrong and name in outputs:
                value.mul_(factor)

    def faulty_call(self: Any, *given: Any, **options: Any) -> Any:
        wrong = begin(self.fn.__name__)
        result = call(self, *given, **options)
        if not wrong:
            return result
        values = [*result] if isinstance(result, (tuple, list)) else [result]
        values = [value * factor if i in outputs else value for i, value in enumerate(values)]
        return tuple(values) if isinstance(result, (tuple, list)) else values[0]

    patch.setattr(function, "run", faulty_run)
    patch.setattr(function, "__call__", faulty_call)
    return seen


@contextmanager
def cpu_as_gpu(folder: Any) -> Iterator[pytest.MonkeyPatch]:
    """Let a CPU pass for a GPU that can run kernels, with an own cache folder, so that kernels are checked and used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(verified, "refusal", lambda device: "")
        patch.setattr(bundles, "use_kernels", lambda x, channels: x.dtype in (torch.float32, torch.bfloat16))
        patch.setattr(torch.cuda, "get_device_name", lambda device: "Interpreter")
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        verified.failures.cache_clear()
        yield patch
    verified.failures.cache_clear()

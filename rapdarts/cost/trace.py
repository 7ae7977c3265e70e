"""The trace of a network on one image: a record of its operations, from which costs are counted.

The network runs on meta tensors, which have shapes but no values and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rapdarts.cost.recorder import Recorder, Trace
from rapdarts.errors import InputError

Image = tuple[int, int, int]


def trace(network: nn.Module, image: Image) -> Trace:
    """Return the trace of `network`, in eval mode, on one image (channels, height, width); the network is not changed.

    Raises InputError, naming the layer, if the network cannot take such an image or needs the values of its pixels.
    """
    memory = _remembered.get()
    if memory is not None and (id(network), image) in memory:
        return memory[id(network), image]
    modes = [(module, module.training) for module in network.modules()]
    tensors = [*network.named_parameters(), *network.named_buffers()]
    bare = {name: tensor.detach().to("meta") for name, tensor in tensors}
    dtype = next((tensor.dtype for tensor in bare.values() if tensor.is_floating_point()), torch.float32)
    pixels = torch.empty(1, *image, dtype=dtype, device="meta")
    recorder = Recorder(bare, [pixels])
    hooks = recorder.watch(network)
    try:
        with torch.no_grad(), recorder.complex_convolutions(), recorder:
            output = functional_call(network.eval(), bare, (pixels,))
    except Exception as error:
        layer, module = recorder.stack[-1] if recorder.stack else ("", network)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        where = f"layer {layer} ({type(module).__name__})" if layer else f"the network ({type(module).__name__})"
        shape = "x".join(map(str, image))
        raise InputError(
            f"{where} fails on an image of {shape}: {first[:200]}. Pass a different input=CxHxW, or fix the network."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise InputError(f"the network ({type(network).__name__}) returns a {kind}; it must return a tensor of logits.")
    result = recorder.finish(output)
    if memory is not None:
        memory[id(network), image] = result
    return result


_remembered: ContextVar[dict[tuple[int, Image], Trace] | None] = ContextVar("traces", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Trace a network only once within this context, for all callers; the network must not be changed or replaced meanwhile."""
    memory = _remembered.get()
    token = _remembered.set({} if memory is None else memory)
    try:
        yield
    finally:
        _remembered.reset(token)

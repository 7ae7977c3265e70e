"""Trace of a network on one image: a record of its operations, from which costs are counted.

The network runs on meta tensors, which have shapes but no values and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rapdarts.config.shapes import Inputs, each, shown
from rapdarts.cost.recorder import Recorder, Trace
from rapdarts.errors import InputError, first_line

Image = tuple[int, int, int]


def trace(network: nn.Module, image: Inputs) -> Trace:
    """Return the trace of `network`, in eval mode, on one image (channels, height, width); the network is not changed.

    For a network with several inputs, `image` contains the shape of each. Raises InputError, naming the layer, if the
    network does not accept an image of this shape or depends on the values of its pixels.
    """
    memory = _remembered.get()
    if memory is not None and (id(network), image) in memory:
        return memory[id(network), image]
    modes = [(module, module.training) for module in network.modules()]
    tensors = [*network.named_parameters(), *network.named_buffers()]
    bare = {name: tensor.detach().to("meta") for name, tensor in tensors}
    dtype = next((tensor.dtype for tensor in bare.values() if tensor.is_floating_point()), torch.float32)
    inputs = tuple(torch.empty(1, *shape, dtype=dtype, device="meta") for shape in each(image))
    recorder = Recorder(bare, inputs)
    hooks = recorder.watch(network)
    try:
        with torch.no_grad(), recorder.complex_convolutions(), recorder:
            output = functional_call(network.eval(), bare, inputs)
    except Exception as error:
        layer, module = recorder.stack[-1] if recorder.stack else ("", network)
        first = first_line(error, type(error).__name__).rstrip(".")
        where = f"layer {layer} ({type(module).__name__})" if layer else f"the network ({type(module).__name__})"
        what = "inputs" if len(inputs) > 1 else "an image" if inputs[0].dim() == 4 else "an input"
        given = f"{what} of {shown(image)}"
        keys = TWO_INPUTS if isinstance(error, TypeError) and len(inputs) == 1 else ONE_INPUT
        raise InputError(
            f"{where} fails on {given}: {first[:200]}. Pass an input of another shape ({keys}), or fix the network."
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


ONE_INPUT = "input=CxHxW; in Python, image=(C, H, W)"
TWO_INPUTS = "input=CxHxW, or input=CxHxW,N for two inputs; in Python, image=(C, H, W), or image=((C, H, W), (N,))"
"""Keys for the shape of one input, and also of several inputs, in a message that both the command line and Python show."""

_remembered: ContextVar[dict[tuple[int, Inputs], Trace] | None] = ContextVar("traces", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Cache traces within this context, so that each network is traced only once; networks must not be changed or replaced meanwhile."""
    memory = _remembered.get()
    token = _remembered.set({} if memory is None else memory)
    try:
        yield
    finally:
        _remembered.reset(token)

"""Triton's interpreter, corrected where it computes bfloat16 in another way than a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the interpreter round to bfloat16 and multiply matrices of bfloat16 as a GPU does.

    Triton's interpreter (3.9) stores bfloat16 as raw bits. It would multiply these bits as integers, and it rounds numbers to
    bfloat16 towards zero instead of to the nearest.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    product: Any = builder.create_dot
    cast: Any = builder.cast_impl

    def product_in_float32(self: Any, *given: Any) -> Any:
        factors = [self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in given[:2]]
        return product(self, *factors, *given[2:])

    def rounded_first(self: Any, source: Any, dtype: Any) -> Any:
        if source.dtype.scalar == tl.float32 and dtype.scalar == tl.bfloat16:
            nearest = torch.from_numpy(source.data).to(torch.bfloat16).float().numpy()
            source = interpreter.TensorHandle(nearest, source.dtype)
        return cast(self, source, dtype)

    monkeypatch.setattr(builder, "create_dot", product_in_float32)
    monkeypatch.setattr(builder, "cast_impl", rounded_first)

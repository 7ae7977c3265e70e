"""The device asked for is made ready, a GPU with a number as torch's current one."""

from __future__ import annotations

import pytest
import torch

from rapdarts.errors import DeviceError
from rapdarts.training.device import device_named


def test_a_gpu_with_a_number_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches where torch's current device is, whatever device its tensors are on."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("cuda:1", "cuda", "auto", "cpu"):  # without a number it is the current one as it is
        assert device_named(name, 0) == torch.device("cuda" if name == "auto" else name)
    assert current == [torch.device("cuda:1")]


@pytest.mark.parametrize("name", ["cuda:77", "cuda:0"])
def test_one_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(size: int, device: torch.device) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(DeviceError, match=f"device={name} is not there"):
        device_named(name, 0)

"""The requested device is prepared; a GPU with an index becomes torch's current device."""

from __future__ import annotations

import pytest
import torch

from rapdarts.errors import DeviceError
from rapdarts.training.device import device_named


def test_a_gpu_with_an_index_becomes_the_current_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches kernels on torch's current device, whatever device their tensors are on."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("cuda:1", "cuda", "auto", "cpu"):  # without an index, the current device does not change
        assert device_named(name, 0) == torch.device("cuda" if name == "auto" else name)
    assert current == [torch.device("cuda:1")]


@pytest.mark.parametrize("name", ["cuda:77", "cuda:0"])
def test_an_unavailable_device_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(size: int, device: torch.device) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(DeviceError, match=f"device={name} is not available"):
        device_named(name, 0)

"""The requested device is prepared; a GPU with an index becomes torch's current device."""

from __future__ import annotations

import pytest
import torch

from rapdarts.errors import DeviceError
from rapdarts.loops.in_programs import as_it_was
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


@pytest.mark.parametrize("used", [True, False])
def test_a_program_gets_the_random_numbers_of_its_gpu_that_it_would_have_without_a_run(
    used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the run was the first to use the GPU, its generator has to be seeded as torch.manual_seed asked before."""
    calls: list[tuple[str, object]] = []
    ready = [used]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: ready[0])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("device", device)))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["a state"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: calls.append(("states", states)))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: calls.append(("seed", seed)))
    torch.manual_seed(17)
    expected = torch.rand(2)
    torch.manual_seed(17)
    calls.clear()
    with as_it_was():
        torch.manual_seed(3)
        calls.clear()
        ready[0] = True
    assert calls == [("device", 0), ("states", ["a state"]) if used else ("seed", 17)]
    assert torch.equal(torch.rand(2), expected)

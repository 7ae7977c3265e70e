"""Searches with other relaxations: what reaches the supernet and the price, resumed runs, and RobustDARTS' early stopping."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import Mixing, Skeleton
from rapdarts.cli.main import main
from rapdarts.config.experiment import SearchConfig
from rapdarts.deploy.space_lookup import named_space
from rapdarts.loops import search as loop
from rapdarts.loops.curvature import curvature, plain_copy
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.early_stop import EarlyStop, largest_eigenvalue
from rapdarts.strategy.relaxation import Architecture
from rapdarts.strategy.relaxations import relaxation_of
from rapdarts.strategy.relaxations.gumbel import Gumbel
from rapdarts.training.optimizer import set_lr, sgd_for
from tests.loops.test_search import interrupt_and_resume, results, run_search

DARTS = named_space("darts")
SMALL = ["primitives=[none,max_pool_3x3,skip_connect,dil_conv_3x3]", "candidates=[0,2]"]
BATCH = torch.arange(4 * 64.0).sin().view(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])


class Watched(nn.Module):
    """A supernet that records the mixing weights of every pass."""

    def __init__(self, inner: Supernet) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor, mixing: Mixing) -> Tensor:
        self.seen.append(mixing.weights.detach())
        logits: Tensor = self.inner(images, mixing)
        return logits


@pytest.mark.parametrize("unrolled", [False, True])
def test_the_supernet_gets_drawn_weights_and_the_price_expected_ones(unrolled: bool) -> None:
    """All evaluations of the training loss in a second-order step draw the same noise."""
    torch.manual_seed(0)
    settings = replace(SearchConfig(), relaxation="gumbel", unrolled=unrolled)
    supernet = Watched(Supernet(DARTS, Skeleton(3, 4, (1, 8, 8), 3)))
    architecture = Architecture(DARTS, 1.0, relaxation=relaxation_of(settings, DARTS))
    priced: list[Tensor] = []

    def penalty(mixing: Mixing) -> Tensor:
        priced.append(mixing.weights.detach())
        return (mixing.weights * torch.arange(8.0)).sum()

    sgd = sgd_for(supernet, 0.1, 0.9, 3e-4)
    set_lr(sgd, 0.1)
    adam = torch.optim.Adam(architecture.named_parameters(), 0.0, fused=True)
    step = loop.alternation(settings, supernet, architecture, sgd, adam, penalty)  # type: ignore[arg-type]
    facts = step(*BATCH, *BATCH, True)
    alpha = architecture.alpha.detach().requires_grad_()
    assert len(priced) == 1 and torch.equal(priced[0], alpha.softmax(-1))
    (slope,) = torch.autograd.grad((alpha.softmax(-1) * torch.arange(8.0)).sum(), alpha)
    torch.testing.assert_close(facts["price_gradient"][0], slope.norm())
    assert len(supernet.seen) == (5 if unrolled else 2)
    assert all(torch.equal(weights.sort(-1).values, torch.eye(8)[-1].expand(2, 14, 8)) for weights in supernet.seen)
    if unrolled:
        train, search, *sides, _ = supernet.seen
        assert all(torch.equal(train, side) for side in sides) and not torch.equal(train, search)
    assert not torch.equal(supernet.seen[-1], supernet.seen[-2])


@pytest.mark.parametrize(
    "settings",
    [
        ["relaxation=gumbel", "auxiliary_skip=1", "beta_decay=5"],
        pytest.param(["relaxation=dirichlet", "partial_channels=2"], marks=pytest.mark.proof),
        ["relaxation=sigmoid", "search.budget.params=3k"],
    ],
    ids=lambda settings: settings[0].partition("=")[2],
)
def test_an_interrupted_search_resumes_bit_identically(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[float] = []
    begin = Gumbel.begin
    monkeypatch.setattr(Gumbel, "begin", lambda self, progress: (begun.append(progress), begin(self, progress))[1])
    assert run_search(tmp_path / "whole", *SMALL, *settings) == 0
    assert begun == ([0, 1, 0, 1] if "relaxation=gumbel" in settings else [])
    interrupt_and_resume("step 4", tmp_path / "cut", monkeypatch, *SMALL, *settings)
    whole = results(tmp_path / "whole")
    assert results(tmp_path / "cut") == whole
    assert main(["derive", str(tmp_path / "whole"), "--json", f"out={tmp_path / 'again.json'}"]) == 0
    derived, found = (json.loads((tmp_path / name).read_text()) for name in ("again.json", "whole/genotype.json"))
    assert derived["cells"] == found["cells"]


# --- RobustDARTS' early stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [5.0, 1.0, 0.5, 0.0, -1.0, -2.0],
        [1.0, 0.5, 0.0, 0.0, -1.0, -4.0],
        [-1.0, -1.0, -2.0, -3.0, -4.0, -5.0],
        [3.0, *(0.01 * number for number in range(50)), -2.9],
        [2.0, 1.99, *(-0.1 * number for number in range(30)), -9.0],
    ],
)
def test_the_largest_eigenvalue_of_a_quadratic_is_found(values: list[float]) -> None:
    size = len(values)
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    hessian = basis @ torch.diag(torch.tensor(values).double()) @ basis.T
    start = torch.randn(size, generator=generator).double()
    assert largest_eigenvalue(hessian.matmul, start) == pytest.approx(max(values), rel=1e-3)


@pytest.mark.parametrize("batched", [False, True])
def test_the_curvature_is_that_of_the_exact_hessian(batched: bool) -> None:
    torch.manual_seed(0)
    space, skeleton = (
        named_space("nasbench201").only(["skip_connect", "nor_conv_3x3", "avg_pool_3x3"]),
        Skeleton(3, 4, (1, 8, 8), 3),
    )
    plain = Supernet(space, skeleton).double()
    supernet = BatchedSupernet(plain) if batched else plain
    supernet.dropout.rate = 0.3
    architecture = Architecture(space, 0.5).double()
    images, labels = BATCH[0].double(), BATCH[1]
    before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    found = curvature(plain_copy(supernet, space, skeleton), architecture, (images, labels))
    assert all(torch.equal(before[name], buffer) for name, buffer in supernet.named_buffers())

    def gradient(alpha: Tensor) -> Tensor:
        alpha = alpha.detach().requires_grad_()
        loss = cross_entropy(plain(images, architecture.expected(alpha.view(architecture.alpha.shape))), labels)
        return torch.autograd.grad(loss, alpha)[0]

    plain.dropout.rate = 0.0
    at, step = architecture.alpha.detach().flatten(), 1e-6
    shifts = step * torch.eye(len(at), dtype=torch.float64)
    hessian = torch.stack([(gradient(at + shift) - gradient(at - shift)) / (2 * step) for shift in shifts])
    values = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    assert found == pytest.approx(values[-1].item(), rel=1e-2)


def test_a_search_stops_when_the_smoothed_eigenvalue_rises() -> None:
    architecture, stop = Architecture(DARTS), EarlyStop(0.75, window=2)
    for epoch, (value, stops) in enumerate([(9, 0), (1, 0), (1, 0), (1, 0), (1.2, 0), (1.4, 0), (1.5, 1)]):
        # Means of two epochs: 5, 1, 1, 1.1, 1.3, 1.45; 1 / 1.3 = 0.77, but 1.1 / 1.45 = 0.76 and 1 / 1.45 would stop.
        torch.nn.init.constant_(architecture.alpha, epoch)
        if stops:
            value = 1.7
        resumed = EarlyStop(0.75, window=2)
        resumed.load_state_dict(stop.state_dict())
        stop = resumed
        assert stop.observe(value, architecture) == stop.stopped == bool(stops), epoch
    assert (architecture.alpha == 4).all()  # of two epochs before


def test_a_search_does_not_stop_while_the_eigenvalue_is_negative() -> None:
    architecture, stop = Architecture(DARTS), EarlyStop(0.75, window=2)
    assert not any(stop.observe(value, architecture) for value in (-1.0, -1.0, -1.0, -1.0, -3.0, -2.0))


def test_a_stopped_search_returns_the_alphas_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first stage stops after its fourth epoch; the second does not. A resumed run ends with the same bits."""
    given = ["epochs=5", "warmup_epochs=1", "stop_ratio=0.75", "stop_window=1", "batch=20", "data.fraction=0.05"]
    alphas: list[Tensor] = []

    sequence, known = iter([1.0, 1.1, 2.0, *[1.0] * 4]), dict[bytes, float]()

    def value_at(_: Supernet, architecture: Architecture, *given: Any) -> float:
        alphas.append(architecture.alpha.detach().clone())
        at = alphas[-1].numpy().tobytes()
        return known[at] if at in known else known.setdefault(at, next(sequence))

    monkeypatch.setattr(loop, "curvature", value_at)
    assert run_search(tmp_path / "whole", *SMALL, *given) == 0
    assert (
        "stage 1/2 stops early, because the curvature rose; alpha is restored from 1 epoch earlier"
        in capsys.readouterr().err
    )
    whole = results(tmp_path / "whole")
    places = [(record["stage"], record["epoch"], record.get("eigenvalue")) for record in whole["records"]]
    assert places == [
        (0, 0, None),
        (0, 1, 1.0),
        (0, 2, 1.1),
        (0, 3, 2.0),
        (1, 0, None),
        *((1, e, 1.0) for e in (1, 2, 3, 4)),
    ]
    first, second, third = alphas[:3]
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert whole["records"][3]["expected_macs"] == whole["records"][2]["expected_macs"]  # those of the returned alphas
    interrupt_and_resume("epoch 4", tmp_path / "cut", monkeypatch, *SMALL, *given)
    assert results(tmp_path / "cut") == whole


def test_a_search_can_measure_its_curvature(tmp_path: Path) -> None:
    one_stage = [SMALL[0], "layers=[3]", "candidates=[0]", "skip_dropout=[0.3]", "epochs=3"]
    assert run_search(tmp_path, *one_stage, "stop_ratio=0.1", "stop_window=1", "batch=20", "data.fraction=0.05") == 0
    first, *values = [record.get("eigenvalue") for record in results(tmp_path)["records"]]
    assert first is None and len(values) == 2 and all(value != 0 for value in values)

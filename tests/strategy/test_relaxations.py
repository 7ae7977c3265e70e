"""The contract of every relaxation, and what each of them computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv
from torch import Tensor
from torch.nn.functional import one_hot

from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.config import relaxation as config
from rapdarts.config.experiment import SearchConfig
from rapdarts.config.relaxation import RelaxationConfig
from rapdarts.cost.expected import price_table
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import DamagedError, InputError
from rapdarts.loops.search import check_stages
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.alphas import alphas_to_json, read_alphas
from rapdarts.strategy.relaxation import Architecture, mixing_weights
from rapdarts.strategy.relaxations import RELAXATIONS, check_relaxation, relaxation_of
from rapdarts.strategy.relaxations.base import Relaxation
from tests.loops.by_hand import expected_costs
from tests.strategy.test_relaxation import half_open

DARTS = named_space("darts")
SKIP = [name == "skip_connect" for name in DARTS.primitives].index(True)
CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "softmax": ("softmax", {}),
    "gumbel": ("gumbel", {}),
    "soft gumbel": ("gumbel", {"hard": False}),
    "dirichlet": ("dirichlet", {}),
    "sigmoid": ("sigmoid", {}),
    "beta decay": ("softmax", {"beta_decay": 50.0}),
    "auxiliary skip": ("gumbel", {"auxiliary_skip": 1.0}),
}
"""A value of `search.relaxation` and settings of `search.relax`, by name."""

EVERY = pytest.mark.parametrize("case", CASES)


def settings_of(case: str, **more: Any) -> SearchConfig:
    name, relax = CASES[case]
    return replace(SearchConfig(), relaxation=name, relax=RelaxationConfig(**{**relax, **more}))


def architecture_of(case: str, space: SearchSpace = DARTS, edge_weights: bool = False, **more: Any) -> Architecture:
    """Return an architecture in float64 with alphas of deviation 1."""
    torch.manual_seed(0)
    relaxation = relaxation_of(settings_of(case, **more), space)
    return Architecture(space, 1.0, edge_weights, relaxation).double()


def drawn(relaxation: Relaxation, alpha: Tensor, mask: Tensor, seed: int = 1) -> Tensor:
    """Return the weights of a training step with this seed."""
    torch.manual_seed(seed)
    weights: Tensor = relaxation(alpha, mask)
    return weights


# --- the contract ------------------------------------------------------------------------------------------------


def test_every_relaxation_has_a_name_and_every_name_a_relaxation() -> None:
    assert tuple(RELAXATIONS) == config.RELAXATIONS and config.RELAXATIONS[0] == SearchConfig().relaxation == "softmax"
    assert {CASES[case][0] for case in CASES} == set(RELAXATIONS)


@EVERY
@pytest.mark.parametrize("expected", [False, True], ids=["drawn", "expected"])
def test_closed_candidates_have_no_weight_and_no_gradient(case: str, expected: bool) -> None:
    space = half_open()
    architecture = architecture_of(case, space)
    relaxation, alpha, mask = architecture.relaxation, architecture.alpha, torch.as_tensor(space.mask)

    def weights_at(alpha: Tensor) -> Tensor:
        return relaxation.expected(alpha, mask) if expected else drawn(relaxation, alpha, mask)

    weights = weights_at(alpha)
    (gradient,) = torch.autograd.grad((weights * torch.randn(weights.shape)).sum(), alpha)
    assert weights.shape == alpha.shape and (weights >= 0).all()
    assert (weights[~mask] == 0).all() and (gradient[~mask] == 0).all()
    assert gradient[mask].isfinite().all() and (gradient[mask & (mask.sum(-1, keepdim=True) > 1)] != 0).all()
    if case not in ("sigmoid", "auxiliary skip") or (expected and case != "sigmoid"):
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 14, dtype=torch.float64))
    assert torch.equal(weights_at(torch.where(mask, alpha, 1e6)), weights)


@EVERY
def test_expected_weights_draw_nothing_and_are_finite_for_extreme_alphas(case: str) -> None:
    relaxation = relaxation_of(settings_of(case), DARTS)
    mask = torch.as_tensor(DARTS.mask)
    before = torch.get_rng_state()
    for extreme in (0.0, 1e4, -1e4):
        alpha = torch.zeros(mask.shape)
        alpha[..., ::2], alpha[0, 0] = extreme, -1e4
        alpha.requires_grad_()
        weights = relaxation.expected(alpha, mask)
        assert torch.equal(weights, relaxation.expected(alpha, mask)) and torch.equal(before, torch.get_rng_state())
        for found in (weights, *(drawn(relaxation, alpha, mask, seed) for seed in range(5))):
            assert found.isfinite().all()
            assert torch.autograd.grad(found.square().sum(), alpha)[0].isfinite().all()
        torch.set_rng_state(before)


@EVERY
def test_drawn_weights_are_a_function_of_the_seed(case: str) -> None:
    architecture = architecture_of(case)
    first, again, other = (
        drawn(architecture.relaxation, architecture.alpha, architecture.mask, seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (case in ("softmax", "sigmoid", "beta decay"))


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("gumbel", "dirichlet", "auxiliary skip")])
def test_gradients_agree_with_finite_differences_at_fixed_noise(case: str) -> None:
    architecture = architecture_of(case, half_open(), temperature=[1.5, 0.1])
    relaxation, mask = architecture.relaxation, architecture.mask
    alpha = architecture.alpha.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda at: drawn(relaxation, at, mask)[0, :3], (alpha,))
    assert torch.autograd.gradcheck(lambda at: relaxation.expected(at, mask)[0, :3], (alpha,))


@EVERY
def test_the_state_holds_only_alpha_and_the_edges_keep_their_weights(case: str) -> None:
    architecture = architecture_of(case, edge_weights=True)
    assert list(architecture.state_dict()) == [name for name, _ in architecture.named_parameters()] == ["alpha", "beta"]
    edges, expected = architecture().edges, architecture.expected().edges
    assert edges is not None and expected is not None and torch.equal(edges, expected)


@EVERY
def test_alphas_read_back_with_their_relaxation(case: str, tmp_path: Path) -> None:
    path, space = tmp_path / "alphas.json", half_open()
    architecture = architecture_of(case, space).float()
    path.write_text(alphas_to_json(space, Skeleton(3, 4, (1, 8, 8), 10), [architecture]))
    _, _, (again,) = read_alphas(path, DARTS)
    np.testing.assert_array_equal(mixing_weights(again), mixing_weights(architecture))
    tree = json.loads(path.read_text())
    assert tree.get("relaxation", "softmax") == CASES[case][0]
    assert ("relaxation" in tree) == (CASES[case][0] != "softmax")  # files of the default are those of older versions
    path.write_text(json.dumps(tree | {"relaxation": "sparsemax"}))
    with pytest.raises(DamagedError, match="sparsemax"):
        read_alphas(path, DARTS)


@EVERY
def test_no_operation_synchronises_with_the_device(case: str) -> None:
    architecture = architecture_of(case)
    architecture.relaxation.begin(0.5)

    def step() -> None:
        gradients = torch.autograd.grad(architecture().joint.square().sum(), list(architecture.parameters()))
        architecture.regularized(gradients)

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    assert not {event.name for event in profile.events()} & {"aten::item", "aten::nonzero", "aten::lift_fresh"}


# --- single relaxations ------------------------------------------------------------------------------------------


def test_the_default_is_bit_identical_to_a_plain_softmax() -> None:
    space = half_open()
    torch.manual_seed(0)
    default, named = Architecture(space), Architecture(space, relaxation=relaxation_of(SearchConfig(), space))
    expected = torch.softmax(default.alpha.masked_fill(~torch.as_tensor(space.mask), -torch.inf), -1)
    assert torch.equal(default().weights, expected) and torch.equal(default.expected().weights, expected)
    assert type(default.relaxation) is type(named.relaxation) is RELAXATIONS["softmax"]
    gradients = [torch.ones_like(default.alpha)]
    assert default.regularized(gradients) is gradients


def test_gdas_draws_one_candidate_with_the_gradient_of_the_soft_sample() -> None:
    hard, soft = (architecture_of(case, half_open()) for case in ("gumbel", "soft gumbel"))
    for architecture in (hard, soft):
        architecture.relaxation.begin(0.75)
    noise = drawn(soft.relaxation, soft.alpha, soft.mask)
    sample = drawn(hard.relaxation, hard.alpha, hard.mask)
    assert torch.equal(sample, one_hot(noise.argmax(-1), 8).double())  # to the bit
    probe = torch.randn(noise.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad((one * probe).sum(), of.alpha)[0] for one, of in ((noise, soft), (sample, hard))]
    torch.testing.assert_close(*gradients)


def test_the_temperature_falls_linearly_to_one_hot_samples() -> None:
    architecture = architecture_of("soft gumbel", temperature=[10.0, 1e-3])
    relaxation, alpha, mask = architecture.relaxation, architecture.alpha.detach(), architecture.mask
    logits = []
    for progress, temperature in ((0.0, 10.0), (0.25, 7.50025), (1.0, 1e-3)):
        relaxation.begin(progress)
        weights = drawn(relaxation, alpha, mask)
        logits.append(temperature * (weights[..., :1].log() - weights[..., 1:2].log()))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-6, atol=1e-6)  # the difference of two alpha + g
    assert (weights.max(-1).values > 0.99).double().mean() > 0.95
    assert torch.equal(weights.argmax(-1), drawn(relaxation, alpha, mask).argmax(-1))


@pytest.mark.parametrize("case", ["gumbel", "dirichlet"])
def test_expected_weights_are_the_mean_of_the_drawn_ones(case: str) -> None:
    relaxation = relaxation_of(settings_of(case), DARTS)
    alpha, n = torch.tensor([1.2, -0.7, 0.0, -2.0]).double().expand(20_000, -1), 20_000
    mask = torch.tensor([True, True, True, True]).expand_as(alpha)
    samples, expected = drawn(relaxation, alpha, mask), relaxation.expected(alpha, mask)[0]
    concentrations = torch.tensor([2.2, np.exp(-0.7), 1.0, np.exp(-2.0)]).double()
    mean = alpha[0].softmax(-1) if case == "gumbel" else concentrations / concentrations.sum()
    torch.testing.assert_close(expected, mean)
    spread = mean * (1 - mean) / (1 if case == "gumbel" else concentrations.sum() + 1)
    assert ((samples.mean(0) - mean).abs() < 4 * (spread / n).sqrt()).all()
    torch.testing.assert_close(samples.var(0), spread, rtol=0.08, atol=0)


def test_the_gradient_of_a_dirichlet_sample_keeps_its_quantiles() -> None:
    """The pathwise derivative moves a gamma variate such that its distribution function keeps its value."""
    architecture = architecture_of("dirichlet")
    alpha, mask = architecture.alpha.detach()[:1, :1].requires_grad_(), architecture.mask[:1, :1]
    weights = drawn(architecture.relaxation, alpha, mask)

    def shapes(at: np.ndarray) -> np.ndarray:
        return np.where(at > 0, at + 1, np.exp(np.minimum(at, 0)))

    at, step = alpha.detach().numpy(), 1e-5
    torch.manual_seed(1)
    quantile = gammainc(shapes(at) + 1, torch._standard_gamma(torch.as_tensor(shapes(at)) + 1).numpy())
    uniform = torch.rand_like(alpha).numpy()

    def weights_at(at: np.ndarray) -> np.ndarray:
        variates = gammaincinv(shapes(at) + 1, quantile) * (1 - uniform) ** (1 / shapes(at))
        return np.asarray(variates / variates.sum(-1, keepdims=True))

    np.testing.assert_allclose(weights.detach().numpy(), weights_at(at), rtol=1e-8)
    for column in range(3):
        (gradient,) = torch.autograd.grad(weights[0, 0, column], alpha, retain_graph=True)
        for moved in range(8):
            shift = step * np.eye(8)[moved]
            slope = (weights_at(at + shift) - weights_at(at - shift))[0, 0, column] / (2 * step)
            assert gradient[0, 0, moved].item() == pytest.approx(slope, rel=2e-3, abs=1e-6)


def test_gates_are_independent_and_pulled_to_0_and_1() -> None:
    architecture = architecture_of("sigmoid", zero_one=3.0)
    relaxation = architecture.relaxation
    alpha, mask = torch.tensor([[[0.0, np.log(3.0), -np.log(3.0), 50.0]]]), torch.tensor([[[True, True, True, False]]])
    alpha = alpha.double().requires_grad_()
    torch.testing.assert_close(relaxation(alpha, mask).detach(), torch.tensor([[[0.5, 0.75, 0.25, 0.0]]]).double())
    loss = relaxation.regularizer(alpha, mask)
    assert loss is not None and loss.item() == pytest.approx(-3 * (0 + 1 / 16 + 1 / 16) / 3)
    (gradient,) = torch.autograd.grad(loss, alpha)
    slope = 2 * 0.25 * 0.1875  # of (gate - 1/2)^2 at a gate of 3/4
    torch.testing.assert_close(gradient, torch.tensor([[[0.0, -slope, slope, 0.0]]]).double())
    assert architecture_of("sigmoid", zero_one=0.0).relaxation.regularizer(alpha, mask) is None


def test_the_price_of_gates_is_that_of_the_network_that_would_be_derived() -> None:
    """E[cost] compares the gates into a node with each other: it does not change if all of them shrink."""
    table = price_table(DARTS, Skeleton(3, 4, (1, 8, 8), 10))
    mixing = architecture_of("sigmoid").expected().detach()
    torch.testing.assert_close(table.expected(mixing), expected_costs(table, mixing))
    torch.testing.assert_close(table.expected(Mixing(mixing.weights / 7)), table.expected(mixing))
    assert float(mixing.weights.sum(-1).min()) > 1.5  # far from rows that sum to 1


# --- additions ---------------------------------------------------------------------------------------------------


def test_the_auxiliary_skip_is_only_in_the_training_step_and_decays() -> None:
    plain, with_skip = (architecture_of("soft gumbel", half_open(), **more) for more in ({}, {"auxiliary_skip": 2.0}))
    mask = with_skip.mask
    for progress, weight in ((0.0, 2.0), (0.25, 1.5), (1.0, 0.0)):
        for architecture in (plain, with_skip):
            architecture.relaxation.begin(progress)
        one, other = (drawn(of.relaxation, of.alpha, mask) for of in (plain, with_skip))
        added = torch.zeros_like(one)
        added[..., SKIP] = weight * mask[..., SKIP]
        assert torch.equal(other, one + added)
        assert torch.equal(with_skip.expected().weights, plain.expected().weights)


@pytest.mark.parametrize("base", ["softmax", "gumbel"])
def test_the_beta_decay_rises_linearly_and_adds_a_softmax_to_the_gradient(base: str) -> None:
    architecture = architecture_of(base, half_open(), beta_decay=14.0)
    given = [torch.randn(architecture.alpha.shape).double()]
    for progress in (0.0, 0.5, 1.0):
        architecture.relaxation.begin(progress)
        (found,) = architecture.regularized(given)
        added = 14 * progress / 28 * architecture.expected().weights  # of 2 x 14 edges
        torch.testing.assert_close(found, given[0] + added)


def test_a_regularizer_leaves_the_gradient_of_edge_weights_alone() -> None:
    architecture = architecture_of("beta decay", edge_weights=True)
    architecture.relaxation.begin(1.0)
    given = [torch.zeros_like(parameter) for parameter in architecture.parameters()]
    alpha, beta = architecture.regularized(given)
    assert alpha.abs().max() > 0 and beta is given[1]


# --- supernets and refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["gumbel", "auxiliary skip", "sigmoid"])
def test_both_supernets_compute_the_same_with_drawn_weights(case: str) -> None:
    """A weight of 0 still has a gradient, and weights need not sum to 1."""
    torch.manual_seed(0)
    plain = Supernet(DARTS, Skeleton(3, 4, (1, 8, 8), 3)).double()
    architecture, images = architecture_of(case), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    found = []
    for supernet in (plain, BatchedSupernet(plain)):
        torch.manual_seed(1)
        logits = supernet(images, architecture())
        found.append([logits, *torch.autograd.grad(logits.square().sum(), architecture.alpha)])
    assert found[0][1].abs().max() > 1e-3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "case, changes, more, words",
    [
        ("sigmoid", {"partial_channels": 4}, {}, "set search.partial_channels=1, or choose a different relaxation"),
        ("sigmoid", {}, {"beta_decay": 1.0}, "search.relaxation=sigmoid has none; set search.relax.beta_decay=0"),
        ("dirichlet", {}, {"beta_decay": 1.0}, "search.relaxation=dirichlet has none; set search.relax.beta_decay=0"),
        ("gumbel", {}, {"temperature": [1.0]}, "must be two values, the larger one first"),
        ("gumbel", {}, {"temperature": [1.0, 2.0]}, "must be two values, the larger one first"),
        (
            "softmax",
            {"epochs": 19},
            {"stop_ratio": 0.75},
            "compares two windows of 5 epochs, but a stage trains alpha for 9",
        ),
    ],
)
def test_contradictions_are_refused(case: str, changes: dict[str, Any], more: dict[str, Any], words: str) -> None:
    settings = replace(settings_of(case, **more), **changes)
    with pytest.raises(InputError, match=words):
        check_stages(settings, DARTS)


def test_spaces_that_a_relaxation_does_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="gate has no effect on the loss"):
        check_relaxation(settings_of("sigmoid"), named_space("nasbench201"))
    check_relaxation(settings_of("sigmoid"), named_space("nasbench201").deriving_none(False))
    with pytest.raises(InputError, match="needs the candidate skip_connect"):
        check_relaxation(settings_of("auxiliary skip"), DARTS.only(["none", "max_pool_3x3", "sep_conv_3x3"]))
    for case in CASES:
        check_relaxation(settings_of(case), DARTS)

"""Architecture parameters and their mixing weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rapdarts.architecture.space import SearchSpace
from rapdarts.deploy.space_lookup import named_space
from rapdarts.strategy.relaxation import Architecture

DARTS = named_space("darts")


def half_open() -> SearchSpace:
    mask = np.random.default_rng(0).random(DARTS.mask.shape) < 0.5
    mask[..., 3] = True
    mask[0, 0] = False
    mask[0, 0, 6] = True  # a single candidate
    return DARTS.narrowed(mask)


@pytest.mark.parametrize(
    "name, shape", [("darts", (2, 14, 8)), ("filters", (2, 14, 12)), ("nasnet", (2, 20, 8)), ("nasbench201", (1, 6, 5))]
)
def test_weights_are_the_softmax_of_each_edge(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    architecture = Architecture(named_space(name), deviation=1.0)
    weights = architecture().weights
    assert weights.shape == architecture.alpha.shape == shape
    exponentials = architecture.alpha.detach().exp()
    torch.testing.assert_close(weights, exponentials / exponentials.sum(-1, keepdim=True))


def test_closed_candidates_have_no_weight_and_no_gradient() -> None:
    space = half_open()
    torch.manual_seed(0)
    architecture = Architecture(space, deviation=1.0)
    weights = architecture().weights
    (weights * torch.randn(weights.shape)).sum().backward()
    open_, gradient = torch.as_tensor(space.mask), architecture.alpha.grad
    assert gradient is not None and gradient.isfinite().all()
    assert (weights[~open_] == 0).all() and (gradient[~open_] == 0).all()
    assert (weights[open_] > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 14))
    assert weights[0, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 0]
    several = open_ & (open_.sum(-1, keepdim=True) > 1)
    assert (gradient[several] != 0).all()
    # Entries of closed candidates have no effect.
    with torch.no_grad():
        architecture.alpha[~open_] += 1e6
    assert torch.equal(architecture().weights, weights)


def test_the_gradient_is_that_of_the_softmax() -> None:
    architecture = Architecture(half_open(), deviation=1.0).double()
    alpha = architecture.alpha.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda at: torch.func.functional_call(architecture, {"alpha": at}, ()).weights[0, :3], (alpha,)
    )


def test_weights_and_gradients_of_extreme_alphas_are_finite() -> None:
    architecture = Architecture(DARTS)
    with torch.no_grad():
        architecture.alpha[..., 4] = 1e4
    weights = architecture().weights
    assert (weights[..., 4] == 1).all() and weights.isfinite().all()
    weights.square().sum().backward()
    assert architecture.alpha.grad is not None and architecture.alpha.grad.isfinite().all()


def test_initial_alphas_have_the_given_deviation() -> None:
    torch.manual_seed(0)
    alpha = Architecture(DARTS).alpha.detach()
    assert alpha.std().item() == pytest.approx(1e-3, rel=0.15)
    assert Architecture(DARTS, deviation=0.0).alpha.abs().max() == 0
    torch.manual_seed(0)
    assert torch.equal(Architecture(DARTS).alpha, alpha)


def test_the_state_holds_only_alpha() -> None:
    """The mask belongs to the space, so a checkpoint does not hold it."""
    assert list(Architecture(DARTS).state_dict()) == ["alpha"]
    assert [name for name, _ in Architecture(DARTS).named_parameters()] == ["alpha"]
    assert Architecture(DARTS)().edges is None


# --- edge normalisation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_edge_weights_into_each_node_sum_to_1(name: str) -> None:
    space = named_space(name)
    torch.manual_seed(0)
    architecture = Architecture(space, 1.0, edge_normalization=True)
    edges = architecture().edges
    assert architecture.beta is not None and edges is not None
    assert edges.shape == architecture.beta.shape == space.mask.shape[:2]
    for node in range(space.nodes):
        beta = architecture.beta.detach()[:, space.edges_into(node)].exp()
        torch.testing.assert_close(edges[:, space.edges_into(node)], beta / beta.sum(-1, keepdim=True))


def test_beta_is_drawn_after_alpha_with_the_same_deviation() -> None:
    torch.manual_seed(0)
    alone = Architecture(DARTS)
    torch.manual_seed(0)
    both = Architecture(DARTS, edge_normalization=True)
    assert torch.equal(both.alpha, alone.alpha)
    assert both.beta is not None and both.beta.std().item() == pytest.approx(1e-3, rel=0.4)
    assert list(both.state_dict()) == [name for name, _ in both.named_parameters()] == ["alpha", "beta"]


def test_the_gradients_of_joint_weights_are_exact() -> None:
    """The joint weight of a candidate, which prices and pruning read, is its own weight times that of its edge."""
    architecture = Architecture(half_open(), 1.0, edge_normalization=True).double()
    mixing = architecture()
    assert mixing.edges is not None
    assert torch.equal(mixing.joint, mixing.weights * mixing.edges[:, :, None])
    parameters = [parameter.detach().clone().requires_grad_() for parameter in architecture.parameters()]
    assert torch.autograd.gradcheck(
        lambda alpha, beta: torch.func.functional_call(architecture, {"alpha": alpha, "beta": beta}, ()).joint[0, :5],
        parameters,
    )

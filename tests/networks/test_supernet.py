"""The supernet compared with manual sums, the derived network, and the weight counts of the papers' code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rapdarts.architecture.genotype import one_hot, random_genotype
from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.derived import DerivedNetwork
from rapdarts.networks.layers import FactorizedReduce, ResidualBlock
from rapdarts.networks.primitives import Zero
from rapdarts.networks.supernet import MixedOp, SkipDropout, Supernet
from tests import spaces

DARTS, BENCH = named_space("darts"), named_space("nasbench201")
SMALL = Skeleton(3, 4, (3, 8, 8), 10)
KINDS_OF_SMALL = [0, 1, 1]  # one normal cell, then reductions at 3//3 and 2*3//3


def mixing_of(space: SearchSpace, seed: int = 0) -> Mixing:
    """Return random mixing weights over the candidates in float64."""
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.randn(space.mask.shape, generator=generator, dtype=torch.float64)
    return Mixing(torch.softmax(alpha.masked_fill(~torch.as_tensor(space.mask), -torch.inf), -1))


def supernet_of(space: SearchSpace, skeleton: Skeleton = SMALL) -> Supernet:
    torch.manual_seed(0)
    return Supernet(space, skeleton).double()


def cells_of(network: nn.Module) -> list[Any]:
    return list(network.get_submodule("cells").children())


@pytest.fixture(scope="module")
def shared() -> Supernet:
    return supernet_of(DARTS)


@pytest.fixture
def supernet(shared: Supernet) -> Iterator[Supernet]:
    """Yield a small supernet of the space `darts` in training mode, without dropout; the tests share its weights."""
    yield shared
    shared.train()
    shared.dropout.rate = 0.0


def images_of(skeleton: Skeleton = SMALL, batch: int = 4) -> Tensor:
    return torch.randn(batch, *skeleton.image, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def no_dropout(y: Tensor) -> Tensor:
    return y


def weights_in(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


# --- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers, expected", [(5, 1_275_834), (8, 1_930_618), (11, 2_585_146), (17, 3_894_202)])
def test_weight_count(layers: int, expected: int) -> None:
    with torch.device("meta"):
        supernet = Supernet(DARTS, Skeleton(layers, 16, (3, 32, 32), 10))
    assert weights_in(supernet) == expected


def test_only_layers_have_parameters(supernet: Supernet) -> None:
    owners = {type(module) for module in supernet.modules() if list(module.parameters(recurse=False))}
    assert owners == {nn.Conv2d, nn.Linear, nn.BatchNorm2d}
    # Only the batch norms of the stem are affine.
    assert weights_in(supernet.stem) == 27 * 12 + 2 * 12
    norms = [module for cell in cells_of(supernet) for module in cell.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.affine for norm in norms)


def test_only_batch_norms_of_the_fixed_parts_are_affine() -> None:
    supernet = supernet_of(BENCH, Skeleton(5, 4, (3, 8, 8), 10))
    assert [type(cell) is ResidualBlock for cell in cells_of(supernet)] == [False, True, False, True, False]
    for cell in cells_of(supernet):
        norms = [module for module in cell.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms and {norm.affine for norm in norms} == {isinstance(cell, ResidualBlock)}
    assert weights_in(supernet.stem) == 27 * 4 + 2 * 4
    assert weights_in(supernet.classifier) == 2 * 16 + 16 * 10 + 10


def test_a_narrowed_space_builds_only_its_candidates(supernet: Supernet) -> None:
    mask = np.zeros_like(DARTS.mask)
    rng = np.random.default_rng(0)
    for kind, edge in np.ndindex(*mask.shape[:2]):
        mask[kind, edge, rng.permutation(8)[:3]] = True
    space = DARTS.narrowed(mask)
    narrowed = supernet_of(space)
    for cell, full_cell, kind in zip(cells_of(narrowed), cells_of(supernet), KINDS_OF_SMALL, strict=True):
        for mixed, full_mixed, names in zip(cell.edges, full_cell.edges, space.candidates[kind], strict=True):
            assert len(names) == 3
            assert list(mixed.ops) == [name for name in names if name != "none"]
            for name, op in mixed.ops.items():
                assert weights_in(op) == weights_in(full_mixed.ops[name])
    y = narrowed(images_of(), mixing_of(space))
    assert y.shape == (4, 10) and y.isfinite().all()


def test_an_edge_with_only_none_returns_zeros_of_the_right_size() -> None:
    mixed = MixedOp(DARTS, ("none",), 4, 2)
    assert [type(op) for op in mixed.ops.values()] == [Zero]
    assert torch.equal(mixed(torch.ones(2, 4, 7, 5), torch.ones(8), no_dropout), torch.zeros(2, 4, 4, 3))


# --- forward pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", spaces.NAMES)
def test_forward_is_the_weighted_sum(name: str) -> None:
    space = named_space(name)
    supernet, mixing, images = supernet_of(space), mixing_of(space), images_of()

    older = newer = supernet.stem.older(images)
    for cell, kind in zip(cells_of(supernet), KINDS_OF_SMALL, strict=True):
        if kind and space is BENCH:
            newer = cell.convolutions(newer) + cell.shortcut(newer)
            continue
        states = [newer] if space is BENCH else [cell.older(older), cell.newer(newer)]
        for node in range(space.nodes):
            total = torch.zeros(())
            for edge, (into, source) in enumerate(space.edges):
                if into == node:
                    for column, primitive in enumerate(space.primitives):
                        if primitive != "none":
                            y = cell.edges[edge].ops[primitive](states[source])
                            total = total + mixing.weights[kind, edge, column] * y
            states.append(total)
        older, newer = newer, states[-1] if space is BENCH else torch.cat(states[2:], 1)
    newer = supernet.classifier.activation(newer)
    expected = newer.mean((2, 3)) @ supernet.classifier.linear.weight.T + supernet.classifier.linear.bias

    torch.testing.assert_close(supernet(images, mixing), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_edge_with_one_hot_weights_computes_that_primitive(stride: int) -> None:
    torch.manual_seed(0)
    space = named_space("filters")
    mixed = MixedOp(space, space.candidates[0][0], 8, stride)
    x = torch.randn(2, 8, 6, 6)
    for column, name in enumerate(space.primitives):
        weights = torch.zeros(12)
        weights[column] = 1
        y = mixed(x, weights, no_dropout)
        expected = torch.zeros_like(y) if name == "none" else mixed.ops[name](x)
        assert torch.equal(y, expected), name


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_partial_channels(stride: int, size: tuple[int, int]) -> None:
    """A quarter of the channels is mixed, and the rest is max-pooled (here, by a loop); every fourth output channel is a mixed one."""
    torch.manual_seed(0)
    mixed = MixedOp(DARTS, DARTS.candidates[0][0], 8, stride, partial=4)
    x, weights = torch.randn(2, 8, *size), torch.rand(8)
    ops = sum(weights[DARTS.columns[name]] * op(x[:, :2]) for name, op in mixed.ops.items())
    assert isinstance(ops, Tensor) and len(mixed.ops) == 7
    rows, columns = (-(-side // stride) for side in size)
    around = torch.empty(2, 6, rows, columns)
    for row, column in np.ndindex(rows, columns):
        window = x[:, 2:, row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
        around[:, :, row, column] = window.amax((2, 3))
    y = mixed(x, weights, no_dropout)
    assert y.shape == (2, 8, rows, columns)
    for channel in range(8):
        place, group = divmod(channel, 4)
        expected = ops[:, place] if group == 0 else around[:, 2 * (group - 1) + place]
        torch.testing.assert_close(y[:, channel], expected)


@pytest.mark.parametrize("space", [DARTS, BENCH], ids=lambda space: space.name)
def test_edge_weights_scale_the_edges_of_a_node(space: SearchSpace) -> None:
    """An edge weight scales all outputs of the edge, including the channels that bypass the mixed operation."""
    torch.manual_seed(0)
    supernet = Supernet(space, Skeleton(3, 8, (3, 8, 8), 10), partial=4).double()
    mixing = mixing_of(space)
    edges = torch.rand(space.mask.shape[:2], dtype=torch.float64)
    given: list[Tensor] = []
    cell = cells_of(supernet)[0]
    for edge in cell.edges:
        edge.register_forward_hook(lambda module, inputs, y: given.append(y))
    older, newer = supernet.stem(images_of())
    y = cell(older, newer, Mixing(mixing.weights, edges), supernet.dropout)
    nodes = [
        sum(edges[0, edge] * given[edge] for edge in range(len(space.edges))[space.edges_into(node)])
        for node in range(space.nodes)
    ]
    torch.testing.assert_close(y, nodes[-1] if space is BENCH else torch.cat(nodes, 1))  # type: ignore[arg-type]
    # Edge weights of 1 have no effect.
    logits = [supernet(images_of(), Mixing(mixing.weights, which)) for which in (torch.ones_like(edges), None)]
    assert torch.equal(*logits)


WITHOUT_POOLS = {
    "darts": ["none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5", "sep_conv_5x5"],
    "nasbench201": ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3"],
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", WITHOUT_POOLS)
def test_supernet_with_one_hot_weights_equals_the_derived_network(name: str, seed: int) -> None:
    """With the same weights, both give the same logits; pools are excluded because only the supernet normalises them."""
    space = named_space(name).only(WITHOUT_POOLS[name])
    skeleton = Skeleton(5, 4, (3, 9, 7), 10)
    genotype = random_genotype(space, np.random.default_rng(seed))
    supernet = supernet_of(space, skeleton)
    derived = DerivedNetwork(genotype, space, skeleton).double()

    derived.stem.load_state_dict(supernet.stem.state_dict())
    derived.classifier.load_state_dict(supernet.classifier.state_dict())
    for cell, super_cell in zip(cells_of(derived), cells_of(supernet), strict=True):
        if isinstance(cell, ResidualBlock):
            cell.load_state_dict(super_cell.state_dict())
            continue
        pairs: list[tuple[Any, Any]] = [(cell.older, super_cell.older), (cell.newer, super_cell.newer)]
        chosen = iter(cell.edges)
        for node, choices in enumerate(genotype.cells[space.kinds[super_cell.kind]].nodes):
            for primitive, source in choices:
                edge = super_cell.edges[space.edges.index((node, source))]
                pairs.append((next(chosen), Zero(1) if primitive == "none" else edge.ops[primitive]))
        for mine, of_supernet in pairs:
            # Only the scale and shift of batch norms are missing in the supernet; they are initialised to 1 and 0.
            missing, unexpected = mine.load_state_dict(of_supernet.state_dict(), strict=False)
            assert not unexpected and all(key.endswith(("weight", "bias")) for key in missing)

    mixing, images = Mixing(torch.as_tensor(one_hot(space, genotype))), images_of(skeleton)
    torch.testing.assert_close(supernet(images, mixing), derived(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", [DARTS, BENCH], ids=lambda space: space.name)
def test_the_weight_of_every_candidate_has_a_gradient(space: SearchSpace) -> None:
    supernet, weights = supernet_of(space), mixing_of(space).weights.requires_grad_()
    torch.nn.functional.cross_entropy(supernet(images_of(), Mixing(weights)), torch.tensor([0, 1, 2, 3])).backward()
    assert weights.grad is not None and weights.grad.isfinite().all()
    assert (weights.grad[..., 1:] != 0).all()
    assert (weights.grad[..., 0] == 0).all()  # `none` contributes nothing


def test_mixing_gradient_matches_finite_differences(supernet: Supernet) -> None:
    images = images_of()
    weights = mixing_of(DARTS).weights.requires_grad_()
    probe = torch.randn(4, 10, dtype=torch.float64)

    def loss(at: Tensor) -> Any:
        return (supernet(images, Mixing(at)) * probe).sum()

    (gradient,) = torch.autograd.grad(loss(weights), [weights])
    # Take a step along the gradient that is too small to switch a ReLU or a maximum.
    direction = gradient / gradient.norm()
    with torch.no_grad():
        slope = (loss(weights + 1e-7 * direction) - loss(weights - 1e-7 * direction)) / 2e-7
    assert slope.item() == pytest.approx(gradient.norm().item(), rel=1e-5)


ODD = Skeleton(3, 4, (3, 33, 31), 7)
IMAGENET = Skeleton(3, 5, (3, 37, 50), 3, "imagenet")


@pytest.mark.parametrize(
    "name, skeleton",
    [
        ("darts", ODD),
        ("darts", IMAGENET),
        ("darts", Skeleton(3, 4, (1, 28, 28), 10)),
        ("darts", Skeleton(1, 4, (1, 8, 8), 2)),
        ("filters", ODD),
        ("filters", IMAGENET),
        ("nasnet", ODD),
        ("nasnet", IMAGENET),
        ("nasbench201", ODD),
        ("nasbench201", IMAGENET),
        ("nasbench201", Skeleton(7, 4, (1, 28, 28), 10)),
    ],
)
def test_spaces_run_on_images_of_any_size(name: str, skeleton: Skeleton) -> None:
    space = named_space(name)
    supernet = Supernet(space, skeleton)
    sizes: list[tuple[int, ...]] = []
    for cell in cells_of(supernet):
        newer = nn.Identity() if isinstance(cell, ResidualBlock) else cell.newer
        newer.register_forward_hook(lambda module, inputs, y: sizes.append(tuple(y.shape[1:])))
    logits = supernet(images_of(skeleton, 2).float(), mixing_of(space))
    assert logits.shape == (2, skeleton.classes) and logits.isfinite().all()
    # The shapes match the plan from which costs are counted.
    plans = [plan for plan in skeleton.cells(space) if plan.kind in space.kinds]
    assert sizes == [(plan.channels, *plan.size) for plan in plans]


def test_shapes_of_the_imagenet_stem() -> None:
    supernet = supernet_of(DARTS, Skeleton(3, 6, (3, 64, 48), 5, "imagenet"))
    older, newer = supernet.stem(torch.zeros(1, 3, 64, 48, dtype=torch.float64))
    assert (older.shape, newer.shape) == ((1, 6, 16, 12), (1, 6, 8, 6))
    # The older input is twice as large for the first cell, and again after each reduction.
    assert [isinstance(cell.older, FactorizedReduce) for cell in cells_of(supernet)] == [True, False, True]


# --- skip dropout ------------------------------------------------------------------------------------------------


def only_skips(space: SearchSpace, weight: float = 1.0) -> Mixing:
    weights = torch.zeros(space.mask.shape, dtype=torch.float64)
    weights[..., list(space.primitives).index("skip_connect")] = weight
    return Mixing(weights)


def without_skips(space: SearchSpace) -> Mixing:
    weights = mixing_of(space).weights
    weights[..., list(space.primitives).index("skip_connect")] = 0
    return Mixing(weights)


def logits_at(supernet: Supernet, mixing: Mixing, rate: float, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    supernet.dropout.rate = rate
    with torch.no_grad():
        return supernet(images_of(), mixing)


@pytest.mark.parametrize("space", [DARTS, BENCH], ids=lambda space: space.name)
def test_skip_dropout_is_active_only_in_training(space: SearchSpace) -> None:
    supernet, mixing = supernet_of(space), mixing_of(space)
    trained = [logits_at(supernet, mixing, rate) for rate in (0.0, 0.5)]
    assert not torch.allclose(trained[0], trained[1])
    supernet.eval()
    evaluated = [logits_at(supernet, mixing, rate) for rate in (0.0, 0.5)]
    assert torch.equal(*evaluated)


def test_skip_dropout_applies_only_to_skips(supernet: Supernet) -> None:
    assert torch.equal(*[logits_at(supernet, without_skips(DARTS), rate) for rate in (0.0, 0.5)])
    kept, dropped = (logits_at(supernet, only_skips(DARTS), rate) for rate in (0.0, 0.5))
    assert not torch.allclose(kept, dropped)


def test_skip_dropout_applies_only_at_stride_1(supernet: Supernet) -> None:
    # In a reduction cell, the skips that leave the two inputs halve the image.
    dropped = [cell.dropped for cell in cells_of(supernet)]
    assert dropped[0] == list(range(14))
    assert dropped[1] == dropped[2] == [edge for edge, (_, source) in enumerate(DARTS.edges) if source >= 2]


def test_skip_dropout_follows_the_generator(supernet: Supernet) -> None:
    mixing = mixing_of(DARTS)
    first, again, other = (logits_at(supernet, mixing, 0.5, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    # If nothing is dropped, the generator is not used.
    state = torch.get_rng_state()
    supernet.dropout.rate = 0.0
    supernet(images_of(), mixing)
    assert torch.equal(torch.get_rng_state(), state)


def dropout_of(rate: float, seed: int = 0) -> SkipDropout:
    torch.manual_seed(seed)
    dropout = SkipDropout()
    dropout.rate = rate
    return dropout


def test_every_cell_and_edge_has_its_own_dropout_mask() -> None:
    """The same seed gives the same masks again."""
    drawn = []
    for _ in range(2):
        dropout = dropout_of(0.5, seed=5)
        masks = [dropout.masks(14, (1, 4, 16, 16)) for _ in range(5)]
        drawn.append(torch.cat([mask for mask in masks if mask is not None]))
    assert torch.equal(*drawn)
    assert len({tuple(mask.flatten().tolist()) for mask in drawn[0]}) == 5 * 14


def test_supernets_of_different_spaces_drop_the_same_elements(supernet: Supernet) -> None:
    """With all weight on the skips, a space with only skips gives the same logits as the full space, so the masks are the same."""
    skips = DARTS.only(["skip_connect"])
    twin, state = supernet_of(skips), supernet.state_dict()
    twin.load_state_dict({name: state[name] for name in twin.state_dict()})
    expected = logits_at(supernet, only_skips(DARTS), 0.5)
    torch.testing.assert_close(logits_at(twin, only_skips(skips), 0.5), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.7])
def test_skip_dropout_preserves_the_mean(rate: float) -> None:
    dropout = dropout_of(rate)
    assert dropout.rate == pytest.approx(rate, abs=2**-17)
    masks = dropout.masks(14, (4, 8, 16, 16))
    assert masks is not None and masks.shape == (14, 4, 16, 16, 8)
    error = (rate / (1 - rate) / masks.numel()) ** 0.5
    assert abs((masks * dropout.scale).mean().item() - 1) < 4 * error
    # Dropout is elementwise: in every channel of every image, some elements are kept and some are dropped.
    kept = masks.float().mean((2, 3))
    assert kept.min() > 0
    assert kept.max() < 1


def test_skip_dropout_at_the_highest_rate() -> None:
    """Sixteen random bits keep elements with a probability of 2**-16, the smallest that they can represent."""
    dropout = dropout_of(1 - 2**-16)
    masks = dropout.masks(1, (64, 64, 32, 32))
    assert masks is not None
    assert 0 < masks.sum() < 200  # 64 are expected

"""The batched supernet matches the plain one: outputs, all gradients and statistics, with the same masks."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from types import MethodType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.batched.bundles import Bundle
from rapdarts.networks.batched.layout import BlockMap, Geometry
from rapdarts.networks.batched.separable import separable
from rapdarts.networks.batched.sums import apply_mask
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.layers import OffsetConvs
from rapdarts.networks.primitives import PRIMITIVES
from rapdarts.networks.supernet import Supernet
from rapdarts.strategy.relaxation import Architecture
from tests import spaces
from tests.benchmarks import agreement

SMALL = Skeleton(3, 4, (3, 8, 8), 10)
ODD = Skeleton(3, 4, (3, 13, 11), 7)
IMAGENET = Skeleton(3, 5, (3, 19, 26), 3, "imagenet")


def narrowed(space: SearchSpace, keep: int) -> SearchSpace:
    """Return the space as in a later stage, with `keep` random candidates on every edge."""
    mask = np.zeros_like(space.mask)
    rng = np.random.default_rng(0)
    for kind, edge in np.ndindex(*mask.shape[:2]):
        mask[kind, edge, rng.permutation(mask.shape[2])[:keep]] = True
    return space.narrowed(mask)


def pair_of(
    space: SearchSpace, skeleton: Skeleton, rate: float = 0.0, training: bool = True, partial: int = 1
) -> list[nn.Module]:
    """Return a plain supernet and the batched one with the same weights, both in float64."""
    torch.manual_seed(0)
    plain = Supernet(space, skeleton, partial).double()
    # Evaluation mode needs statistics that differ from those of a new network.
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    pair = [plain, BatchedSupernet(plain)]
    for supernet in (plain, *pair[1:]):
        supernet.train(training)
        supernet.dropout.rate = rate  # type: ignore[union-attr, assignment]
    return pair


def weights_of(space: SearchSpace) -> Tensor:
    alpha = torch.randn(space.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return torch.softmax(alpha.masked_fill(~torch.as_tensor(space.mask), -torch.inf), -1).requires_grad_()


def edges_of(space: SearchSpace) -> Tensor:
    beta = torch.randn(space.mask.shape[:2], dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return torch.sigmoid(beta).requires_grad_()


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Assert equality within 1e-10 of the largest entry, plus 1e-13 for rounding if all entries cancel to zero."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max() + 1e-13


def assert_equal_supernets(
    space: SearchSpace, pair: list[nn.Module], skeleton: Skeleton, edges: Tensor | None = None
) -> None:
    """Compare logits, the gradients for mixing weights, edge weights, images and all weights, and the running statistics."""
    plain, batched = pair
    assert isinstance(batched, BatchedSupernet)
    images = torch.randn(3, *skeleton.image, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    images.requires_grad_()
    probe = torch.sin(torch.arange(3.0 * skeleton.classes, dtype=torch.float64)).view(3, -1)
    results, gradients = [], []
    for supernet in pair:
        torch.manual_seed(1)
        weights = weights_of(space)
        logits = supernet(images, Mixing(weights, edges))
        named = {name: weight for name, weight in supernet.named_parameters() if weight.requires_grad}
        inputs = [weights, images] if edges is None else [weights, images, edges]
        found = torch.autograd.grad((logits * probe).sum(), [*inputs, *named.values()])
        results.append([logits, *found[: len(inputs)]])
        gradients.append(dict(zip(named, found[len(inputs) :], strict=True)))
    for found_one, expected in zip(*reversed(results), strict=True):
        assert_same(found_one, expected)
    assert_same_under_plain_names(batched, gradients)

    before, after = plain.state_dict(), batched.plain_state()
    for name in before:
        if "running_" in name:
            assert_same(after[name], before[name])


def assert_same_under_plain_names(batched: BatchedSupernet, gradients: list[dict[str, Tensor]]) -> None:
    """Split the gradients of the batched weights in the same way as the weights, and compare them with those of the plain supernet."""
    of_plain, of_batched = gradients
    split = agreement.under_plain_names(batched, of_batched)
    for name, expected in of_plain.items():
        assert_same(split[name], expected)


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("skeleton", [SMALL, ODD, IMAGENET], ids=["cifar", "odd", "imagenet"])
@pytest.mark.parametrize("name", spaces.NAMES)
def test_batched_supernet_equals_the_plain_one(name: str, skeleton: Skeleton, rate: float) -> None:
    space = named_space(name)
    assert_equal_supernets(space, pair_of(space, skeleton, rate), skeleton)


@pytest.mark.parametrize("name", spaces.NAMES)
def test_equal_in_evaluation_mode(name: str) -> None:
    """Covers the full space and later stages, the latter also with edge weights and partial channels."""
    space = named_space(name)
    assert_equal_supernets(space, pair_of(space, ODD, 0.4, training=False), ODD)
    for keep, partial in ((1, 1), (3, 2)):
        later = narrowed(space, keep)
        pair = pair_of(later, ODD, 0.4, training=False, partial=partial)
        assert_equal_supernets(later, pair, ODD, edges_of(later) if partial > 1 else None)


@pytest.mark.parametrize(("keep", "rate"), [(1, 0.4), (3, 0.0), (3, 0.4), (5, 0.4)])
@pytest.mark.parametrize("name", spaces.NAMES)
def test_equal_in_later_stages(name: str, keep: int, rate: float) -> None:
    """Candidates differ from edge to edge; with one candidate each, some edges have only `none`."""
    space = narrowed(named_space(name), keep)
    skeleton = Skeleton(5, 4, (3, 8, 8), 10)
    assert_equal_supernets(space, pair_of(space, skeleton, rate), skeleton)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "darts" else [pytest.mark.proof]) for name in spaces.NAMES]
)
def test_bfloat16_error_is_as_small_as_the_plain_supernets(name: str) -> None:
    """Under autocast, the two supernets round in a different order, but on average their errors are about equal."""
    space = named_space(name)
    layers = 1 if len(space.kinds) > 1 else 3  # with one kind of cell, a single layer would be a residual block
    errors: dict[str, list[Tensor]] = {}
    for seed in range(2):
        torch.manual_seed(seed)
        plain = Supernet(space, Skeleton(layers, 4, (3, 8, 8), agreement.CLASSES))
        alpha, images = Architecture(space, 0.5), torch.randn(8, 3, 8, 8)
        exact = agreement.results(copy.deepcopy(plain).double(), alpha, images.double())
        of_plain, of_batched = (
            agreement.differences(agreement.results(supernet, alpha, images, "bf16"), exact)
            for supernet in (plain, BatchedSupernet(plain))
        )
        for quantity in of_batched:
            errors.setdefault(quantity, []).append(torch.tensor([of_plain[quantity], of_batched[quantity]]))
    for quantity, pairs in errors.items():
        mean_of_plain, mean_of_batched = torch.stack(pairs).mean(0).tolist()
        assert 1e-3 < mean_of_batched <= 1.5 * mean_of_plain, quantity


def test_equal_with_edges_that_have_only_none() -> None:
    space = named_space("darts")
    mask = np.zeros_like(space.mask)
    mask[..., 0] = True
    mask[:, :3, 4] = True  # only the first node and one edge of the second have another candidate
    space = space.narrowed(mask)
    pair = pair_of(space, SMALL)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    logits = [supernet(images, Mixing(weights_of(space))) for supernet in pair]
    assert_same(logits[1], logits[0])


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("partial", [1, 2, 4])
@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_equal_with_edge_weights_and_partial_channels(name: str, partial: int, rate: float) -> None:
    space = narrowed(named_space(name), 3)
    assert_equal_supernets(space, pair_of(space, ODD, rate, partial=partial), ODD, edges_of(space))


@pytest.mark.parametrize("name", spaces.NAMES)
def test_equal_with_partial_channels_without_edge_weights(name: str) -> None:
    """Images are not square, and two of eight channels are mixed; some edges have only `none` and the bypass."""
    skeleton = Skeleton(3, 8, (3, 8, 12), 10)
    for space in (named_space(name), narrowed(named_space(name), 1)):
        assert_equal_supernets(space, pair_of(space, skeleton, 0.4, partial=4), skeleton)


# --- user-defined primitives -------------------------------------------------------------------------------------


class Gate(nn.Module):
    """A module of unknown structure, with weights and statistics."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels, 1, 1))
        self.norm = nn.BatchNorm2d(channels)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.sigmoid(self.gain * x[:, :, :: self.stride, :: self.stride]) * 2)


def gate(channels: int, stride: int, affine: bool) -> nn.Module:
    return Gate(channels, stride)


def gate_between(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, groups=2 - channels % 2), Gate(channels, stride), nn.ReLU(inplace=True)
    )


def own_norms(channels: int, stride: int, affine: bool) -> nn.Module:
    """Norms with other settings, an affine norm although `affine` is False, biases, and an unusual order of layers."""
    return nn.Sequential(
        nn.BatchNorm2d(channels, affine=False, momentum=0.3, eps=1e-2),
        nn.Conv2d(channels, 2 * channels, 3, stride, 1, padding_mode="reflect"),
        nn.BatchNorm2d(2 * channels),
        nn.MaxPool2d(3, 1, 1),
        nn.Conv2d(2 * channels, channels, 1),
        nn.BatchNorm2d(channels),
    )


def valid_depthwise(channels: int, stride: int, affine: bool) -> nn.Module:
    """A depthwise convolution without padding after a padding layer, and one that doubles the number of channels."""
    return nn.Sequential(
        nn.ZeroPad2d(1),
        nn.Conv2d(channels, channels, 3, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.Conv2d(channels, 2 * channels, 3, stride, 1, groups=channels),
        nn.Conv2d(2 * channels, channels, 1, bias=False),
    )


def skip_with_a_norm(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 1, stride), nn.BatchNorm2d(channels, affine=False))


def blur(channels: int, stride: int, affine: bool) -> nn.Module:
    """A depthwise filter with fixed weights."""
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    conv.weight.requires_grad_(False)
    return nn.Sequential(conv, nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=False))


def tied(channels: int, stride: int, affine: bool) -> nn.Module:
    """The same layer used twice."""
    conv = nn.Conv2d(channels, channels, 3, 1, 1)
    return nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), conv, nn.ReLU(), conv)


def hooked(channels: int, stride: int, affine: bool) -> nn.Module:
    """A ReLU, a pool and a convolution with forward hooks."""
    relu, pool, conv = nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv2d(channels, channels, 3, stride, 1)
    for layer in (relu, pool, conv):
        layer.register_forward_hook(lambda module, inputs, y: y.tanh())
    return nn.Sequential(relu, pool, conv, nn.BatchNorm2d(channels, affine=False))


def test_equal_for_primitives_that_resemble_ours() -> None:
    own = {"none": PRIMITIVES["none"], "skip_connect": skip_with_a_norm, "blur": blur, "tied": tied, "hooked": hooked}
    space = SearchSpace("alike", own)
    pair = pair_of(space, SMALL, 0.4)
    assert_equal_supernets(space, pair, SMALL)
    fixed = [sum(not w.requires_grad for w in supernet.parameters()) for supernet in pair]
    assert fixed[0] == 3 * 14 and 0 < fixed[1] < fixed[0]


def test_equal_if_a_factory_returns_different_modules() -> None:
    """Modules of different structure are not stacked."""
    padding = itertools.cycle([0, 1, 2])

    def varying(channels: int, stride: int, affine: bool) -> nn.Module:
        p = next(padding)
        conv = nn.Conv2d(channels, channels, 2 * p + 1, stride, p)
        return nn.Sequential(conv, nn.BatchNorm2d(channels, affine=False, eps=10.0**-p))

    space = SearchSpace("varying", {"none": PRIMITIVES["none"], "varying": varying})
    assert_equal_supernets(space, pair_of(space, SMALL), SMALL)


def test_equal_if_pools_differ_in_settings_outside_their_repr() -> None:
    choices = itertools.cycle([(False, True), (True, False), (False, False)])

    def varying(channels: int, stride: int, affine: bool) -> nn.Module:
        ceil_mode, counted = next(choices)
        return nn.Sequential(
            nn.AvgPool2d(3, stride, 1, ceil_mode=ceil_mode and stride == 1, count_include_pad=counted),
            nn.BatchNorm2d(channels, affine=False),
        )

    space = SearchSpace("varying", {"none": PRIMITIVES["none"], "varying": varying})
    assert_equal_supernets(space, pair_of(space, SMALL), SMALL)


@pytest.mark.parametrize("change", ["forward", "hook", "hook before", "within halves"])
def test_equal_if_a_module_does_more_than_the_forward_of_its_class(change: str) -> None:
    def changed(channels: int, stride: int, affine: bool) -> nn.Module:
        if change == "within halves" and stride == 2:
            halves = OffsetConvs(channels, channels)
            halves.even.register_forward_hook(lambda module, given, y: y.tanh())
            return halves
        conv = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        if change == "forward":
            conv.forward = MethodType(lambda self, x: nn.Conv2d.forward(self, x).tanh(), conv)  # type: ignore[method-assign]
        elif change == "hook":
            conv.register_full_backward_hook(lambda module, to_x, to_y: (3 * to_x[0],))
        else:
            conv.register_full_backward_pre_hook(lambda module, to_y: (3 * to_y[0],))
        return nn.Sequential(conv, nn.BatchNorm2d(channels, affine=False))

    space = SearchSpace("changed", {"none": PRIMITIVES["none"], "changed": changed})
    assert_equal_supernets(space, pair_of(space, SMALL), SMALL)


def test_equal_for_user_defined_primitives() -> None:
    own = {"none": PRIMITIVES["none"], "skip_connect": PRIMITIVES["skip_connect"]}
    own |= {"gate": gate, "between": gate_between, "norms": own_norms, "valid": valid_depthwise}
    space = SearchSpace("own", own)
    assert_equal_supernets(space, pair_of(space, SMALL, 0.4), SMALL)
    space = narrowed(space, 3)
    assert_equal_supernets(space, pair_of(space, SMALL), SMALL)


# --- converting weights ------------------------------------------------------------------------------------------


def random_state(supernet: nn.Module, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in supernet.state_dict().items()
    }


def same_states(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first if "num_batches" not in name)


@pytest.mark.parametrize("name", spaces.NAMES)
def test_weights_convert_between_plain_and_batched(name: str) -> None:
    space = named_space(name)
    plain, batched = Supernet(space, SMALL), BatchedSupernet(Supernet(space, SMALL))
    state = random_state(plain, 5)
    batched.load_plain_state(state)
    back = batched.plain_state()
    assert same_states(back, state)
    # Only the batch counters are missing; nothing reads them.
    assert all("num_batches_tracked" in name for name in set(state) - set(back))
    plain.load_state_dict(back, strict=False)
    assert same_states(plain.state_dict(), state)
    assert sum(w.numel() for w in batched.parameters()) == sum(w.numel() for w in plain.parameters())


def test_training_the_batched_supernet_leaves_the_plain_one_unchanged() -> None:
    plain = Supernet(named_space("darts"), SMALL)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    batched = BatchedSupernet(plain)
    batched(torch.randn(2, 3, 8, 8), Mixing(weights_of(named_space("darts")))).sum().backward()
    with torch.no_grad():
        for weight in batched.parameters():
            weight.zero_()
    assert same_states(plain.state_dict(), before)
    assert all(weight.grad is None for weight in plain.parameters())


# --- parts of the batched supernet -------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel, stride, dilation", [*itertools.product((2, 3, 4, 5, 7), (1, 2), (1, 2))])
@pytest.mark.parametrize("sources", [(0, 1), (0, 0, 0), (0, 0, 1, 1), (1, 0, 1)], ids=str)
@pytest.mark.parametrize("padded", [True, False], ids=["same", "valid"])
def test_separable_equals_two_convolutions(
    kernel: int, stride: int, dilation: int, sources: tuple[int, ...], padded: bool
) -> None:
    """Covers all code paths on the CPU, even and odd sides, and either all gradients or only that of the image."""
    padding = dilation * (kernel - 1) // 2 if padded else 0
    for size in ((16, 15), (14, 13)):
        torch.manual_seed(0)
        blocks, slots, channels = max(sources) + 1, len(sources), 3
        x = torch.randn(2, blocks * channels, *size, dtype=torch.float64)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        depthwise = torch.randn(slots * channels, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
        pointwise = torch.randn(slots * 2, channels, 1, 1, dtype=torch.float64, requires_grad=True)
        block_map = BlockMap(sources, blocks)
        geometry = Geometry((stride, stride), (padding, padding), (dilation, dilation))

        between = F.conv2d(block_map.index_select(x), depthwise, None, stride, padding, dilation, slots * channels)
        expected = F.conv2d(between, pointwise, groups=slots)
        probe = torch.randn_like(expected)
        given = [x, depthwise, pointwise]
        gradients = torch.autograd.grad((expected * probe).sum(), given)

        found = separable(Bundle(x), block_map, depthwise, pointwise, geometry)
        assert_same(found, expected)
        for of_found, of_expected in zip(torch.autograd.grad((found * probe).sum(), given), gradients, strict=True):
            assert_same(of_found, of_expected)
        found = separable(Bundle(x), block_map, depthwise.detach(), pointwise.detach(), geometry)
        assert_same(torch.autograd.grad((found * probe).sum(), [x])[0], gradients[0])


@pytest.mark.parametrize("learns", [True, False])
def test_the_image_is_saved_only_if_the_weights_are_trained(learns: bool) -> None:
    saved: list[Tensor] = []
    weights = torch.randn(4, 1, 3, 3), torch.randn(4, 4, 1, 1)
    x = torch.randn(2, 4, 7, 7, requires_grad=True)
    with saved_tensors_hooks(lambda tensor: [saved.append(tensor), tensor][1], lambda tensor: tensor):
        given = [weight.requires_grad_(learns) for weight in weights]
        separable(Bundle(x), BlockMap.identity(1), given[0], given[1], Geometry((1, 1), (1, 1), (1, 1)))
    shapes = [tensor.shape for tensor in saved]
    assert (x.shape in shapes) is learns and all(weight.shape in shapes for weight in weights)


def test_dropped_elements_are_zero_even_if_not_finite() -> None:
    """The result has the strides of the input, since nothing is copied into another memory order."""
    y = torch.randn(2, 3, 3, 8)
    y[0, 1, 2, 3:5] = torch.tensor([torch.inf, torch.nan])
    masks = torch.rand(2, 2, 3, 3, 4) > 0.3
    masks[0, 0, 1, 2, 3] = masks[1, 0, 1, 2, 0] = False
    mask = masks.permute(1, 2, 3, 0, 4).contiguous()
    found = apply_mask(y, mask)
    assert torch.equal(found, torch.where(mask.flatten(3), y, 0.0)) and found.stride() == y.stride()


@pytest.mark.parametrize("sources, blocks", [((0, 1, 2), 3), ((0, 0, 1, 1), 2), ((1, 0, 1), 2), ((2, 0), 3)], ids=str)
def test_index_add_is_the_transpose_of_index_select(sources: tuple[int, ...], blocks: int) -> None:
    block_map = BlockMap(sources, blocks)
    torch.manual_seed(0)
    x, y = torch.randn(2, 3 * blocks, 4, 5), torch.randn(2, 3 * len(sources), 4, 5)
    selected = block_map.index_select(x)
    assert torch.equal(selected.unflatten(1, (-1, 3)), x.unflatten(1, (-1, 3))[:, list(sources)])
    torch.testing.assert_close((selected * y).sum(), (x * block_map.index_add(y)).sum())

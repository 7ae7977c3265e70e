"""Derived networks: the exact sizes of the literature's networks, the wiring, the auxiliary head, and drop path."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import thop
import torch
from torch import Tensor, nn

from rapdarts.architecture.cell import Cell
from rapdarts.architecture.genotype import Genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.reading import parse_genotype
from rapdarts.architecture.space import CellPlan, Skeleton
from rapdarts.cost.count import count, count_derived, params
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.derived import DerivedCell, DerivedNetwork, drop_paths
from rapdarts.networks.layers import ResidualBlock

SPACES = {name: named_space(name) for name in ("darts", "nasnet", "nasbench201")}
DARTS, BENCH = SPACES["darts"], SPACES["nasbench201"]
DEPLOYMENT = Skeleton(20, 36, (3, 32, 32), 10)
IMAGENET = Skeleton(14, 48, (3, 224, 224), 1000, "imagenet")
SMALL = Skeleton(3, 4, (3, 16, 16), 10)


def bench(*primitives: str) -> Genotype:
    """Return a genotype of NAS-Bench-201 from the primitives on its six edges; the names given are repeated to fill them."""
    names = iter(primitives * (6 // len(primitives)))
    edges = ["".join(f"{next(names)}~{source}|" for source in range(node + 1)) for node in range(3)]
    return parse_genotype("+".join(f"|{node}" for node in edges), "here")


KNOWN = {
    **LITERATURE,
    "BENCH": bench("nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "skip_connect"),
}


def network_of(name: str, skeleton: Skeleton = SMALL, auxiliary: bool = False, seed: int = 0) -> DerivedNetwork:
    torch.manual_seed(seed)
    genotype = KNOWN[name]
    return DerivedNetwork(genotype, SPACES[genotype.space], skeleton, auxiliary)


def weightless(genotype: Genotype, skeleton: Skeleton, auxiliary: bool = False) -> DerivedNetwork:
    with torch.device("meta"):
        return DerivedNetwork(genotype, SPACES[genotype.space], skeleton, auxiliary)


def cell_of(primitive: str) -> Cell:
    """Return a cell with the same primitive on all edges, each of which leaves one of the two inputs."""
    return Cell(2, tuple(((primitive, 0), (primitive, 1)) for _ in range(4)), (2, 3, 4, 5))


def images_of(skeleton: Skeleton = SMALL, batch: int = 4) -> Tensor:
    return torch.randn(batch, *skeleton.image, generator=torch.Generator().manual_seed(9))


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, weights, macs",
    [
        ("NASNet", 3_830_950, 603_452_448),
        ("AmoebaNet", 3_145_078, 488_931_552),
        ("DARTS_V1", 3_169_414, 500_987_520),
        ("DARTS_V2", 3_349_342, 528_359_040),
        ("PDARTS", 3_433_798, 532_174_464),
        ("PC_DARTS_cifar", 3_634_678, 556_670_592),
        ("FairDARTS_a", 2_360_782, 371_455_200),
        ("FairDARTS_b", 3_407_878, 536_487_552),
        ("FairDARTS_c", 2_598_814, 399_987_936),
        ("FairDARTS_d", 3_365_542, 532_506_240),
        ("FairDARTS_e", 2_643_742, 414_696_672),
        ("FairDARTS_f", 3_151_054, 497_614_464),
        ("FairDARTS_g", 2_899_054, 453_376_224),
    ],
)
def test_sizes_of_the_literature(name: str, weights: int, macs: int) -> None:
    genotype = LITERATURE[name]
    counted = count_derived(genotype, SPACES[genotype.space], DEPLOYMENT)
    assert counted.items() >= {"params": weights, "macs": macs, "bytes": 4 * weights}.items()


@pytest.mark.parametrize(
    "primitive, weights, macs",
    [
        ("none", 73_306, 7_783_040),
        ("skip_connect", 73_306, 7_783_040),
        ("avg_pool_3x3", 73_306, 7_783_040),
        ("nor_conv_1x1", 241_306, 31_376_000),
        ("nor_conv_3x3", 1_531_546, 220_119_680),  # the benchmark reports 1.531546 M and 220.12 M
    ],
)
def test_nasbench201_cells_with_a_single_primitive(primitive: str, weights: int, macs: int) -> None:
    counted = count_derived(bench(primitive), BENCH, Skeleton(*BENCH.deployment, (3, 32, 32), 10))
    assert counted.items() >= {"params": weights, "macs": macs, "bytes": 4 * weights}.items()


def test_nasbench201_sizes_are_the_sum_of_the_parts() -> None:
    """The fixed parts are the stem, two residual blocks, a batch norm and a linear layer; the rest are fifteen cells of six edges."""
    fixed = 3 * 16 * 9 + 2 * 16 + 2 * 64 + 64 * 10 + 10
    for inputs in (16, 32):
        fixed += (9 * inputs + 9 * 2 * inputs + inputs) * 2 * inputs + 2 * 2 * 2 * inputs
    assert fixed == 73_306
    assert fixed + 5 * 6 * sum(9 * width**2 + 2 * width for width in (16, 32, 64)) == 1_531_546
    assert fixed + 5 * 6 * sum(width**2 + 2 * width for width in (16, 32, 64)) == 241_306


@pytest.mark.parametrize(
    "letter, millions, weights, head",
    [
        ("a", 373, 2.83, True),
        ("b", 536, 3.88, True),
        ("c", 400, 2.59, False),
        ("d", 532, 3.84, True),
        ("e", 414, 3.12, True),
        ("f", 497, 3.62, True),
        ("g", 453, 3.38, True),
    ],
)
def test_fairdarts_sizes_match_its_authors_counts(letter: str, millions: int, weights: float, head: bool) -> None:
    """The authors' README lists millions of MACs and weights on CIFAR-10, with the auxiliary head except for network c.

    Rounded or truncated, our counts equal theirs, except for network a, for which we count 1.5 million MACs fewer.
    """
    genotype = LITERATURE[f"FairDARTS_{letter}"]
    network = weightless(genotype, DEPLOYMENT, auxiliary=head)
    assert abs(params(network, DEPLOYMENT.image) / 1e6 - weights) < 0.01
    difference = 1.5 if letter == "a" else 0
    assert abs(count_derived(genotype, DARTS, DEPLOYMENT)["macs"] / 1e6 + difference - millions) < 1


def test_size_of_pdarts_on_imagenet() -> None:
    assert count_derived(LITERATURE["PDARTS"], DARTS, IMAGENET)["macs"] == 542_819_328


@pytest.mark.parametrize(
    "name, extra, inputs",
    [("PDARTS", 476_426, 4 * 144), ("NASNet", 457_994, 3 * 144), ("AmoebaNet", 457_994, 3 * 144)],
)
def test_auxiliary_head_reads_the_second_reduction(name: str, extra: int, inputs: int) -> None:
    genotype = LITERATURE[name]
    with_head = weightless(genotype, DEPLOYMENT, auxiliary=True)
    assert with_head.auxiliary is not None and with_head.auxiliary.features[2].in_channels == inputs
    assert not with_head.auxiliary.adaptive  # its feature map is 8x8
    assert params(with_head, DEPLOYMENT.image) - params(weightless(genotype, DEPLOYMENT), DEPLOYMENT.image) == extra
    assert with_head.auxiliary_layer == 13


def test_thop_counts_the_same() -> None:
    skeleton = Skeleton(4, 8, (3, 16, 16), 10)
    network = network_of("PDARTS", skeleton)

    def free(module: nn.Module, inputs: object, outputs: object) -> None:
        """Count nothing for batch norms, pools and activations, by our convention."""

    kinds = (nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.ReLU)
    macs, weights = thop.profile(
        copy.deepcopy(network), (torch.zeros(1, 3, 16, 16),), custom_ops=dict.fromkeys(kinds, free), verbose=False
    )
    counted = count(network, skeleton.image)
    assert (counted["macs"], counted["params"]) == (macs, weights)
    assert counted["macs"] > 1_000_000


# --- wiring ------------------------------------------------------------------------------------------------------


def test_cell_equals_a_manual_computation() -> None:
    """The pairs are in file order, one node uses an input twice, and the concat omits nodes."""
    choice = Cell(
        2,
        (
            (("sep_conv_3x3", 1), ("skip_connect", 0)),
            (("max_pool_3x3", 2), ("skip_connect", 2)),
            (("skip_connect", 3), ("avg_pool_3x3", 0)),
        ),
        (4, 2),
    )
    torch.manual_seed(0)
    cell = DerivedCell(SPACES["nasnet"], choice, CellPlan(1, "normal", 4, 6, 5, True, (4, 4)))
    older, newer = torch.randn(2, 6, 8, 8), torch.randn(2, 5, 4, 4)
    first, second = cell.older(older), cell.newer(newer)
    third = cell.edges[0](second) + first
    fourth = nn.functional.max_pool2d(third, 3, 1, 1) + third
    fifth = fourth + nn.functional.avg_pool2d(first, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(cell(older, newer), torch.cat([fifth, third], 1))


def test_cell_with_an_empty_node_equals_a_manual_computation() -> None:
    """A node without edges is not computed and does not contribute to the output."""
    choice = Cell(
        2, ((("max_pool_3x3", 1),), (), (("skip_connect", 2), ("dil_conv_3x3", 0)), (("skip_connect", 1),)), (2, 4, 5)
    )
    torch.manual_seed(0)
    cell = DerivedCell(DARTS, choice, CellPlan(1, "normal", 4, 6, 5, True, (4, 4)))
    older, newer = torch.randn(2, 6, 8, 8), torch.randn(2, 5, 4, 4)
    first, second = cell.older(older), cell.newer(newer)
    third = nn.functional.max_pool2d(second, 3, 1, 1)
    fifth = third + cell.edges[2](first)
    torch.testing.assert_close(cell(older, newer), torch.cat([third, fifth, second], 1))
    assert cell.paths == 2
    kept = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(cell(older, newer, kept), torch.cat([third, third, second], 1))


def test_single_input_cell_equals_a_manual_computation() -> None:
    torch.manual_seed(0)
    cell = DerivedCell(BENCH, KNOWN["BENCH"].cells["normal"], CellPlan(1, "normal", 4, 4, 4, False, (5, 4)))
    older, newer = torch.randn(2, 4, 5, 4), torch.randn(2, 4, 5, 4)
    first = cell.edges[0](newer)
    second = 0 * newer + first
    third = nn.functional.avg_pool2d(newer, 3, 1, 1, count_include_pad=False) + cell.edges[4](first) + second
    torch.testing.assert_close(cell(older, newer), third)
    assert not list(cell.newer.parameters()) and not list(cell.older.parameters())


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (6, 5), (1, 1)])
def test_residual_block_equals_a_manual_computation(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(CellPlan(5, "reduce", 6, 3, 3, False, size)).double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    first, second, shortcut = (module.weight for module in block.modules() if isinstance(module, nn.Conv2d))
    conv, scale = nn.functional.conv2d, (1 + 1e-5) ** 0.5
    deep = conv((conv(x.relu(), first, stride=2, padding=1) / scale).relu(), second, padding=1) / scale
    assert deep.shape == (2, 6, -(-size[0] // 2), -(-size[1] // 2))
    for row in range(0, size[0], 2):
        for column in range(0, size[1], 2):  # if a side is odd, the last pool covers fewer pixels
            pooled = x[:, :, row : row + 2, column : column + 2].mean((2, 3))
            deep[:, :, row // 2, column // 2] += pooled @ shortcut[:, :, 0, 0].T
    torch.testing.assert_close(block(torch.zeros(()), x), deep, rtol=1e-12, atol=1e-12)


def test_nasbench201_network_equals_a_manual_computation() -> None:
    """The network has a stem, cells with a residual block after one and two thirds of the depth, and a final batch norm and ReLU."""
    network = network_of("BENCH", Skeleton(4, 4, (3, 9, 7), 10)).eval()
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean = torch.randn(norm.num_features)
    assert [type(cell) for cell in network.cells] == [DerivedCell, ResidualBlock, ResidualBlock, DerivedCell]
    x = images = torch.randn(2, 3, 9, 7)
    x = network.stem.older(x)
    assert x.shape == (2, 4, 9, 7)
    for cell in network.cells:
        x = cell(None, x)
    assert x.shape == (2, 16, 3, 2)
    norm, relu = network.classifier.activation
    expected = network.classifier.linear(relu(norm(x)).mean((2, 3)))
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(relu, nn.ReLU)
    torch.testing.assert_close(network(images), expected)


def test_only_edges_from_the_inputs_have_the_stride() -> None:
    """The reduction cell of PDARTS: avg_pool_3x3 0, sep_conv_5x5 1 | sep_conv_3x3 0, dil_conv_5x5 2 | ..."""
    edges: Any = network_of("PDARTS").get_submodule("cells.1.edges")
    strides = [edges[0].stride, edges[1][0][1].stride[0], edges[2][0][1].stride[0], edges[3][1].stride[0]]
    assert strides == [2, 2, 2, 1]


@pytest.mark.parametrize(
    "skeleton",
    [
        Skeleton(3, 4, (3, 33, 31), 7),
        Skeleton(4, 4, (1, 28, 28), 10),
        Skeleton(3, 6, (3, 97, 64), 3, "imagenet"),
        Skeleton(1, 4, (1, 8, 8), 2),
    ],
    ids=["33x31", "28x28", "imagenet", "one cell"],
)
@pytest.mark.parametrize("name", ["PDARTS", "NASNet", "BENCH", "FairDARTS_c"])
def test_networks_train_on_images_of_any_size(name: str, skeleton: Skeleton) -> None:
    if name == "BENCH" and skeleton.layers == 1:
        skeleton = replace(skeleton, layers=3)
    network = network_of(name, skeleton, auxiliary=True)
    logits, extra = network(images_of(skeleton, 2))
    assert logits.shape == extra.shape == (2, skeleton.classes)
    assert logits.isfinite().all() and extra.isfinite().all()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.affine for norm in norms)
    (logits.sum() + extra.sum()).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


# --- auxiliary head ----------------------------------------------------------------------------------------------


def test_auxiliary_head_reads_the_second_residual_block() -> None:
    network = network_of("BENCH", Skeleton(17, 16, (3, 32, 32), 10), auxiliary=True)
    assert network.auxiliary is not None and network.auxiliary_layer == 11
    assert network.auxiliary.features[2].in_channels == 64 and not network.auxiliary.adaptive


@pytest.mark.parametrize("name", ["PDARTS", "BENCH"])
def test_returns_a_pair_of_logits_only_in_training(name: str) -> None:
    network = network_of(name, auxiliary=True)
    trained = network(images_of())
    assert isinstance(trained, tuple) and [logits.shape for logits in trained] == [(4, 10), (4, 10)]
    assert not torch.allclose(*trained)
    network.eval()
    assert isinstance(network(images_of()), Tensor)
    assert isinstance(network_of(name)(images_of()), Tensor)


def test_auxiliary_logits_train_only_the_cells_before_the_head() -> None:
    network = network_of("PDARTS", Skeleton(4, 4, (3, 16, 16), 10), auxiliary=True)
    _, extra = network(images_of())
    extra.sum().backward()
    assert network.auxiliary_layer == 2
    reached = [any(weight.grad is not None for weight in cell.parameters()) for cell in network.cells]
    assert reached == [True, True, True, False]
    assert network.stem.older[0].weight.grad is not None and network.classifier.linear.weight.grad is None


@pytest.mark.parametrize(
    "skeleton, adaptive",
    [
        (Skeleton(3, 4, (3, 32, 32), 10), False),  # maps of 8x8
        (Skeleton(3, 4, (3, 40, 37), 10), False),  # 10x10
        (Skeleton(3, 4, (3, 29, 30), 10), False),  # 8x8, both rounded up
        (Skeleton(3, 4, (3, 28, 28), 10), True),  # 7x7
        (Skeleton(3, 4, (3, 32, 28), 10), True),  # 8x7
        (Skeleton(3, 4, (1, 8, 8), 10), True),  # 2x2
        (Skeleton(3, 4, (3, 2, 2), 10), True),  # 1x1
        (Skeleton(3, 4, (3, 64, 64), 10), True),  # 16x16
        (Skeleton(3, 4, (3, 224, 224), 10, "imagenet"), False),  # 7x7
        (Skeleton(3, 4, (3, 64, 64), 10, "imagenet"), True),  # 2x2
    ],
)
def test_auxiliary_head_on_small_maps(skeleton: Skeleton, adaptive: bool) -> None:
    network = weightless(LITERATURE["PDARTS"], skeleton, auxiliary=True)
    head = network.auxiliary
    assert head is not None and head.adaptive is adaptive
    plan = skeleton.cells(DARTS)[2]
    size = [-(-side // 2) for side in plan.size]
    assert head.features[1](torch.zeros(1, 1, *size)).shape == (1, 1, 2, 2)


# --- drop path ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_drop_path_preserves_the_mean_and_drops_whole_images(rate: float) -> None:
    torch.manual_seed(0)
    kept = drop_paths(4, 5_000, torch.tensor(rate))
    assert kept.shape == (4, 5_000)
    torch.testing.assert_close(kept, torch.where(kept > 0, 1 / (1 - rate), 0.0))
    error = (rate * (1 - rate) / 5_000) ** 0.5
    assert ((kept > 0).float().mean(1) - (1 - rate)).abs().max() < 4 * error
    assert (kept.mean(1) - 1).abs().max() < 4 * error / (1 - rate)
    assert not torch.equal(kept[0], kept[1])  # paths are drawn independently


def test_drop_path_at_rate_0_keeps_everything() -> None:
    assert torch.equal(drop_paths(2, 3, torch.tensor(0.0)), torch.ones(2, 3))


def test_paths_are_scaled_per_image() -> None:
    """The second edge is dropped for two of the three images and doubled for one."""
    torch.manual_seed(0)
    choice = Cell(2, ((("max_pool_3x3", 0), ("max_pool_3x3", 1)),), (2,))
    cell = DerivedCell(DARTS, choice, CellPlan(0, "normal", 4, 3, 3, False, (6, 6)))
    older, newer = torch.randn(2, 3, 3, 6, 6)
    first, second = (nn.functional.max_pool2d(x, 3, 1, 1) for x in (cell.older(older), cell.newer(newer)))
    kept = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]])
    expected = first + second * kept[1, :, None, None, None]
    torch.testing.assert_close(cell(older, newer, kept), expected)


@pytest.mark.parametrize(
    "primitive, kind, droppable",
    [
        ("skip_connect", "normal", False),  # identities
        ("skip_connect", "reduce", True),  # factorized reductions
        ("max_pool_3x3", "normal", True),
        ("sep_conv_3x3", "normal", True),
    ],
)
def test_identities_are_never_dropped(primitive: str, kind: str, droppable: bool) -> None:
    torch.manual_seed(0)
    cell = DerivedCell(DARTS, cell_of(primitive), CellPlan(0, kind, 4, 3, 3, False, (6, 6)))
    images = torch.randn(16, 3, 6, 6)
    assert (cell.paths > 0) is droppable
    kept = torch.zeros(cell.paths, 16)
    assert torch.equal(cell(images, images), cell(images, images, kept)) is not droppable


@pytest.mark.parametrize("name", ["PDARTS", "BENCH", "NASNet", "FairDARTS_c"])
def test_every_path_of_a_network_is_scaled_by_its_own_row_of_factors(name: str) -> None:
    network = network_of(name).eval()
    images = images_of()
    expected = network(images)
    assert torch.equal(network(images, torch.ones(network.paths, 4)), expected)
    for path in range(network.paths):
        kept = torch.ones(network.paths, 4)
        kept[path, 0] = 0.0
        changed = (network(images, kept) != expected).any(1).tolist()
        assert changed[1:] == [False] * 3  # other images are unaffected
    assert not torch.allclose(network(images, torch.zeros(network.paths, 4)), expected)


def test_drop_path_follows_the_generator() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(drop_paths(3, 4, torch.tensor(0.5)))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])

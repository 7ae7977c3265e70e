"""Tests of peak memory: values computed by hand, values measured while networks run, and expected values for mixtures."""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from rapdarts.architecture.genotype import Genotype, one_hot, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import SearchSpace, Skeleton
from rapdarts.cost.count import traffic
from rapdarts.cost.expected import draw_probabilities, siblings
from rapdarts.cost.expected_peak import ExpectedPeak
from rapdarts.cost.peak_memory import peak_memory
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from rapdarts.networks.derived import DerivedCell, DerivedNetwork
from rapdarts.networks.layers import FactorizedReduce, ResidualBlock
from rapdarts.networks.primitives import Zero
from rapdarts.networks.reference import REFERENCE
from tests.computes import Computes

GENOTYPES = int(os.environ.get("RAPDARTS_PROOFS", "30"))
"""Number of random genotypes of each space; `make proofs` uses 1,000."""

DARTS, FILTERS, BENCH = (named_space(name) for name in ("darts", "filters", "nasbench201"))
SPACES = {
    "darts": DARTS,
    "filters": FILTERS,
    "nasbench201": BENCH,
    # After the imagenet stem, a cell needs many nodes to hold more than the stem does.
    "wide": replace(DARTS, nodes=6, candidates=()),
    "wide, one input": replace(BENCH, nodes=12, keep=3, candidates=()),
    "all edges": replace(FILTERS, nodes=3, keep=None, derive_none=True, candidates=()),
    "three edges": replace(DARTS, keep=3, candidates=()),
}
SKELETONS = [
    Skeleton(3, 4, (3, 16, 16), 10),
    Skeleton(4, 5, (1, 9, 7), 10),
    Skeleton(5, 4, (3, 13, 8), 10),
    Skeleton(3, 6, (3, 45, 70), 10, "imagenet"),
]
SHIPPED = ("darts", "filters", "nasbench201")
NUMBER = {name: GENOTYPES if name in SHIPPED else -(-GENOTYPES // 5) for name in SPACES}
CPU = torch.device("cpu")


def genotypes_of(space: SearchSpace, number: int, seed: int = 0) -> list[Genotype]:
    rng = np.random.default_rng(seed)
    return [random_genotype(space, rng) for _ in range(number)]


def peak_of(genotype: Genotype, space: SearchSpace, skeleton: Skeleton) -> int:
    with torch.device("meta"):
        network = DerivedNetwork(genotype, space, skeleton)
    return peak_memory(network, skeleton.image)


@cache
def sample(name: str) -> list[tuple[Genotype, Skeleton, int]]:
    """Return random genotypes of a space with their peaks, cycling through the skeletons."""
    pairs = [
        (genotype, SKELETONS[i % len(SKELETONS)]) for i, genotype in enumerate(genotypes_of(SPACES[name], NUMBER[name]))
    ]
    return [(genotype, skeleton, peak_of(genotype, SPACES[name], skeleton)) for genotype, skeleton in pairs]


# --- by hand -----------------------------------------------------------------------------------------------------


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class Custom(nn.Module):
    """Convolutions of the given channels, combined by a given forward function."""

    def __init__(self, forward: Callable[[list[nn.Module], Tensor], Tensor], *channels: tuple[int, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(*pair) for pair in channels)
        self.combine = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(list(self.layers), x)


def residual(layers: list[nn.Module], x: Tensor) -> Tensor:
    first = layers[0](x)
    return first + layers[1](first).relu()


def residual_in_place(layers: list[nn.Module], x: Tensor) -> Tensor:
    first = layers[0](x)
    second = layers[1](first)
    second += first
    return second


def dense(layers: list[nn.Module], x: Tensor) -> Tensor:
    x = layers[0](x)
    x = torch.cat([x, layers[1](x)], 1)
    x = torch.cat([x, layers[2](x.relu())], 1)
    return layers[3](x)


def twice(layers: list[nn.Module], x: Tensor) -> Tensor:
    first = layers[0](x)
    x = torch.cat([first, layers[1](first)], 1)
    return layers[2](torch.cat([x, first], 1))


def chunked(layers: list[nn.Module], x: Tensor) -> Tensor:
    left, right = layers[0](x).chunk(2, 1)
    return layers[2](torch.cat([left, layers[1](right)], 1))


def padded(layers: list[nn.Module], x: Tensor) -> Tensor:
    return layers[1](F.pad(layers[0](x), (0, 0, 0, 0)))


@pytest.mark.parametrize(
    "forward, channels, held",
    [
        # The sum overwrites the second activation, which nothing else reads.
        (residual, [(1, 4), (4, 4)], 4 + 4),
        (residual_in_place, [(1, 4), (4, 4)], 4 + 4),
        # An activation is held once, however often it is concatenated: at the end 4 + 2 + 2 channels, and 1 of the output.
        (dense, [(1, 4), (4, 2), (6, 2), (8, 1)], 4 + 2 + 2 + 1),
        # The first activation is stored in the first concatenation and copied into the second.
        (twice, [(1, 4), (4, 2), (10, 1)], 4 + 2 + 4 + 1),
        # All 8 channels are held until their left half is copied into the concatenation with 4 new channels.
        (chunked, [(1, 8), (4, 4), (8, 1)], 8 + 4 + 4),
        (padded, [(1, 8), (8, 1)], 8 + 8),
    ],
)
def test_peaks_by_hand(
    forward: Callable[[list[nn.Module], Tensor], Tensor], channels: list[tuple[int, int]], held: int
) -> None:
    assert peak_memory(Custom(forward, *channels), (1, 6, 5)) == 4 * 6 * 5 * held


def test_peak_of_a_chain() -> None:
    """Batch norm and ReLU hold nothing; the image is freed once the first convolution has read it."""
    network = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4), nn.MaxPool2d(2), nn.Flatten())
    assert peak_memory(network, (3, 8, 8)) == 4 * (8 + 4) * 64
    assert peak_memory(nn.Sequential(network, nn.Linear(64, 1000)), (3, 8, 8)) == 4 * 1064
    assert peak_memory(nn.Sequential(nn.Linear(5, 2)), (3, 8, 5)) == 4 * 24 * 7


SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": lambda x, y: x + y,
    "+, reversed": lambda x, y: y + x,
    "+=": lambda x, y: x.add_(y),
    "add": torch.add,
    "sum": lambda x, y: sum([x, y]),  # type: ignore[arg-type, return-value]
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "*=": lambda x, y: x.mul_(y),
    "maximum": torch.maximum,
    "addcmul": lambda x, y: torch.addcmul(x, x, y),
    "out": lambda x, y: torch.add(x, y, out=x),
}


@pytest.mark.parametrize("spelling", SUMS)
def test_a_sum_overwrites_a_term_that_dies_however_it_is_written(spelling: str) -> None:
    def forward(layers: list[nn.Module], x: Tensor) -> Tensor:
        first = layers[0](x)
        return layers[2](SUMS[spelling](layers[1](first), first))

    assert peak_memory(Custom(forward, (1, 4), (4, 4), (4, 4)), (1, 6, 5)) == 4 * 6 * 5 * (4 + 4)


Step = tuple[bool, int, int]


class Program(nn.Module):
    """A random program: each step convolves an earlier value, or adds two of them; the last value is the output.

    With `in_place`, a sum is written into a term that no later step reads, if there is one that is not the image.
    """

    def __init__(self, steps: list[Step], in_place: bool) -> None:
        super().__init__()
        self.convolution, self.steps, self.in_place = nn.Conv2d(2, 2, 1), steps, in_place

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, (adds, i, j) in enumerate(self.steps):
            first, second = i % len(values), j % len(values)
            if not adds:
                values.append(self.convolution(values[first]))
                continue
            free = [one for one in (first, second) if one and self.in_place and not self.used_after(number, one)]
            if free:
                other = second if free[0] == first else first
                values.append(values[free[0]].add_(values[other]))
            else:
                values.append(values[first] + values[second])
        return values[-1]

    def used_after(self, number: int, value: int) -> bool:
        later = [
            (adds, i % (step + 1), j % (step + 1)) for step, (adds, i, j) in enumerate(self.steps) if step > number
        ]
        return any(value == i or (adds and value == j) for adds, i, j in later)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9))
def test_any_program_has_one_peak_with_sums_in_place_or_not(steps: list[Step]) -> None:
    plain, in_place = (peak_memory(Program(steps, written), (2, 3, 3)) for written in (False, True))
    assert plain == in_place


class Bottleneck(nn.Module):
    """The residual block of ResNet-50, whose sum is written in two ways, as in torchvision and as in timm."""

    def __init__(self, inputs: int, width: int, stride: int, in_place: bool) -> None:
        super().__init__()
        unit = partial(nn.Conv2d, bias=False)
        self.body = nn.Sequential(
            *[unit(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU()],
            *[unit(width, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()],
            *[unit(width, 4 * width, 1), nn.BatchNorm2d(4 * width)],
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != 4 * width:
            self.shortcut = nn.Sequential(unit(inputs, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        y, x = self.body(x), self.shortcut(x)
        if self.in_place:
            y += x
            return y.relu_()
        return (y + x).relu()


@pytest.mark.parametrize("in_place", [False, True])
def test_resnet50_has_one_peak_in_both_spellings(in_place: bool) -> None:
    """The peak is in the first stage, while a 1x1 convolution reads 64 of 56x56 and writes 256 next to the 256 of the other branch."""
    with torch.device("meta"):
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for block in range(depth):
                width, stride = 64 * 2**stage, 2 if stage and not block else 1
                layers.append(Bottleneck(inputs, width, stride, in_place))
                inputs = 4 * width
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    assert peak_memory(network, (3, 224, 224)) == 4 * 56 * 56 * (64 + 256 + 256) == 7_225_344
    with torch.device("meta"):
        assert peak_memory(REFERENCE["resnet50"].build((3, 224, 224), 1000), (3, 224, 224)) == 7_225_344


def used_later(layers: list[nn.Module], x: Tensor) -> Tensor:
    first, second = layers[0](x), layers[1](x)
    total = first + second
    return layers[2](torch.cat([total, first, second], 1))


def in_a_concatenation(layers: list[nn.Module], x: Tensor) -> Tensor:
    first = layers[0](x)
    both = torch.cat([first, layers[1](x)], 1)
    total = first + layers[2](x)
    return layers[3](both) + total


def whole_concatenation(layers: list[nn.Module], x: Tensor) -> Tensor:
    both = torch.cat([layers[0](x), layers[1](x)], 1)
    return both + layers[2](both)


def broadcast(layers: list[nn.Module], x: Tensor) -> Tensor:
    first = layers[0](x)
    return first * first.mean((2, 3), keepdim=True).sigmoid() + layers[1](x.amax((2, 3), keepdim=True))


def halves(layers: list[nn.Module], x: Tensor) -> Tensor:
    left, right = layers[0](x).chunk(2, 1)
    return left + right


def image_itself(layers: list[nn.Module], x: Tensor) -> Tensor:
    return x + x.flip(1)


@pytest.mark.parametrize(
    "forward, channels, held",
    [
        # Both terms are needed again, so that the sum has its own memory, in the concatenation: 12 and the 1 of the output.
        (used_later, [(1, 4), (1, 4), (12, 1)], 4 + 4 + 4 + 1),
        # The first term is also in a concatenation that is needed: the sum overwrites the other one. The image lives, too.
        (in_a_concatenation, [(1, 4), (1, 4), (1, 4), (8, 4)], 4 + 4 + 4 + 4),
        # The sum overwrites the whole concatenation of 8 or the 8 of its convolution.
        (whole_concatenation, [(1, 4), (1, 4), (8, 8)], 8 + 8),
        # Half of an activation cannot be overwritten, because its whole is held: 8 and the 4 of the sum.
        (halves, [(1, 8)], 8 + 4),
        # The image is never overwritten, but its flipped copy is.
        (image_itself, [(1, 1)], 1 + 1),
    ],
)
def test_what_a_sum_may_overwrite(
    forward: Callable[[list[nn.Module], Tensor], Tensor], channels: list[tuple[int, int]], held: int
) -> None:
    assert peak_memory(Custom(forward, *channels), (1, 6, 5)) == 4 * 6 * 5 * held


def test_a_sum_overwrites_only_a_term_of_its_own_size() -> None:
    """The product overwrites the 120 of the activation, not the gate of 4; meanwhile the image is needed again."""
    assert peak_memory(Custom(broadcast, (1, 4), (1, 4)), (1, 6, 5)) == 4 * (30 + 120 + 4)


def test_all_inputs_live_until_they_are_read() -> None:
    """The second input of 7 waits while the first, of 30, becomes 120, and is never overwritten."""
    network = Computes(
        lambda net, x, more: net.layer(x).mean((2, 3)).sum() + (more + 0 * more), layer=nn.Conv2d(1, 4, 3, padding=1)
    )
    assert peak_memory(network, ((1, 6, 5), (7,))) == 4 * (30 + 120 + 7)


def test_further_outputs_live_if_they_are_used() -> None:
    """The indices of a max-pool are held until the pool is undone; unused ones are not even written."""

    class Pooled(nn.Module):
        def __init__(self, undone: bool) -> None:
            super().__init__()
            self.undone, self.before, self.after = undone, conv(1, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            pooled, indices = F.max_pool2d(self.before(x), 2, return_indices=True)
            inside = self.after(pooled)
            return F.max_unpool2d(inside, indices, 2) if self.undone else inside

    # Before it is undone: 4 x 15 pixels and indices, then the 4 x 60 of the result. While pooling: 4 x 60, 4 x 15 and 4 x 15.
    assert peak_memory(Pooled(True), (1, 10, 6)) == 4 * (60 + 60 + 240)
    assert peak_memory(Pooled(False), (1, 10, 6)) == 4 * (240 + 60)
    assert traffic(Pooled(True), (1, 10, 6)) == 4 * ((60 + 36 + 240) + (240 + 60 + 60) + (60 + 144 + 60) + (120 + 240))
    assert traffic(Pooled(False), (1, 10, 6)) == 4 * ((60 + 36 + 240) + (240 + 60) + (60 + 144 + 60))


@pytest.mark.parametrize("size, held", [((6, 6), 144 + 18 + 18), ((5, 6), 120 + 144 + 18)])
def test_odd_sides_are_padded_into_a_copy(size: tuple[int, int], held: int) -> None:
    assert peak_memory(FactorizedReduce(4, 4, affine=True), (4, *size)) == 4 * held


def test_peak_of_a_genotype_from_the_literature() -> None:
    """PDARTS peaks in its second cell: in units of 36x32x32, at its last edge, the newer input takes 4, the other nodes 3, the first
    term of the last node 1, and the input and output of the convolution that runs 2."""
    unit = 4 * 36 * 32 * 32
    assert peak_of(LITERATURE["PDARTS"], DARTS, Skeleton(20, 36, (3, 32, 32), 10)) == 10 * unit


# --- networks that run -------------------------------------------------------------------------------------------

Value = Callable[[], Tensor]
"""An activation as its readers see it. It holds the tensors it consists of and recomputes the free operations: ReLU,
batch norm, zeros, views and concatenations."""


class Ledger:
    """Run a derived network part by part and count the elements of the tensors that are alive.

    A tensor is freed with the last variable that refers to it. Every step therefore takes its input out of a `box`, a
    list that holds the only reference to a value that no later step needs.
    """

    def __init__(self) -> None:
        self.held = self.most = 0

    def kept(self, tensor: Tensor) -> Value:
        """Count a tensor until its storage is freed."""
        storage = tensor.untyped_storage()
        assert storage.nbytes() == 4 * tensor.numel()
        self.held += tensor.numel()
        self.most = max(self.most, self.held)
        weakref.finalize(storage, self.freed, tensor.numel())
        return lambda: tensor

    def freed(self, elements: int) -> None:
        self.held -= elements

    def through(self, module: nn.Module, box: list[Value]) -> Value:
        """Return the output of a module for the value in the box."""
        if isinstance(module, FactorizedReduce):
            return self.halved(module, box)
        if isinstance(module, nn.Sequential):
            for part in module:
                box.append(self.through(part, box))
            return box.pop()
        x = box.pop()
        if isinstance(module, (nn.ReLU, nn.BatchNorm2d, nn.Identity, Zero)):
            return x if isinstance(module, nn.Identity) else partial(folded, module, x)
        assert isinstance(module, (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d, nn.Linear)), module
        return self.kept(module(x()))

    def halved(self, module: FactorizedReduce, box: list[Value]) -> Value:
        x = box.pop()
        shifted = x
        height, width = x().shape[-2:]
        if height % 2 or width % 2:
            shifted = self.kept(F.pad(x().relu(), (0, width % 2, 0, height % 2)))
        even = self.kept(module.halves.even(x().relu()[:, :, ::2, ::2]))
        del x
        odd = self.kept(module.halves.odd(shifted().relu()[:, :, 1::2, 1::2]))
        return partial(folded, module.norm, partial(beside, [even, odd]))

    def added(self, terms: list[Value]) -> Value:
        total = terms.pop(0)
        while terms:
            result = total() + terms[0]()
            held = [self.held]
            del total
            held.append(self.held)
            del terms[0]
            held.append(self.held)
            if result.numel() not in (held[0] - held[1], held[1] - held[2]):  # no term dies that could be overwritten
                self.most = max(self.most, held[0] + result.numel())
            total = self.kept(result)
        return total

    def cell(self, cell: DerivedCell, box: list[Value]) -> Value:
        """Return the output of a cell; the box holds its older and newer input, or its only input."""
        reads = Counter(source for sources in cell.nodes.values() for source in sources)
        reads.update(cell.concat)
        states: dict[int, Value] = {}
        if cell.inputs == 1:
            states[0] = box.pop()
        else:
            for state, preprocess in enumerate([cell.older, cell.newer]):
                states[state] = self.through(preprocess, [box.pop(0)])
                if not reads[state]:
                    del states[state]
        edges = iter(cell.edges)
        for node, sources in cell.nodes.items():
            terms: list[Value] = []
            for source in sources:
                reads[source] -= 1
                input_box = [states[source] if reads[source] else states.pop(source)]
                terms.append(self.through(next(edges), input_box))
            states[node] = self.added(terms)
            if not reads[node]:
                del states[node]
        return partial(beside, [states[state] for state in cell.concat])

    def block(self, block: ResidualBlock, box: list[Value]) -> Value:
        convolved = self.through(block.convolutions, [box[0]])
        return self.added([convolved, self.through(block.shortcut, box)])

    def network(self, network: DerivedNetwork, image: Tensor) -> Tensor:
        """Return the logits of an image; a copy of it is counted, since the caller still holds the image."""
        inputs = [self.through(network.stem.older, [self.kept(image.clone())])]
        inputs.append(inputs[0] if network.stem.newer is None else self.through(network.stem.newer, [inputs[0]]))
        for layer, cell in enumerate(network.cells):
            two = isinstance(cell, DerivedCell) and cell.inputs == 2
            box = inputs if two else inputs[-1:]
            inputs = inputs[-1:] if two and layer + 1 < len(network.cells) else []
            inputs.append(self.cell(cell, box) if isinstance(cell, DerivedCell) else self.block(cell, box))
        x = self.through(network.classifier.activation, inputs[-1:])
        inputs.clear()
        x = self.kept(x().mean((2, 3)))
        return self.through(network.classifier.linear, [x])()


def folded(module: nn.Module, x: Value) -> Tensor:
    return module(x())


def beside(parts: list[Value]) -> Tensor:
    return torch.cat([part() for part in parts], 1)


@torch.no_grad()
@pytest.mark.parametrize("name", SPACES)
def test_peak_equals_the_memory_alive_in_a_forward_pass(name: str) -> None:
    """Every tensor of a real forward pass is counted by its storage; the logits must equal the network's own."""
    torch.manual_seed(0)
    for genotype, skeleton, peak in sample(name):
        assert alive(genotype, SPACES[name], skeleton) == peak, (genotype, skeleton)


@torch.no_grad()
@pytest.mark.parametrize("name", [f"FairDARTS_{letter}" for letter in "abcefg"])
def test_peak_equals_the_memory_alive_with_fewer_edges_per_node(name: str) -> None:
    torch.manual_seed(0)
    for skeleton in SKELETONS:
        assert alive(LITERATURE[name], DARTS, skeleton) == peak_of(LITERATURE[name], DARTS, skeleton)


def alive(genotype: Genotype, space: SearchSpace, skeleton: Skeleton) -> int:
    """Return the peak of the bytes alive while the ledger runs a network, after checking its logits against the network's own."""
    network, ledger = DerivedNetwork(genotype, space, skeleton).eval(), Ledger()
    image = torch.randn(1, *skeleton.image)
    logits = ledger.network(network, image)
    torch.testing.assert_close(logits, network(image))
    assert ledger.held == logits.numel()
    return 4 * ledger.most


# --- expected over mixtures --------------------------------------------------------------------------------------


@cache
def expected_peak(name: str, skeleton: Skeleton) -> ExpectedPeak:
    return ExpectedPeak(SPACES[name], skeleton, CPU)


def chosen_at(space: SearchSpace, alpha: Tensor) -> Tensor:
    """Return the probability that each (edge, primitive) is in the cell, from alphas (kinds, edges, primitives)."""
    weights = torch.softmax(alpha, -1) * torch.as_tensor(space.choosable)
    return weights * draw_probabilities(space, weights.sum(-1), siblings(space, weights.device))[..., None]


def random_alpha(space: SearchSpace, deviation: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return deviation * torch.randn(space.mask.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", SPACES)
def test_expected_peak_of_one_network_is_exact(name: str) -> None:
    for genotype, skeleton, peak in sample(name):
        value = expected_peak(name, skeleton)(torch.as_tensor(one_hot(SPACES[name], genotype)))
        assert value.dtype == torch.float64 and value.shape == ()
        assert value.item() == peak, (genotype, skeleton)


@pytest.mark.parametrize("name", SHIPPED)
def test_expected_peak_is_exact_at_the_deployment_skeleton(name: str) -> None:
    space = SPACES[name]
    skeleton = Skeleton(*space.deployment, (3, 32, 32), 10)
    for genotype in genotypes_of(space, 2, seed=1):
        value = expected_peak(name, skeleton)(torch.as_tensor(one_hot(space, genotype)))
        assert value.item() == peak_of(genotype, space, skeleton)


@pytest.mark.parametrize("layers", [1, 2])
def test_expected_peak_of_skeletons_without_normal_cells(layers: int) -> None:
    skeleton = Skeleton(layers, 4, (3, 9, 7), 10)
    for genotype in genotypes_of(DARTS, 5):
        chosen = torch.as_tensor(one_hot(DARTS, genotype))
        assert ExpectedPeak(DARTS, skeleton, CPU)(chosen).item() == peak_of(genotype, DARTS, skeleton)


@pytest.mark.parametrize("name", SHIPPED)
def test_gradient_matches_finite_differences(name: str) -> None:
    space, peak = SPACES[name], expected_peak(name, SKELETONS[0])
    alpha = random_alpha(space).requires_grad_()
    assert torch.autograd.gradcheck(lambda at: peak(chosen_at(space, at)) / 1000, (alpha,), fast_mode=True)
    (gradient,) = torch.autograd.grad(peak(chosen_at(space, alpha)), [alpha])
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", SHIPPED)
def test_peak_of_a_uniform_mixture_is_near_the_mean_of_its_networks(name: str) -> None:
    space, peak = SPACES[name], expected_peak(name, SKELETONS[0])
    peaks = [peak(torch.as_tensor(one_hot(space, genotype))).item() for genotype in genotypes_of(space, 100)]
    value = peak(chosen_at(space, torch.zeros(space.mask.shape, dtype=torch.float64))).item()
    assert min(peaks) < value < max(peaks)
    assert value == pytest.approx(np.mean(peaks), rel=0.1)


def test_saturated_mixtures_stay_finite() -> None:
    """If nothing is chosen, only the fixed memory remains."""
    peak, nothing = expected_peak("darts", SKELETONS[0]), torch.zeros(DARTS.mask.shape, dtype=torch.float64)
    value = peak(nothing.requires_grad_())
    (gradient,) = torch.autograd.grad(value, [nothing])
    assert value.item() > 0 and gradient.isfinite().all()


def test_spaces_that_concatenate_nodes_with_a_single_edge_are_refused() -> None:
    with pytest.raises(InputError, match="darts concatenates nodes with a single edge"):
        ExpectedPeak(replace(DARTS, keep=1), SKELETONS[0], CPU)

"""Search spaces: those shipped with the package, shorter lists of primitives, and the skeleton that repeats the cells."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rapdarts.architecture.genotype import random_genotype, validate
from rapdarts.architecture.space import KINDS, Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.errors import InputError
from tests.spaces import NAMES

DARTS, BENCH = named_space("darts"), named_space("nasbench201")


# --- shipped spaces ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_module_contains_its_space(name: str) -> None:
    space = named_space(name)
    assert isinstance(space, SearchSpace) and space.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        space.nodes = 9  # type: ignore[misc]
    assert space.kinds == KINDS[: space.inputs] and space.deployment[0] > 3
    assert space.mask.all() and space.mask.shape == (len(space.kinds), len(space.edges), len(space.primitives))
    assert list(space.primitives).count("none") == 1
    assert space.choosable.tolist() == [primitive != "none" or space.derive_none for primitive in space.primitives]
    validate(random_genotype(space, np.random.default_rng(0)), space, name)


@pytest.mark.parametrize(
    "name, nodes, edges, primitives",
    [
        (
            "darts",
            4,
            14,
            "none max_pool_3x3 avg_pool_3x3 skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 dil_conv_5x5",
        ),
        (
            "filters",
            4,
            14,
            "none max_pool_3x3 avg_pool_3x3 skip_connect conv_3x3 conv_5x5 sep_conv_3x3 sep_conv_5x5 "
            "bottleneck_3x3 bottleneck_5x5 factorized_3x3 factorized_5x5",
        ),
        (
            "nasnet",
            5,
            20,
            "none skip_connect max_pool_3x3 avg_pool_3x3 sep_conv_3x3 sep_conv_5x5 sep_conv_7x7 conv_7x1_1x7",
        ),
    ],
)
def test_definition_of_the_spaces_with_two_inputs(name: str, nodes: int, edges: int, primitives: str) -> None:
    space = named_space(name)
    assert (space.inputs, space.nodes, space.keep, len(space.edges)) == (2, nodes, 2, edges)
    assert list(space.primitives) == primitives.split()
    assert space.repeat_inputs is (name == "nasnet")


def test_definition_of_nasbench201() -> None:
    """Dong and Yang 2020, section 2.1. The primitives are in the order of the benchmark."""
    assert (BENCH.inputs, BENCH.nodes, BENCH.keep, BENCH.derive_none, BENCH.repeat_inputs) == (1, 3, None, True, False)
    assert list(BENCH.primitives) == ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    assert BENCH.edges == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert [BENCH.edges_kept(node) for node in range(3)] == [1, 2, 3]
    assert (BENCH.kinds, BENCH.outputs, BENCH.mask.shape) == (("normal",), (3,), (1, 6, 5))
    assert len(BENCH.primitives) ** len(BENCH.edges) == 15_625
    assert (BENCH.deployment, DARTS.deployment) == ((17, 16), (20, 36))


def test_the_number_of_inputs_determines_the_kinds_and_outputs() -> None:
    assert (DARTS.kinds, DARTS.outputs) == (KINDS, (2, 3, 4, 5))
    single = dataclasses.replace(DARTS, inputs=1, candidates=())
    assert (single.kinds, single.outputs, single.mask.shape) == (("normal",), (4,), (1, 10, 8))
    for inputs in (0, 3, -1):
        with pytest.raises(
            InputError, match=f"the space darts has cells with {inputs} inputs; a cell must have 1 or 2"
        ):
            dataclasses.replace(DARTS, inputs=inputs, candidates=())


def test_edges_are_ordered_by_node() -> None:
    assert DARTS.edges[:5] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [DARTS.edges_into(node) for node in range(4)] == [slice(0, 2), slice(2, 5), slice(5, 9), slice(9, 14)]
    for node in range(4):
        assert {into for into, _ in DARTS.edges[DARTS.edges_into(node)]} == {node}
    wide = dataclasses.replace(DARTS, keep=3)
    assert [wide.edges_kept(node) for node in range(4)] == [2, 3, 3, 3]
    assert [dataclasses.replace(DARTS, keep=None).edges_kept(node) for node in range(4)] == [2, 3, 4, 5]


# --- shorter lists of primitives ---------------------------------------------------------------------------------


def test_only_keeps_the_given_order() -> None:
    short = DARTS.only(["skip_connect", "none", "sep_conv_3x3"])
    assert list(short.primitives) == ["skip_connect", "none", "sep_conv_3x3"]
    assert short.candidates == ((("skip_connect", "none", "sep_conv_3x3"),) * 14,) * 2
    assert short.primitives["sep_conv_3x3"] is DARTS.primitives["sep_conv_3x3"]
    assert (short.name, short.nodes, short.keep) == ("darts", 4, 2)
    assert len(DARTS.primitives) == 8
    assert BENCH.only(["none", "nor_conv_3x3"]).candidates == ((("none", "nor_conv_3x3"),) * 6,)
    # On a narrowed space too, `only` opens all primitives of the shorter list.
    mask = np.zeros_like(DARTS.mask)
    mask[..., 5] = True
    assert DARTS.narrowed(mask).only(["none", "sep_conv_3x3"]).mask.all()


@pytest.mark.parametrize(
    "names, message",
    [
        (["sep_conv_3x3", "conv_3x3"], "the space darts has no primitive 'conv_3x3'; it has none, max_pool_3x3,"),
        (["sep_conv_3x3", "none", "sep_conv_3x3"], "lists a primitive twice"),
        (["none"], "leaves nothing to derive"),
        ([], "leaves nothing to derive"),
    ],
)
def test_only_refuses_invalid_lists(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DARTS.only(names)


def test_none_alone_is_enough_if_it_may_be_derived() -> None:
    deriving = dataclasses.replace(DARTS, derive_none=True)
    assert deriving.only(["none"]).choosable.tolist() == [True]


def test_narrowed_has_the_given_mask() -> None:
    mask = np.random.default_rng(0).random(DARTS.mask.shape) < 0.5
    space = DARTS.narrowed(mask)
    assert np.array_equal(space.mask, mask)
    assert space.candidates[1][13] == tuple(np.array(list(DARTS.primitives))[mask[1, 13]])
    assert DARTS.mask.all()
    half = np.random.default_rng(0).random(BENCH.mask.shape) < 0.5
    assert np.array_equal(BENCH.narrowed(half).mask, half)


# --- the skeleton ------------------------------------------------------------------------------------------------


def test_reductions_are_at_one_and_two_thirds() -> None:
    found = {layers: Skeleton(layers, 16, (3, 32, 32), 10).reductions for layers in (1, 2, 3, 5, 8, 11, 17, 20)}
    assert found == {1: {0}, 2: {0, 1}, 3: {1, 2}, 5: {1, 3}, 8: {2, 5}, 11: {3, 7}, 17: {5, 11}, 20: {6, 13}}
    assert [Skeleton(layers, 36, (3, 32, 32), 10).auxiliary_layer for layers in (5, 8, 20)] == [3, 5, 13]


def test_a_skeleton_with_fewer_than_two_channels_is_refused() -> None:
    assert Skeleton(3, 2, (1, 8, 8), 2).channels == 2
    for channels in (1, 0, -4):
        with pytest.raises(InputError, match="at least 2"):
            Skeleton(3, channels, (1, 8, 8), 2)


def test_cells_after_the_cifar_stem() -> None:
    plans = Skeleton(6, 10, (3, 33, 28), 10).cells(DARTS, {"normal": 4, "reduce": 3})
    assert [plan.kind for plan in plans] == ["normal", "normal", "reduce", "normal", "reduce", "normal"]
    assert [plan.channels for plan in plans] == [10, 10, 20, 20, 40, 40]
    assert [(plan.older, plan.newer) for plan in plans] == [
        (30, 30), (30, 40), (40, 40), (40, 60), (60, 80), (80, 120)
    ]  # fmt: skip
    assert [plan.size for plan in plans] == [(33, 28)] * 3 + [(17, 14)] * 2 + [(9, 7)]
    assert [plan.shrink_older for plan in plans] == [False, False, False, True, False, True]
    assert [plan.stride for plan in plans] == [1, 1, 2, 1, 2, 1]


def test_cells_after_the_imagenet_stem() -> None:
    plans = Skeleton(3, 48, (3, 224, 193), 1000, "imagenet").cells(DARTS)
    assert [(plan.older, plan.newer, plan.shrink_older) for plan in plans] == [
        (48, 48, True), (48, 192, False), (192, 384, True)
    ]  # fmt: skip
    assert [plan.size for plan in plans] == [(28, 25), (28, 25), (14, 13)]


@pytest.mark.parametrize(
    "stem, sides", [("cifar", [(33, 28), (17, 14), (9, 7)]), ("imagenet", [(5, 4), (3, 2), (2, 1)])]
)
def test_cells_with_one_input_keep_their_channels(stem: str, sides: list[tuple[int, int]]) -> None:
    """The 17 layers are three stages of five cells, with residual blocks between them."""
    plans = Skeleton(17, 16, (3, 33, 28), 10, stem).cells(BENCH)
    assert [plan.layer for plan in plans if plan.kind not in BENCH.kinds] == [5, 11]
    assert [plan.channels for plan in plans] == [16] * 5 + [32] * 6 + [64] * 6
    assert [plan.newer for plan in plans] == [16] * 6 + [32] * 6 + [64] * 5
    assert all(plan.older == plan.newer and not plan.shrink_older for plan in plans)
    assert [plan.size for plan in plans] == [sides[0]] * 6 + [sides[1]] * 6 + [sides[2]] * 5


def test_a_skeleton_without_cells_is_refused() -> None:
    assert len(Skeleton(3, 4, (1, 8, 8), 10).cells(BENCH)) == 3
    for layers in (1, 2):
        with pytest.raises(InputError, match=f"a skeleton of {layers} layers has no cell of the space nasbench201"):
            Skeleton(layers, 4, (1, 8, 8), 10).cells(BENCH)
        assert len(Skeleton(layers, 4, (1, 8, 8), 10).cells(DARTS)) == layers


def test_mixing_is_frozen() -> None:
    mixing = Mixing(torch.ones(2, 14, 8))
    assert mixing.edges is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixing.weights = torch.zeros(1)  # type: ignore[misc]

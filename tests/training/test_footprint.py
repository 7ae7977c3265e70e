"""Footprints compared with manual counts and with the memory of real steps on the CPU, to the byte where the two must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from rapdarts.architecture.space import Mixing, SearchSpace, Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.batched.supernet import BatchedSupernet
from rapdarts.networks.supernet import Supernet
from rapdarts.training.footprint import _SHAPES, BATCH, META, Alive, Footprint, footprint, lower_precision
from rapdarts.training.optimizer import to_device

CPU = torch.device("cpu")
IMAGES = 3


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


# --- by hand -----------------------------------------------------------------------------------------------------


def test_tensors_alive_at_the_same_time_are_counted() -> None:
    """100 bytes and 8 bytes per image are resident; the step allocates and releases 400 bytes, then allocates 40 per image."""

    def step() -> Tensor:
        first = empty(100)
        del first
        return empty(BATCH, 10)

    resident = [empty(25), empty(BATCH, 2)]
    found = footprint(step, resident)
    assert found.moments == ((100, 48), (500, 8))
    assert [found.bytes(batch) for batch in (0, 1, 10, 100)] == [500, 508, 580, 4900]


def test_a_storage_lives_until_its_last_view_is_released() -> None:
    def step() -> None:
        x = empty(BATCH, 4)
        half = x.view(2, BATCH, 2)[0]
        del x
        other = empty(BATCH)
        del half
        assert alive.each == 4
        del other

    with Alive() as alive:
        step()
    assert alive.each == alive.fixed == 0
    assert max(each for _, each in alive.moments) == 16 + 4


def test_saved_tensors_are_released_by_the_backward_pass() -> None:
    x, weight = empty(BATCH, 5), empty(7, 5).requires_grad_()
    with Alive() as alive:
        y = torch.nn.functional.linear(x, weight).exp()
        loss = y.sum()
        del y
        assert (alive.fixed, alive.each) == (4, 4 * 7)  # the loss; the output of exp
        (gradient,) = torch.autograd.grad(loss, [weight])
        assert (alive.fixed, alive.each) == (4 + 4 * 35, 0)
    assert gradient.shape == weight.shape


@pytest.mark.parametrize("free", [0, 99, 100, 501, 1000, 4999, 10**7])
def test_the_largest_batch_fits_and_the_next_does_not(free: int) -> None:
    found = Footprint(((100, 48), (340, 40), (500, 0)))
    batch = found.largest_batch(free)
    assert found.bytes(batch + 1) > free or found.bytes(0) > free
    assert batch == 0 or found.bytes(batch) <= free


def test_moments_that_cannot_be_the_peak_are_left_out() -> None:
    def step() -> None:
        for fixed, each in ((30, 1), (20, 5), (25, 3), (20, 2), (10, 5)):
            tensors = [empty(fixed, dtype=torch.uint8), empty(BATCH, each, dtype=torch.uint8)]
            del tensors

    with Alive() as alive:
        step()
    found = footprint(step)
    assert found.moments == ((20, 5), (25, 3), (30, 1))
    for batch in range(20):
        assert found.bytes(batch) == max(fixed + batch * each for fixed, each in alive.moments)


# --- shortcuts for shapes ----------------------------------------------------------------------------------------


def shape_of(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shortcuts_return_the_same_shapes_as_torch(dtype: torch.dtype) -> None:
    x = torch.randn(4, 6, 5, 3, dtype=dtype).to(memory_format=torch.channels_last)
    weight, mean, var = torch.rand(3, 6).unbind()
    aten, calls = torch.ops.aten, []
    y, *statistics = torch.native_batch_norm(x, weight, None, mean, var, True, 0.1, 1e-5)
    calls.append((aten.native_batch_norm.default, (x, weight, None, mean, var, True, 0.1, 1e-5)))
    for wanted in ((True, True, False), (True, False, True), (False, True, True)):
        given = (y, x, weight, mean, var, *statistics, True, 1e-5, wanted)
        calls.append((aten.native_batch_norm_backward.default, given))
    calls.append((aten.linalg_vector_norm.default, (x, 2)))
    assert {func for func, _ in calls} == set(_SHAPES)
    for func, given in calls:
        real, ours = func(*given), _SHAPES[func](*given)
        pairs = [(real, ours)] if isinstance(real, Tensor) else list(zip(real, ours, strict=True))
        assert [shape_of(a) for a, _ in pairs] == [shape_of(b) for _, b in pairs]


# --- real supernets ----------------------------------------------------------------------------------------------

DARTS = named_space("darts").only(["none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"])
SPACES = {
    "darts": DARTS,
    "filters": named_space("filters").only(["avg_pool_3x3", "conv_5x5", "bottleneck_3x3", "factorized_3x3"]),
    "nasbench201": named_space("nasbench201"),
}
VARIANTS: dict[str, tuple[SearchSpace, dict[str, Any]]] = {
    **{name: (space, {}) for name, space in SPACES.items()},
    "plain": (DARTS, {"plain": True}),
    "partial": (DARTS, {"partial": 2}),
    "checkpoint": (DARTS, {"checkpoint": True}),
    "odd": (DARTS, {"image": (1, 9, 7)}),
    "imagenet": (DARTS, {"image": (3, 40, 33), "stem": "imagenet"}),
    "bf16": (DARTS, {"amp": True}),
    "bf16 and checkpoint": (SPACES["filters"], {"amp": True, "checkpoint": True}),
}


def supernet_of(
    space: SearchSpace,
    image: tuple[int, int, int] = (3, 8, 8),
    stem: str = "cifar",
    partial: int = 1,
    plain: bool = False,
    checkpoint: bool = False,
    amp: bool = False,
) -> Supernet | BatchedSupernet:
    built = Supernet(space, Skeleton(3, 4, image, 10, stem), partial)
    supernet = to_device(built if plain else BatchedSupernet(built), built.classifier.linear.weight.device)  # type: ignore[union-attr, arg-type]
    supernet.checkpoint, supernet.dropout.rate = checkpoint, 0.3
    return supernet


def pair_of(name: str) -> tuple[Any, Any, Callable[[Any], Tensor]]:
    """Return the same supernet on the CPU and on the meta device, and a function that returns the loss of a forward pass."""
    space, settings = VARIANTS[name]
    image = settings.get("image", (3, 8, 8))
    real = supernet_of(space, **settings)
    with META:
        hollow = supernet_of(space, **settings)
    if settings.get("amp"):
        lower_precision(hollow)

    def loss(supernet: Any) -> Tensor:
        count, device = (BATCH, META) if supernet is hollow else (IMAGES, CPU)
        images = torch.empty(count, *image, device=device).normal_()
        labels = torch.zeros(count, dtype=torch.int64, device=device)
        weights = torch.full(space.mask.shape, 0.1, device=device)
        with torch.autocast("cpu", torch.bfloat16, bool(settings.get("amp")), cache_enabled=False):
            return cross_entropy(supernet(images, Mixing(weights)), labels)

    return real, hollow, loss


def kept(run: Callable[[], Tensor], weights: Sequence[Tensor], batch: int) -> int:
    """Return the bytes that a forward pass saves, except weights, scaled from BATCH to `batch` images; storages are counted once."""
    left_out = {id(weight.untyped_storage()) for weight in weights}
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[id(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = run()
    total = 0
    for key, storage in storages.items():
        each, fixed = divmod(storage.nbytes(), BATCH)
        total += 0 if key in left_out else fixed + each * batch
    del loss
    return total


@pytest.mark.parametrize("name", [name for name in VARIANTS if "bf16" not in name])
def test_saved_bytes_equal_those_on_the_cpu(name: str) -> None:
    real, hollow, loss = pair_of(name)
    ours, theirs = (
        kept(lambda net=net: loss(net), list(net.parameters()), IMAGES)  # type: ignore[misc]
        for net in (hollow, real)
    )
    assert ours == theirs > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_peak_bytes_match_those_on_the_cpu(name: str) -> None:
    """The peaks of a forward and backward pass differ slightly: depthwise gradients on a CPU use different temporaries."""
    real, hollow, loss = pair_of(name)

    def step(supernet: Any) -> None:
        torch.autograd.grad(loss(supernet), list(supernet.parameters()), allow_unused=True)

    with Alive() as alive:
        step(real)
    most = max(fixed for fixed, _ in alive.moments)
    assert footprint(lambda: step(hollow)).bytes(IMAGES) == pytest.approx(most, rel=0.1)

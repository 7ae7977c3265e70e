"""Derived networks are ordinary modules: everything that PyTorch does with modules works with them."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune

from rapdarts.architecture.genotype import Genotype, random_genotype
from rapdarts.architecture.literature import LITERATURE
from rapdarts.architecture.space import Skeleton
from rapdarts.deploy.space_lookup import named_space
from rapdarts.networks.derived import DerivedNetwork, drop_paths
from rapdarts.training.distributed import joined
from tests.together import Job

SKELETONS = {
    "PDARTS": Skeleton(3, 4, (3, 16, 16), 5),
    "NASNet": Skeleton(3, 4, (3, 15, 17), 5),  # a cell whose output omits nodes; images with odd sides
    "filters": Skeleton(4, 4, (1, 12, 12), 5),
    "nasbench201": Skeleton(4, 4, (3, 16, 16), 5),
    "imagenet": Skeleton(3, 4, (3, 64, 64), 5, "imagenet"),
}
EVERY_NETWORK = pytest.mark.parametrize("name", SKELETONS)


def genotype_of(name: str) -> Genotype:
    if name in ("filters", "nasbench201"):
        return random_genotype(named_space(name), np.random.default_rng(3))
    return LITERATURE["DARTS_V2" if name == "imagenet" else name]


def network_of(name: str, auxiliary: bool = False, seed: int = 0) -> DerivedNetwork:
    """Return a network whose batch norms have seen images, so that evaluation differs from training."""
    genotype = genotype_of(name)
    torch.manual_seed(seed)
    network = DerivedNetwork(genotype, named_space(genotype.space), SKELETONS[name], auxiliary)
    with torch.no_grad():
        for _ in range(3):
            network(images_of(name, 8))
    return network.eval()


def images_of(name: str, batch: int = 4) -> Tensor:
    return torch.randn(batch, *SKELETONS[name].image, generator=torch.Generator().manual_seed(9))


@EVERY_NETWORK
def test_a_deep_copy_is_equal_and_independent(name: str) -> None:
    network, images = network_of(name, auxiliary=True), images_of(name)
    twin = copy.deepcopy(network)
    assert torch.equal(twin(images), network(images))
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    assert network(images).abs().sum() > 0 == twin(images).abs().sum()


@EVERY_NETWORK
def test_weights_are_saved_and_loaded(name: str) -> None:
    network, other = network_of(name), network_of(name, seed=1)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    images = images_of(name)
    assert not torch.allclose(other(images), network(images))
    assert str(other.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"
    assert torch.equal(other(images), network(images))
    assert not [key for key in network.state_dict() if "auxiliary" in key]


@EVERY_NETWORK
def test_a_whole_module_is_saved_and_loaded(name: str) -> None:
    network, file = network_of(name, auxiliary=True), io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)  # written above
    assert torch.equal(again(images_of(name)), network(images_of(name)))


@pytest.mark.parametrize(
    ("name", "training"), [("PDARTS", True), ("NASNet", False), ("filters", False), ("nasbench201", True)]
)
def test_compiles_to_one_graph(name: str, training: bool) -> None:
    """With `fullgraph`, anything that would fall back to Python is an error."""
    torch._dynamo.reset()
    network = network_of(name, auxiliary=True).train(training)
    compiled = torch.compile(copy.deepcopy(network), backend="eager", fullgraph=True)
    images = images_of(name)
    expected, found = network(images), compiled(images)
    assert isinstance(found, tuple) is training
    for a, b in zip(expected, found, strict=True) if training else [(expected, found)]:
        assert torch.equal(a, b)
    if training:
        found[0].sum().backward()
        assert next(compiled.parameters()).grad is not None


def test_compiles_with_dropped_paths() -> None:
    torch._dynamo.reset()
    network = DerivedNetwork(LITERATURE["PDARTS"], named_space("darts"), Skeleton(1, 4, (3, 8, 8), 5)).train()
    compiled, images = torch.compile(network, backend="eager", fullgraph=True), torch.randn(8, 3, 8, 8)
    logits = []
    for rate in (0.5, 0.0):  # the rate is not a constant of the graph
        kept = drop_paths(network.paths, 8, torch.tensor(rate))
        assert torch.equal(network(images, kept), compiled(images, kept))
        logits.append(compiled(images, kept))
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("name", ["PDARTS", "NASNet", "nasbench201", "imagenet"])
def test_exports_with_a_dynamic_batch_size(name: str) -> None:
    network = network_of(name, auxiliary=True)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(network, (images_of(name),), dynamic_shapes={"images": {0: batch}}).module()
    for number in (1, 7):
        images = images_of(name, number)
        torch.testing.assert_close(exported(images), network(images))


@EVERY_NETWORK
def test_hooks_run_for_every_cell(name: str) -> None:
    network, shapes = network_of(name), []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, given, result: shapes.append(result.shape))
    gradients: list[Any] = []
    network.classifier.register_full_backward_hook(lambda module, given, result: gradients.append(given[0].shape))
    network(images_of(name)).sum().backward()
    assert len(shapes) == SKELETONS[name].layers
    assert all(len(shape) == 4 for shape in shapes)
    assert gradients == [shapes[-1]]


@EVERY_NETWORK
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(name: str, dtype: torch.dtype) -> None:
    network, images = network_of(name), images_of(name)
    expected = network(images)
    found = network.to(dtype)(images.to(dtype))
    assert found.dtype == dtype
    bound = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float64: 1e-4}[dtype]
    assert (found.double() - expected.double()).norm() < bound * expected.double().norm()


@EVERY_NETWORK
def test_trains_under_autocast(name: str) -> None:
    network = network_of(name, auxiliary=True).train()
    kept = drop_paths(network.paths, 4, torch.tensor(0.3))
    with torch.autocast("cpu", torch.bfloat16):
        logits, extra = network(images_of(name), kept)
    assert logits.dtype == torch.bfloat16
    (logits.float().sum() + extra.float().sum()).backward()
    assert network.stem.older[0].weight.grad.isfinite().all()


@EVERY_NETWORK
def test_channels_last_is_preserved(name: str) -> None:
    network, images = network_of(name), images_of(name)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    found = network(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if images.shape[1] > 1:  # with one channel, the formats are indistinguishable, and torch may drop channels last
        assert all(x.stride(1) == 1 for x in seen)


@EVERY_NETWORK
def test_training_mode_and_evaluation_mode(name: str) -> None:
    network, images = network_of(name, auxiliary=True), images_of(name)
    before = {key: value.clone() for key, value in network.named_buffers()}
    evaluated = network(images)
    assert all(torch.equal(value, before[key]) for key, value in network.named_buffers())
    torch.testing.assert_close(network(images[:1]), evaluated[:1], rtol=1e-4, atol=1e-5)
    trained = network.train()(images)
    assert isinstance(trained, tuple)
    assert any(not torch.equal(value, before[key]) for key, value in network.named_buffers())
    network.requires_grad_(False).eval()
    assert not network(images).requires_grad


@EVERY_NETWORK
def test_pruning_and_parametrization(name: str) -> None:
    network, images = network_of(name), images_of(name)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    expected = network(images)
    prune.global_unstructured([(conv, "weight") for conv in convolutions], prune.L1Unstructured, amount=0.5)
    sparse = network(images)
    assert not torch.allclose(sparse, expected)
    for conv in convolutions:
        prune.remove(conv, "weight")
    assert torch.equal(network(images), sparse)
    zeros = sum(int((conv.weight == 0).sum()) for conv in convolutions)
    assert zeros == pytest.approx(0.5 * sum(conv.weight.numel() for conv in convolutions), abs=1)

    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    parametrize.register_parametrization(network.classifier.linear, "weight", Twice())
    bias = network.classifier.linear.bias
    torch.testing.assert_close(network(images) - bias, 2 * (sparse - bias))


@EVERY_NETWORK
def test_functional_calls_and_vmap(name: str) -> None:
    network, images = network_of(name), images_of(name)
    weights = dict(network.named_parameters())
    torch.testing.assert_close(functional_call(network, weights, (images,)), network(images))

    def logits(image: Tensor) -> Tensor:
        return functional_call(network, weights, (image[None],))[0]

    torch.testing.assert_close(vmap(logits)(images), network(images), rtol=1e-4, atol=1e-5)


def gradients(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the gradients of a loss on both heads' logits, for the weights that have a gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DistributedDataParallel warns if it finds no unused parameters
        logits, extra = network.train()(images)
    (logits.sum() + extra.square().sum()).backward()
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def train_distributed(folder: str) -> None:
    """Run every network in torch's DistributedDataParallel, each process with its share of the images."""
    with joined("cpu") as process_group:
        for name in SKELETONS:
            # All processes start with the weights of process 0.
            network = network_of(name, auxiliary=True, seed=process_group.rank).double()
            wrapped = DistributedDataParallel(network, find_unused_parameters=True)
            images = images_of(name).double()[process_group.rank :: process_group.size]
            found = {key.removeprefix("module."): value for key, value in gradients(wrapped, images).items()}
            torch.save(found, f"{folder}/{name}-{process_group.rank}")


def test_distributed_data_parallel_in_two_processes(tmp_path: Path) -> None:
    codes, output = Job(tmp_path, train_distributed, str(tmp_path)).end()
    assert codes == [0, 0], output
    for name in SKELETONS:
        images = images_of(name).double()
        first, second = (gradients(network_of(name, auxiliary=True).double(), images[rank::2]) for rank in (0, 1))
        expected = {key: (first[key] + second[key]) / 2 for key in first}
        assert not torch.allclose(first["stem.older.0.weight"], second["stem.older.0.weight"])
        for rank in (0, 1):
            torch.testing.assert_close(torch.load(tmp_path / f"{name}-{rank}", weights_only=True), expected)


@EVERY_NETWORK
def test_built_on_the_meta_device_and_filled(name: str) -> None:
    network = network_of(name)
    with torch.device("meta"):
        empty = DerivedNetwork(genotype_of(name), named_space(genotype_of(name).space), SKELETONS[name])
    empty.load_state_dict(network.state_dict(), assign=True)
    assert torch.equal(empty.eval()(images_of(name)), network(images_of(name)))


@EVERY_NETWORK
def test_parts_are_named_and_printed(name: str) -> None:
    network = network_of(name, auxiliary=True)
    assert "DerivedNetwork" in repr(network)
    assert {name for name, _ in network.named_children()} == {"stem", "cells", "classifier", "auxiliary"}
    assert sum(1 for _ in network.modules()) > 40

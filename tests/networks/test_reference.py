"""Reference networks: the contract that all of them fulfil, their exact published sizes, and what distinguishes each variant."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from rapdarts.cost.count import macs, params
from rapdarts.errors import InputError
from rapdarts.networks.reference import REFERENCE, find_reference, reference_named, width_problem
from rapdarts.networks.reference.layers import Concat, Image, PaddedIdentity, Residual, map_behind
from rapdarts.networks.reference.shufflenet import ChannelSplit, Shuffle

ANY_SIZE = [name for name in REFERENCE if re.match("googlenet|resne|mobilenet|shufflenet|densenet", name)]
PLAIN = ["alexnet", "alexnet_two_group", "alexnet_d2l", "small_alexnet", "vgg11", "nin", "googlenet_d2l"]


def weightless(name: str, image: Image | None = None, classes: int | None = None) -> nn.Module:
    reference = REFERENCE[name]
    with torch.device("meta"):
        return reference.build(image or reference.image, classes or reference.classes)


def logits_of(network: nn.Module, image: Image) -> tuple[int, ...]:
    """Return the shape of the logits of a weightless network, from which this function removes the batch norms.

    Batch norms change no shape and take most of the time.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        return tuple(network.eval()(torch.empty(2, *image, device="meta")).shape)


def images_of(shape: Image, batch: int = 2) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(3))


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def refusal(name: str, image: Image) -> str:
    with pytest.raises(InputError) as error:
        weightless(name, image)
    return str(error.value)


@cache
def smallest(name: str) -> Image:
    """Return the smallest image that the network takes according to its error message."""
    given = re.search(r"at least (\d+)x(\d+)x(\d+)", refusal(name, (REFERENCE[name].image[0], 0, 0)))
    assert given
    return int(given[1]), int(given[2]), int(given[3])


# --- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCE)
def test_network_trains_and_evaluates(name: str) -> None:
    channels, least, _ = smallest(name)
    image = (1 if name in ANY_SIZE else channels, max(least, 28), max(least, 28))
    torch.manual_seed(0)
    network = REFERENCE[name].build(image, 7)
    logits = network(images_of(image))
    assert logits.shape == (2, 7) and logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        # A bias has a zero gradient if a batch norm of a single pixel removes it again.
        assert parameter.dim() == 1 or parameter.grad.any(), key
    network.eval()
    with torch.no_grad():
        first, second = network(images_of(image)), network(images_of(image))
    assert first.shape == (2, 7) and torch.equal(first, second)


@pytest.mark.parametrize("name", REFERENCE)
def test_builds_on_the_meta_device_for_its_own_image(name: str) -> None:
    reference, state = REFERENCE[name], torch.get_rng_state()
    network = weightless(name)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    assert logits_of(network, reference.image) == (2, reference.classes)


@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("image", [(3, 32, 32), (2, 61, 40)], ids=["32x32", "61x40"])
def test_networks_with_a_global_pool_take_any_image(name: str, image: Image) -> None:
    assert logits_of(weightless(name, image, 10), image) == (2, 10)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_smallest_image_is_accepted_and_a_smaller_one_refused(name: str) -> None:
    channels, _, width = least = smallest(name)
    network = weightless(name, least, 5)
    assert logits_of(network, least) == (2, 5)
    message = refusal(name, (channels, 300, width - 1))
    layer = re.search(
        rf"^{REFERENCE[name].factory.partition('.')[2]} .* {channels}x300x{width - 1}: .* of its layer (\w+) would be empty;",
        message,
    )
    assert layer and hasattr(network, layer[1])


def test_the_message_for_an_image_that_is_too_small() -> None:
    assert refusal("vgg11", (3, 28, 28)) == (
        "vgg11 cannot take an image of 3x28x28: the output of its layer pool5 would be empty; "
        "use images of at least 3x32x32, or the network small_alexnet."
    )
    assert "of its layer pool5 would be empty; use images of at least 3x63x63" in refusal("alexnet", (3, 32, 32))
    assert (
        "of its layer mlpconv1 would be empty; use images of at least 1x67x67, or the network googlenet_28."
        in refusal("nin", (1, 8, 8))
    )
    assert refusal("lenet", (1, 11, 28)).endswith("use images of at least 1x12x12.")


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, weights, multiplications",
    [
        ("lenet", 61_706, 416_520),
        ("alexnet", 61_100_840, 716_767_232),
        ("alexnet_two_group", 60_965_224, 724_406_816),
        ("alexnet_d2l", 46_787_978, 1_005_890_688),
        ("small_alexnet", 1_387_786, 25_113_472),  # Zhang et al. 2017, table 1
        ("vgg11", 132_863_336, 7_609_090_048),
        ("vgg11_d2l", 128_807_306, 7_605_035_008),
        ("nin", 2_015_398, 830_041_864),
        ("googlenet", 6_624_904, 1_498_376_192),
        ("googlenet_d2l", 5_983_802, 1_581_658_112),
        ("googlenet_28", 1_649_402 + 1_712, 204_219_680),  # Zhang et al. 2017, table 1, plus the scales of the norms
        ("resnet20", 269_722, 40_551_040),  # He et al. 2016, table 6: 0.27 M parameters
        ("resnet18", 11_689_512, 1_814_073_344),
        ("resnet34", 21_797_672, 3_663_761_408),
        ("resnet50", 25_557_032, 4_089_184_256),
        ("resnet101", 44_549_160, 7_801_405_440),
        ("resnext50_32x4d", 25_028_904, 4_230_479_872),
        ("mobilenet_v1", 4_231_976, 568_740_352),
        ("mobilenet_v2", 3_504_872, 300_774_272),
        ("shufflenet_v1", 1_865_728, 137_460_672),
        ("shufflenet_v2_x1_0", 2_278_604, 144_907_992),
        ("densenet121", 7_978_856, 2_834_161_664),
    ],
)
def test_published_sizes(name: str, weights: int, multiplications: int) -> None:
    network, image = weightless(name), REFERENCE[name].image
    assert (params(network, image), macs(network, image)) == (weights, multiplications)


@pytest.mark.parametrize(
    "name, conv_weights, conv_macs, linear_weights, linear_macs",
    [
        ("alexnet", 2_468_544, 658_145_280, 58_621_952, 58_621_952),
        ("alexnet_two_group", 2_332_704, 665_784_864, 58_621_952, 58_621_952),
        ("alexnet_d2l", 3_745_824, 962_858_112, 43_032_576, 43_032_576),
    ],
)
def test_convolutions_and_linear_layers(
    name: str, conv_weights: int, conv_macs: int, linear_weights: int, linear_macs: int
) -> None:
    """The weights are counted without biases."""
    network, image = weightless(name), REFERENCE[name].image
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert sum(layer.weight.numel() for layer in convolutions(network)) == conv_weights
    assert sum(layer.weight.numel() for layer in linears) == linear_weights == linear_macs
    assert macs(network, image) - linear_macs == conv_macs


def test_alexnet_at_224_has_the_same_size() -> None:
    network = weightless("alexnet", (3, 224, 224))
    assert params(network, (3, 224, 224)) == 61_100_840


ALEXNET = {
    "conv1": (784, 23_232, 72_855_552),
    "pool1": (182.25, 0, 0),
    "conv2": (546.75, 307_200, 223_948_800),
    "pool2": (126.75, 0, 0),
    "conv3": (253.5, 663_552, 112_140_288),
    "conv4": (169, 884_736, 149_520_384),
    "conv5": (169, 589_824, 99_680_256),
    "pool5": (36, 0, 0),
    "fc6": (16, 37_748_736, 37_748_736),
    "fc7": (16, 16_777_216, 16_777_216),
    "fc8": (3.90625, 4_096_000, 4_096_000),
}
"""By layer: KiB of fp32 outputs, weights without biases, and multiply-accumulates."""


def test_alexnet_layer_by_layer() -> None:
    network, shapes = weightless("alexnet").eval(), {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda _, given, output, name=name: shapes.update({name: (given[0], output)}))
    network(torch.empty(1, 3, 227, 227, device="meta"))
    found = {}
    for name, (given, output) in shapes.items():
        if not re.match("relu|dropout|flatten", name):
            layer = network.get_submodule(name)
            weights = layer.weight.numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0
            found[name] = (output.numel() * 4 / 1024, weights, macs(layer, tuple(given.shape[1:])))
    assert found == ALEXNET


@pytest.mark.parametrize(
    "name, count",
    [
        ("alexnet", 5),
        ("vgg11", 8),
        ("nin", 12),
        ("googlenet", 57),
        ("googlenet_d2l", 57),
        ("googlenet_factorized", 3 + 4 * 7 + 5 * 10),
        ("googlenet_expanded", 3 + 2 * 7 + 5 * 10 + 2 * 9),
        ("googlenet_residual", 57 + 9 + 6),  # one before each sum, and one in each shortcut that changes the width
        ("googlenet_28", 19),
        ("resnet20", 19),
        ("resnet18", 17 + 3),
        ("resnet34", 33 + 3),
        ("resnet50", 49 + 4),
        ("resnet101", 100 + 4),
        ("mobilenet_v1", 27),
        ("mobilenet_v2", 52),
        ("densenet121", 120),
    ],
)
def test_number_of_convolutions(name: str, count: int) -> None:
    assert len(convolutions(weightless(name))) == count


# --- differences between the variants ----------------------------------------------------------------------------


def test_groups_of_alexnet() -> None:
    groups = {name: [layer.groups for layer in convolutions(weightless(name))] for name in PLAIN[:3]}
    assert groups == {
        "alexnet": [1, 1, 1, 1, 1],
        "alexnet_two_group": [1, 2, 1, 2, 2],
        "alexnet_d2l": [1, 1, 1, 1, 1],
    }


@pytest.mark.parametrize("name", PLAIN)
def test_networks_without_norms_use_glorot_initialisation(name: str) -> None:
    channels, least, _ = smallest(name)
    network = REFERENCE[name].build((channels, max(least, 28), max(least, 28)), 5)
    for layer in network.modules():
        assert not isinstance(layer, nn.BatchNorm2d)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None and not layer.bias.any()
            outputs, inputs = layer.weight.shape[:2]
            fans = (inputs + outputs) * layer.weight[0, 0].numel()
            torch.testing.assert_close(layer.weight.std().item() ** 2, 2 / fans, rtol=0.25, atol=0)


@pytest.mark.parametrize(
    "name, kernels",
    [
        ("googlenet_d2l", {(7, 7), (1, 1), (3, 3), (5, 5)}),
        ("googlenet", {(7, 7), (1, 1), (3, 3)}),
        ("googlenet_residual", {(7, 7), (1, 1), (3, 3)}),
        ("googlenet_factorized", {(7, 7), (1, 1), (3, 3), (1, 7), (7, 1)}),
        ("googlenet_expanded", {(7, 7), (1, 1), (3, 3), (1, 7), (7, 1), (1, 3), (3, 1)}),
        ("googlenet_28", {(1, 1), (3, 3)}),
    ],
)
def test_kernels_of_googlenet(name: str, kernels: set[tuple[int, int]]) -> None:
    assert {layer.kernel_size for layer in convolutions(weightless(name))} == kernels


def test_designs_of_the_inception_module() -> None:
    """The third branch of the module has a different sequence of kernels in each design.

    These are: 5x5; two 3x3, which cover 5x5 pixels with 18 weights instead of 25; 1x7 and 7x1, twice; 3x3, then 1x3 and 3x1 in parallel.
    """

    def kernels(name: str, module: str) -> list[tuple[int, ...]]:
        return [layer.kernel_size for layer in convolutions(weightless(name).get_submodule(f"{module}.branch3"))]

    assert kernels("googlenet_d2l", "inception3a") == [(1, 1), (5, 5)]
    assert kernels("googlenet_factorized", "inception3a") == [(1, 1), (3, 3), (3, 3)]
    assert kernels("googlenet_factorized", "inception4c") == [(1, 1), (1, 7), (7, 1), (1, 7), (7, 1)]
    assert kernels("googlenet_expanded", "inception5b") == [(1, 1), (3, 3), (1, 3), (3, 1)]


def test_outputs_of_the_inception_modules() -> None:
    widths = {
        name: weightless(name).get_submodule("fc").in_features
        for name in ("googlenet", "googlenet_factorized", "googlenet_expanded", "googlenet_residual")
    }
    assert widths == {
        "googlenet": 1024,
        "googlenet_factorized": 1024,
        "googlenet_expanded": 384 + 2 * 384 + 2 * 128 + 128,
        "googlenet_residual": 1024,
    }


def test_residuals_have_the_width_of_their_shortcuts() -> None:
    shapes = []

    def record(residual: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(residual, Residual)
        body, shortcut = residual.body(given[0]), residual.shortcut(given[0])
        assert body.shape == shortcut.shape == output.shape
        shapes.append((output.shape[1], isinstance(residual.shortcut, nn.Identity)))

    network = weightless("googlenet_residual").eval()
    for module in network.modules():
        if isinstance(module, Residual):
            module.register_forward_hook(record)
    network(torch.empty(1, 3, 224, 224, device="meta"))
    stages = [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert shapes == [(width, width == before) for before, width in zip([192, *stages], stages, strict=False)]


def test_residual_with_a_zero_body_is_the_relu_of_its_input() -> None:
    network = REFERENCE["resnet18"].build((3, 32, 32), 10)
    block = network.get_submodule("stage1.block2")
    nn.init.zeros_(block.get_parameter("body.conv2.norm.weight"))
    x = images_of((64, 4, 4))
    torch.testing.assert_close(block(x), x.relu())


def test_resnext_has_32_groups_of_width_4() -> None:
    def middle(name: str) -> nn.Conv2d:
        layer = weightless(name).get_submodule("stage1.block1.body.conv2.conv")
        assert isinstance(layer, nn.Conv2d)
        return layer

    assert (middle("resnet50").groups, middle("resnet50").out_channels) == (1, 64)
    assert (middle("resnext50_32x4d").groups, middle("resnext50_32x4d").out_channels) == (32, 32 * 4)


def test_mobilenet_v2_projections_are_linear() -> None:
    network = weightless("mobilenet_v2")
    narrow = [module for name, module in network.named_modules() if name.endswith("project")]
    assert len(narrow) == 17 and all([*dict(module.named_children())] == ["conv", "norm"] for module in narrow)
    assert sum(isinstance(module, Residual) for module in network.modules()) == 10


def test_shuffle_interleaves_the_groups() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert Shuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert Shuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_shufflenet_v2_filters_half_of_the_channels() -> None:
    x = images_of((6, 2, 2))
    y = ChannelSplit(nn.Conv2d(3, 3, 1))(x)
    assert y.shape == x.shape and torch.equal(y[:, :3], x[:, :3]) and not torch.equal(y[:, 3:], x[:, 3:])


def test_dense_layers_keep_their_inputs() -> None:
    network = REFERENCE["densenet121"].build((3, 32, 32), 10)
    layer, x = network.get_submodule("block1.layer0"), images_of((64, 4, 4))
    y = layer(x)
    assert isinstance(layer, Concat) and y.shape == (2, 96, 4, 4) and torch.equal(y[:, :64], x)


def test_map_behind_computes_the_output_shape() -> None:
    layers: dict[str, nn.Module] = {
        "first": nn.Sequential(nn.Conv2d(3, 5, 5, 2, 1), nn.ReLU()),
        "second": nn.MaxPool2d(3, 2, 1),
        "third": nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(5, 4, 3)),
    }
    for image in ((3, 33, 40), (3, 25, 27), (3, 64, 31)):
        assert map_behind("net", layers, image) == nn.Sequential(*layers.values())(torch.zeros(1, *image)).shape[1:]


# --- width -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "image", "classes"), [(16, (3, 32, 32), 10), (12, (1, 8, 8), 10), (1, (2, 5, 7), 3), (5, (3, 28, 28), 7)]
)
def test_sizes_of_resnet20_at_any_width(width: int, image: Image, classes: int) -> None:
    """Stage s has 2^s x `width` channels in six 3x3 convolutions, of which only the first reads the previous stage."""
    weights, norms, multiplications = 9 * image[0] * width, width, 9 * image[0] * width * image[1] * image[2]
    before = width
    for stage, channels in enumerate((width, 2 * width, 4 * width)):
        pixels = -(-image[1] // 2**stage) * -(-image[2] // 2**stage)
        kernels = 9 * (before * channels + 5 * channels**2)
        weights, norms, before = weights + kernels, norms + 6 * channels, channels
        multiplications += kernels * pixels
    head = 4 * width * classes
    network = reference_named(find_reference(f"ResNet20@{width}") or "").build(image, classes)
    assert params(network, image) == weights + 2 * norms + head + classes
    assert macs(network, image) == multiplications + head


def test_a_padded_shortcut_appends_zeros_to_every_second_pixel() -> None:
    x = images_of((2, 3, 4))
    y = PaddedIdentity(3, 2)(x)
    assert y.shape == (2, 5, 2, 2) and torch.equal(y[:, :2], x[:, :, ::2, ::2]) and not y[:, 2:].any()
    network = weightless("resnet20")
    padded = [name for name, module in network.named_modules() if isinstance(module, PaddedIdentity)]
    assert padded == ["stage2.block1.shortcut", "stage3.block1.shortcut"]


@pytest.mark.parametrize(
    ("name", "full", "problem"),
    [
        ("RESNET20", "resnet20", ""),
        ("ResNet20@12", "resnet20@12", ""),
        ("resnet20@16", "resnet20", ""),
        ("resnet20@004", "resnet20@4", ""),
        ("resnet20@4096", "resnet20@4096", ""),
        ("resnet20@4097", None, "resnet20@4097: the width must be a whole number from 1 to 4096, such as resnet20@12."),
        ("resnet20@0", None, "resnet20@0: the width must be a whole number from 1 to 4096, such as resnet20@12."),
        ("resnet20@", None, "resnet20@: the width must be a whole number from 1 to 4096, such as resnet20@12."),
        ("resnet20@1.5", None, "resnet20@1.5: the width must be a whole number from 1 to 4096, such as resnet20@12."),
        ("resnet20@²", None, "resnet20@²: the width must be a whole number from 1 to 4096, such as resnet20@12."),
        ("LeNet@3", None, "lenet has a fixed width; leave the @3 out."),
        ("renset@3", None, ""),
    ],
)
def test_names_with_a_width(name: str, full: str | None, problem: str) -> None:
    assert (find_reference(name), width_problem(name)) == (full, problem)
    if full is not None:
        assert reference_named(full).width == int(full.partition("@")[2] or 16)
    if full != name:
        with pytest.raises(KeyError):
            reference_named(name)


# --- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lenet", "small_alexnet", "googlenet_28"])
def test_network_overfits_a_batch(name: str) -> None:
    image = REFERENCE[name].image
    torch.manual_seed(0)
    network, images, labels = REFERENCE[name].build(image, 4), images_of(image, 4), torch.arange(4)
    optimizer, losses = torch.optim.Adam(network.parameters(), 2e-3), []
    for _ in range(8):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

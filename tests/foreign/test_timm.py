"""Networks of timm, counted against PyTorch's FLOP counter. `make proofs` runs this file in a separate environment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rapdarts.cost.count import count, macs, not_counted

timm = pytest.importorskip("timm", reason="timm is installed only in the environment that `make proofs` makes")

NAMES = """
bat_resnext26ts beit_base_patch16_224 botnet26t_256 caformer_s18 cait_s24_224 coat_lite_mini coatnet_nano_cc_224 convit_small
convmixer_768_32 convnext_atto crossvit_18_240 cs3darknet_focus_s davit_small deit3_small_patch16_224 densenet121 dla34 dpn48b
ecaresnet26t edgenext_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientvim_m1 efficientvit_b0
efficientvit_m0 ese_vovnet19b_slim eva02_small_patch14_224 fasternet_s fastvit_s12 flexivit_small focalnet_tiny_srf gcvit_tiny
ghostnet_050 gmlp_s16_224 hardcorenas_a hgnet_small hiera_small_224 hrnet_w18 inception_next_atto inception_v3 inception_v4
lcnet_050 levit_128s mambaout_femto mixer_b16_224 mobilenetv3_small_100 mobilevit_s mvitv2_tiny nest_tiny nextvit_small
nf_ecaresnet26 pit_s_224 poolformer_s12 pvt_v2_b0 rdnet_tiny regnetx_004 regnety_004 repghostnet_050 repvit_m0_9
res2net50_14w_8s resnest26d resnet50 resnetv2_18 rexnet_150 seresnet18 selecsls42 shvit_s1 skresnet18 starnet_s1 swiftformer_s
swin_tiny_patch4_window7_224 swinv2_small_window8_256 swinv2_cr_small_224 tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m
twins_pcpvt_small vgg11 visformer_small vit_relpos_small_patch16_224 vitamin_small_224 volo_d1_224 xception41
xcit_nano_12_p8_224
"""
NETWORKS = NAMES.split()

CONSTANTS = {
    # Each of 24 blocks computes its bias by a perceptron (2 -> 512 -> heads) from a table of 15 x 15 offsets.
    "swinv2_small_window8_256": 225 * (24 * 2 * 512 + 512 * (2 * 3 + 2 * 6 + 18 * 12 + 2 * 24)),
    # The same for every pair of the 49 places of a window, with 384 hidden units.
    "swinv2_cr_small_224": 49 * 49 * (24 * 2 * 384 + 384 * (2 * 3 + 2 * 6 + 18 * 12 + 2 * 24)),
    # Ten blocks map the offsets of all pairs of 14 x 14 patches, three numbers each, to a score for each of 9 heads.
    "convit_small": 10 * 196 * 196 * 3 * 9,
    # A convolution projects 64 waves at each place of a map of 32 x 32, or 28 x 28, to its channels.
    "edgenext_small": 32 * 32 * 64 * 96,
    "xcit_nano_12_p8_224": 28 * 28 * 64 * 128,
    # 12 blocks, 27 x 27 offsets, 128 hidden units, 6 heads.
    "vit_relpos_small_patch16_224": 12 * 27 * 27 * (2 * 128 + 128 * 6),
}
"""MACs that PyTorch counts and we do not, because they are made of weights and positions alone: the same for every image."""

NAMED = {
    # The mean of branches, weighted by their attention, is an element-wise product followed by a sum.
    "resnest26d": {"mul + sum": 8},
    "skresnet18": {"mul + sum": 8},
    # The global query is a weighted sum over the tokens.
    "swiftformer_s": {"mul + sum": 4},
}
"""Operations without a formula, by network, with their number."""


def built(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return a network without weights, and the shape of its images."""
    with torch.device("meta"):
        network: Any = timm.create_model(name, pretrained=False)
    return network.eval().requires_grad_(False), network.pretrained_cfg["input_size"]


def test_the_networks_are_of_many_families() -> None:
    assert len(set(NETWORKS)) == len(NETWORKS) >= 80
    modules = {timm.models.model_entrypoint(name).__module__ for name in NETWORKS}
    assert len(modules) >= 60


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_equal_pytorchs_count_or_differ_by_constants(name: str) -> None:
    network, image = built(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *image, device="meta"))
    assert counter.get_total_flops() % 2 == 0
    assert macs(network, image) == counter.get_total_flops() // 2 - CONSTANTS.get(name, 0) > 0
    assert {operation: len(layers) for operation, layers in not_counted(network, image).items()} == NAMED.get(name, {})


@pytest.mark.parametrize("name", ["efficientnet_b0", "swin_tiny_patch4_window7_224", "volo_d1_224", "mobilevit_s"])
def test_all_resources_are_counted(name: str) -> None:
    network, image = built(name)
    costs = count(network, image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert costs["params"] == parameters and costs["bytes"] == 4 * parameters
    largest = max(costs["activations"] // 10_000, image[0] * image[1] * image[2])
    assert 4 * largest <= costs["peak_memory"] < costs["traffic"]

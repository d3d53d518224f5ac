"""Real families: the exact sites of well-known networks, and the rule on many others."""

import functools

import pytest
import timm
import torch
import torchvision
from plan_cases import check_frames_outermost
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

from image2video.inject import plan

TEST_MODELS = timm.list_models("test_*")
SMALL: dict[str, tuple[int, dict[str, object]]] = {
    "mixer_s32_224": (224, {}),
    "inception_next_atto": (64, {"depths": (1, 1, 2, 1)}),
    "densenet121": (64, {"block_config": (2, 2, 2, 2)}),
    "hgnetv2_b0": (64, {}),
    "res2net50_14w_8s": (64, {"layers": (1, 1, 1, 1)}),
    "repvit_m1": (64, {"depth": (2, 2, 2, 2)}),
    "fastvit_t8": (64, {"layers": (1, 1, 1, 1)}),
    "ghostnet_050": (64, {}),
    "skresnet18": (64, {}),
    "hrnet_w18_small": (64, {}),
    "mobilevit_xxs": (64, {}),
    "swiftformer_xs": (64, {"layers": (1, 1, 1, 1)}),
    "efficientvit_m0": (224, {"depth": (1, 1, 1)}),
    "edgenext_xx_small": (64, {"depths": (1, 1, 2, 1)}),
    "volo_d1_224": (224, {}),
    "sequencer2d_s": (224, {"layers": (1, 1, 1, 1)}),
}
"""Families with a size that they take, and what makes them shallow where their builder lets one say it.

ResNet, EfficientNet, ConvNeXt and ViT have tests of their exact sites.
"""


@functools.cache
def make(name: str, **options: object) -> torch.nn.Module:
    """A network without values; a plan leaves it as it is, so that all tests have the same one."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def names(name: str, fusion: str) -> list[str]:
    return list(plan(make(name), fusion=fusion).names)


def test_resnets_have_one_site_per_block(trace_once):
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert names("resnet18", "tsm") == [f"{block}.conv1" for block in blocks]
    assert names("resnet18", "gsf") == names("resnet18", "gsm") == [f"{block}.conv2" for block in blocks]
    blocks = [f"layer{stage}.{block}" for stage, count in enumerate((3, 4, 6, 3), 1) for block in range(count)]
    assert names("resnet50", "tsm") == [f"{block}.conv1" for block in blocks]
    assert names("resnet50", "gsf") == [f"{block}.conv3" for block in blocks]


def test_conv3d_takes_every_wide_convolution_of_resnet18():
    made = plan(make("resnet18"), fusion="conv3d")
    assert len(made.sites) == 17
    assert made.names[0] == "conv1"
    assert {site.placement for site in made.sites} == {"beside"}


def test_efficientnet_b0_has_the_nine_blocks_with_a_skip(trace_once):
    blocks = ["1.1", "2.1", "3.1", "3.2", "4.1", "4.2", "5.1", "5.2", "5.3"]
    assert names("efficientnet_b0", "tsm") == [f"blocks.{block}.conv_pw" for block in blocks]
    assert names("efficientnet_b0", "gsf") == [f"blocks.{block}.conv_pwl" for block in blocks]


def test_convnext_atto_has_its_depthwise_convolutions(trace_once):
    blocks = [f"stages.{stage}.blocks.{b}" for stage, count in enumerate((2, 2, 6, 2)) for b in range(count)]
    assert names("convnext_atto", "tsm") == [f"{block}.conv_dw" for block in blocks]
    assert names("convnext_atto", "gsf") == [f"{block}.mlp.fc2" for block in blocks]


def test_vit_tiny_has_attention_and_mlp_of_every_block(trace_once):
    first = [f"blocks.{b}.{layer}" for b in range(12) for layer in ("attn.qkv", "mlp.fc1")]
    last = [f"blocks.{b}.{layer}" for b in range(12) for layer in ("attn.proj", "mlp.fc2")]
    assert names("vit_tiny_patch16_224", "tsm") == first
    assert names("vit_tiny_patch16_224", "gsf") == last
    one_per_block = plan(make("vit_tiny_patch16_224"), fusion="tsm", sites=lambda site: site.order == 0)
    assert list(one_per_block.names) == first[::2]


def test_features_only_has_the_same_sites_under_its_own_names(trace_once):
    made = plan(make("resnet18", features_only=True), fusion="gsf", input_size=(3, 64, 96))
    assert list(made.names) == names("resnet18", "gsf")
    assert [out.shape[1] for out in made.outputs] == [64, 64, 128, 256, 512]


def test_lone_residuals_inside_of_an_attention_leave_the_block():
    sites = plan(make("swiftformer_xs", layers=(1, 2, 1, 2)), fusion="tsm", input_size=(3, 64, 96)).sites
    assert len(sites) == 14
    last_blocks = {0: 0, 1: 1, 2: 0, 3: 1}
    assert [s.name for s in sites if "attn" in s.name] == [
        f"stages.{i}.blocks.{b}.attn" for i, b in last_blocks.items()
    ]
    assert all(site.layout.channel_dim == 1 and site.layout.spatial == "map" for site in sites)
    with torch.device("meta"):  # it takes square images alone
        mvit = MultiScaleVit(MultiScaleVitCfg(depths=(1, 2), stride_q=((1, 1), (2, 2)), embed_dim=16), (64, 64))
    sites = plan(mvit, fusion="gsf", input_size=(3, 64, 64)).sites
    assert len(sites) == 6
    assert [site.name.split(".", 4)[4] for site in sites] == ["attn.proj", "mlp.fc2"] * 3


def test_torchvision_models(trace_once):
    net = torchvision.models.resnet18()
    made = plan(net, fusion="tsm", input_size=(3, 64, 96))
    assert list(made.names) == names("resnet18", "tsm")
    vit = torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64)
    made = plan(vit, fusion="gsf", input_size=(3, 64, 64))
    layers = [f"encoder.layers.encoder_layer_{i}" for i in (0, 1)]
    assert list(made.names) == [f"{layer}.{last}" for layer in layers for last in ("self_attention", "mlp.3")]
    assert plan(vit, fusion="tsm", input_size=(3, 64, 64)).names[1::2] == tuple(f"{layer}.mlp.0" for layer in layers)
    with torch.device("meta"):
        swin = torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [1, 2], [7, 7])
    assert len(plan(swin, fusion="tsm", input_size=(3, 224, 224)).sites) == 8


@pytest.mark.parametrize("name", TEST_MODELS)
def test_the_small_test_models_on_real_tensors(name, trace_once):
    net = timm.create_model(name)
    for fusion in ("tsm", "gsf"):
        made = plan(net, fusion=fusion)
        assert made.sites
        assert all(site.placement == made.fusion.placement for site in made.sites)
        assert check_frames_outermost(net, made, count=2) >= len(made.sites)


@pytest.mark.parametrize("name", SMALL)
def test_families_have_sites_for_both_placements(name, trace_once):
    size, options = SMALL[name]
    net = make(name, **options)
    for fusion in ("tsm", "gsf"):
        made = plan(net, fusion=fusion, input_size=(3, size, size))
        assert len(made.sites) >= 4
        assert not made.skipped
        assert all(site.layout.channel_dim in (1, -1) and site.channels >= 8 for site in made.sites)
        assert all(site.shape[site.layout.channel_dim] == site.channels for site in made.sites)


def test_enough_families():
    modules = {timm.get_pretrained_cfg(name).architecture for name in (*TEST_MODELS, *SMALL)}
    assert len(modules) >= 30

"""The networks of the tables: published sizes, sites of the fusions, larger fields."""

import doctest

import pytest
import torch
from torch import nn

from image2video import VideoWrap, plan
from image2video.errors import InputError
from image2video.integrations.timm_backbones import build
from image2video.receptive_field import theoretical
from image2video.reproduce import Setting, wide_resnet
from image2video.reproduce.bn_inception import MODULES
from image2video.reproduce.check import stand_in
from image2video.reproduce.networks import VARIANTS, build_network
from image2video.reproduce.wide_resnet import WideResNet


def meta(name, **kwargs):
    """A network without memory: its sizes and shapes, not its values."""
    with torch.device("meta"):
        return build(name, **kwargs).eval()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def convolutions(model):
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("wrn_28_10", 36_479_194),  # Zagoruyko & Komodakis, table 5: 36.5 M
        ("cifar_resnet18", 11_173_962),
        ("cifar_resnet34", 21_282_122),
        ("cifar_resnet50", 23_520_842),
        ("cifar_resnet101", 42_512_970),
        ("cifar_resnet152", 58_156_618),
        ("cifar_resnet14", 175_258),
    ],
)
def test_small_image_networks_have_the_published_sizes(name, count):
    model = meta(name, num_classes=10)
    assert parameters(model) == count
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_bn_inception_has_the_published_size():
    model = meta("bn_inception")
    # The public models keep a bias in every convolution before a norm, and count 11 295 240 with it.
    assert parameters(model) + sum(conv.out_channels for _, conv in convolutions(model)) == 11_295_240
    assert model.forward_features(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1024, 7, 7)


@pytest.mark.parametrize("depth", [28, 27, 4])
def test_the_depth_of_a_wide_network_is_the_number_of_its_layers(depth):
    if depth != 28:
        with pytest.raises(InputError, match=rf"6n \+ 4 .*, got {depth}"):
            WideResNet(depth, 1)
        return
    layers = [module for module in meta("wrn_28_10").modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    shortcuts = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    assert len(shortcuts) == 3  # one per stage, of which the depth is said to be without
    assert len(layers) - len(shortcuts) == 26
    assert len(layers) - 1 == depth  # the published name counts convolutions, shortcuts included


def test_the_example_of_the_wide_network_runs():
    failed, tried = doctest.testmod(wide_resnet)
    assert (failed, tried > 0) == (0, True)


def test_fusions_sit_at_the_end_of_every_block_of_a_wide_network():
    found = plan(meta("wrn_28_10"), fusion="gsf", input_size=(3, 32, 32))
    assert [site.name for site in found.sites] == [f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in range(4)]
    before = plan(meta("wrn_28_10"), fusion="tsm", input_size=(3, 32, 32))
    assert [site.name for site in before.sites] == [f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in range(4)]


def test_fusions_sit_behind_every_wide_kernel_of_bn_inception():
    found = plan(meta("bn_inception"), fusion="gsf")  # it has no residuals: the rule's fallback
    inside = [f"blocks.{name}.{conv}.conv" for name in MODULES for conv in ("three.1", "twice.1", "twice.2")]
    assert [site.name for site in found.sites] == ["stem.3.conv", *inside]
    assert {site.rule for site in found.sites} == {"fallback"}


@pytest.mark.parametrize(("name", "size"), [("bn_inception", (3, 64, 48)), ("narrow", (1, 16, 24))])
def test_a_wrapped_network_fuses_and_leaves_the_bare_one_as_it_was(name, size):
    torch.manual_seed(0)
    bare = WideResNet(10, 1, num_classes=5, in_chans=1) if name == "narrow" else build(name, num_classes=5)
    images = torch.randn(2, *size)
    expected = bare.eval()(images)
    model = VideoWrap(bare, "gsf", T=3, genotype="identity", input_size=size).eval()
    torch.testing.assert_close(model(images), expected)  # copies, and fusions that start as nothing
    published = VideoWrap(model.unwrap(), "gsf", T=3, genotype="rotate(20)", residual=False, input_size=size).eval()
    assert published(images).shape == (2, 5)
    assert not torch.allclose(published(images), expected, atol=1e-4)
    torch.testing.assert_close(published.forward_head(published.forward_features(images)), published(images))
    published.reset_classifier(3)
    assert published(images).shape == (2, 3)
    with pytest.raises(InputError, match="'avg'"):
        published.reset_classifier(3, "max")


def field(model, layer, size):
    found = theoretical(model, layer=layer, input_size=size)
    assert not found.whole
    return found.size


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("cifar_resnet14", "layer3", (3, 32, 32)),
        ("resnet18", "layer4", (3, 64, 64)),
        ("wrn_28_10", "layer3", (3, 32, 32)),
    ],
)
def test_variants_have_larger_fields_and_maps_of_equal_size(name, layer, size):
    bare, wide, large = meta(name), VARIANTS["dilated"](meta(name)), VARIANTS["kernel5"](meta(name))
    fields = [field(model, layer, size) for model in (bare, wide, large)]
    assert fields[0] < fields[1] < fields[2]  # kernel5 changes the strided convolutions too
    shapes = [
        [site.shape for site in plan(model, fusion="gsf", input_size=size).sites] for model in (bare, wide, large)
    ]
    assert len(shapes[0]) > 3
    assert shapes[0] == shapes[1] == shapes[2]
    assert parameters(wide) == parameters(bare) < parameters(large)
    assert list(bare.state_dict()) == list(wide.state_dict()) == list(large.state_dict())


def test_which_convolutions_change():
    bare, wide, large = (build("cifar_resnet14", num_classes=4) for _ in range(3))
    wide.load_state_dict(bare.state_dict())
    VARIANTS["dilated"](wide)
    VARIANTS["kernel5"](large)
    for (name, old), (_, new), (_, grown) in zip(*map(convolutions, (bare, wide, large)), strict=True):
        changes = old.kernel_size == (3, 3) and name != "conv1"
        assert new.dilation == ((2, 2) if changes and old.stride == (1, 1) else (1, 1)), name
        assert grown.kernel_size == ((5, 5) if changes else old.kernel_size), name
        assert (new.stride, grown.stride) == (old.stride, old.stride)
        assert torch.equal(new.weight, old.weight)  # an arm starts from the weights of the bare one
    fresh = large.layer3[1].conv2.weight
    assert fresh.std().item() == pytest.approx((2 / (25 * 64)) ** 0.5, rel=0.05)
    images = torch.randn(2, 3, 32, 32)
    assert wide(images).shape == large(images).shape == (2, 4)


def test_a_dilated_strided_convolution_would_skip_pixels():
    image = torch.zeros(1, 1, 8, 8, requires_grad=True)
    nn.Conv2d(1, 1, 3, stride=2, padding=2, dilation=2)(image).sum().backward()
    assert (image.grad[..., 1::2, :] == 0).all()  # why it stays as it is
    assert (image.grad[..., 1::2] == 0).all()
    assert (image.grad[..., 2::2, 2::2] != 0).all()


@pytest.mark.parametrize("variant", ["dilated", "kernel5"])
def test_a_variant_needs_3x3_convolutions(variant):
    patches = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 7), nn.Conv2d(8, 8, 1))
    with pytest.raises(InputError, match=r"Sequential has no 3×3 convolution .* \(its kernels: 1×1, 3×3, 7×7\)"):
        VARIANTS[variant](patches)
    assert patches[0].kernel_size == (3, 3)
    with pytest.raises(InputError, match="no convolution at all"):
        VARIANTS[variant](nn.Linear(2, 2))


def test_networks_of_a_setting():
    setting = Setting(data="cifar100", model="cifar_resnet8")
    model = build_network(setting, stand_in(setting), variant="dilated")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 100)
    with pytest.raises(InputError, match="'deformed' of cifar_resnet8; known are dilated, kernel5"):
        build_network(setting, stand_in(setting), variant="deformed")

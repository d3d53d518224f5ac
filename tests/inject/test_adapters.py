"""Adapters in a backbone before it is wrapped: they are no residual branches, and hooks stay outside of them."""

import copy
import functools
from functools import partial

import pytest
import timm
import torch
from adapter_cases import Adapter, Bottleneck, Dora, Ia3, Lora, OneModule, Vera, adapt
from inject_cases import randomise
from torch import nn

from image2video import VideoWrap
from image2video.errors import StateError
from image2video.inject import plan

CONVS, LINEARS = ("conv1", "conv2"), ("qkv", "proj", "fc1", "fc2")
ON_CONVS = {
    "lora": Lora,
    "dora": Dora,
    "ia3": Ia3,
    "ia3 in": partial(Ia3, feedforward=True),
    "bottleneck": Bottleneck,
    "beside": partial(Bottleneck, beside=True),
}
ON_LINEARS = {**ON_CONVS, "vera": Vera, "one module": OneModule}


class Block(nn.Module):
    """A residual block whose shortcut is a convolution where the size changes."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(c_out), nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (self.shortcut(x) + y).relu()


def resnet():
    torch.manual_seed(0)
    blocks = [Block(8, 8, 1), Block(8, 16, 2), Block(16, 16, 1)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def vit():
    torch.manual_seed(0)
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": (32, 48), "patch_size": 8, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


def vgg():
    torch.manual_seed(0)
    layers = [nn.Sequential() for _ in range(3)]
    for index, layer in enumerate(layers):
        layer.add_module("conv1", nn.Conv2d(8 if index else 3, 8, 3, 2, 1))
        layer.add_module("act", nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


CASES = [(resnet, CONVS, kind) for kind in ON_CONVS] + [(vit, LINEARS, kind) for kind in ON_LINEARS]
CASES += [(vgg, CONVS, kind) for kind in ("lora", "dora", "ia3")]


def sites(net, fusion):
    made = plan(net, fusion=fusion, input_size=(3, 32, 48))
    return [(s.name, s.placement, s.channels, s.layout, s.rule, s.block, s.shape, s.order) for s in made.sites]


@functools.cache
def bare_sites(make, fusion):
    return sites(make(), fusion)


def wrapped(net, fusion):
    clip = {"genotype": "translate_x(0.1)", "T": 3, "schedule": "from_zero", "padding": "zeros"}
    model = VideoWrap(net, fusion, residual=False, input_size=(3, 32, 48), **clip).eval()
    randomise(model.fusion, 3)
    return model


IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
@pytest.mark.parametrize(("make", "names", "kind"), CASES)
def test_an_adapted_backbone_has_the_sites_of_the_bare_one(make, names, kind, fusion):
    adapted = adapt(make(), ON_LINEARS[kind], names)
    assert sites(adapted, fusion) == bare_sites(make, fusion)


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "vera"])
def test_a_switched_off_adapter_has_them_too(fusion, kind):
    adapted = adapt(vit(), ON_LINEARS[kind], LINEARS)
    for module in adapted.modules():
        if isinstance(module, Adapter):
            module.enabled = False
    assert sites(adapted, fusion) == bare_sites(vit, fusion)


@pytest.mark.parametrize("fusion", ["tsm", "gsf", "gsm"])
@pytest.mark.parametrize(("make", "names"), [(resnet, CONVS), (vit, LINEARS)])
def test_fresh_adapters_leave_the_fused_outputs_as_they_are(make, names, fusion):
    bare = wrapped(make(), fusion)
    model = wrapped(adapt(make(), Lora, names), fusion)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), bare(IMAGES))
        assert (bare(IMAGES) - wrapped(make(), "none")(IMAGES)).abs().max() > 1e-4, "frames must mix"


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
@pytest.mark.parametrize(("make", "names"), [(resnet, CONVS), (vit, LINEARS)])
def test_adapters_see_the_fused_frames_before_and_after_they_are_merged(make, names, fusion):
    net = adapt(make(), Lora, names)
    randomise(net, 5, scale=0.2)
    model = wrapped(net, fusion)
    with torch.no_grad():
        before = model(IMAGES)
        for module in model.modules():
            if isinstance(module, Lora):
                module.merge()
        torch.testing.assert_close(model(IMAGES), before, rtol=1e-4, atol=1e-4)


def test_state_and_unwrapping_of_an_adapted_backbone():
    net = adapt(resnet(), Lora, CONVS)
    own, before = set(net.state_dict()), net(IMAGES)
    model = wrapped(net, "gsf")
    state = model.state_dict()
    assert {key.removeprefix("backbone.") for key in state if key.startswith("backbone.")} == own
    assert "backbone.1.conv2.base_layer.weight" in state
    assert "fusion.1.conv2.gsf.conv3D.weight" in state
    other = wrapped(adapt(resnet(), Lora, CONVS), "gsf")
    randomise(other, 7)
    assert not other.load_state_dict(state).missing_keys
    with torch.no_grad():
        torch.testing.assert_close(other(IMAGES), model(IMAGES))
    bare = model.unwrap()
    assert set(bare.state_dict()) == own
    torch.testing.assert_close(bare(IMAGES), before)


def test_a_bottleneck_that_nothing_is_around_is_a_residual_branch():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 3, 1, 1), nn.Conv2d(4, 8, 1)

        def forward(self, x):
            x = self.conv(x)
            return x + self.up(self.down(x).relu())

    assert [site[0] for site in sites(nn.Sequential(Small()), "gsf")] == ["0.up"]


def test_levels_of_the_fusions_are_no_modules_that_a_name_finds():
    model = wrapped(resnet(), "gsf")
    names = [name for name, _ in model.named_modules()]
    assert not [name for name in names if name.startswith("fusion") and name.endswith((".conv1", ".conv2"))]
    assert "fusion.1.conv2.gsf.conv3D" in names
    assert {name.removeprefix("fusion.") for name, _ in model.named_parameters() if name.startswith("fusion.")} == {
        name for name, _ in model.fusion.named_parameters()
    }
    assert len(model.fusion.state_dict()) > len(list(model.fusion.parameters())) > 0
    for module in model.to(torch.float64).fusion.modules():
        assert all(parameter.dtype == torch.float64 for parameter in module.parameters())
    assert not model.train(False).fusion.get_submodule("1.conv2.gsf").training


def test_adapters_after_wrapping_at_a_site_are_refused_and_elsewhere_work():
    model = wrapped(resnet(), "gsf")
    expected = model(IMAGES)
    adapt(model, Lora, ["conv1"])
    torch.testing.assert_close(model(IMAGES), expected)
    adapt(model.backbone, Lora, ["conv2"])
    with pytest.raises(StateError, match=r"adapters\): do that first, then wrap"):
        model(IMAGES)


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
def test_peft_before_wrapping(fusion):
    peft = pytest.importorskip("peft")
    bare = wrapped(vit(), fusion)
    net = vit()
    peft.get_peft_model(net, peft.LoraConfig(target_modules=list(LINEARS), r=2, use_dora=fusion == "gsf"))
    assert sites(net, fusion) == sites(vit(), fusion)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(net, fusion)(IMAGES), bare(IMAGES))


def test_peft_after_wrapping_adapts_the_backbone_alone():
    peft = pytest.importorskip("peft")
    model = wrapped(resnet(), "gsf")
    expected = model(IMAGES)
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(target_modules=["conv1"], r=2))
    found = [name for name, module in adapted.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert found == [f"base_model.model.backbone.{index}.conv1" for index in (1, 2, 3)]
    torch.testing.assert_close(adapted(IMAGES), expected)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["conv2"], r=2))
    with pytest.raises(StateError, match=r"adapters\): do that first, then wrap"):
        adapted(IMAGES)

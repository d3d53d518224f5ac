"""`sites="published"`: the fusions of published video networks, compared with their configuration files."""

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

import image2video.reproduce.networks  # noqa: F401  # adds BN-Inception to timm
from image2video import VideoWrap, plan
from image2video.errors import InputError
from image2video.inject.published import INCEPTIONS

# Path -> channels; the widths of the published configuration files, in their order.
BN_INCEPTION = [64, 64, 128, 224, 192, 160, 96, 128, 352, 352]
INCEPTION_V3 = [64, 64, 64, 384, 192, 192, 192, 192, 192, 320, 320]


def resnet(*blocks: int) -> nn.Module:
    return ResNet(BasicBlock, blocks, num_classes=3, stem_width=8, channels=(8, 8, 8, 8))


def inception() -> nn.Module:
    with torch.device("meta"):
        model = timm.create_model("inception_v3", num_classes=2)
    return model.to_empty(device="cpu").eval()


def test_inception_v3_has_one_gsf_per_module() -> None:
    model = inception()
    found = plan(model, fusion="gsf", sites="published", input_size=(3, 96, 112))
    assert [site.channels for site in found.sites] == INCEPTION_V3
    assert {site.name.split(".")[0] for site in found.sites} == {
        name for name, _ in model.named_children() if name.startswith("Mixed")
    }
    assert all(site.placement == "after" for site in found.sites)
    strided = [site.name for site in found.sites if model.get_submodule(site.name).kernel_size != (1, 1)]
    assert strided == ["Mixed_6a.branch3x3.conv"]


def test_bn_inception_has_one_gsf_per_module() -> None:
    model = timm.create_model("bn_inception", num_classes=2).eval()
    found = plan(model, fusion="gsf", sites="published", input_size=(3, 64, 96))
    assert [site.channels for site in found.sites] == BN_INCEPTION
    assert [site.name.split(".")[1] for site in found.sites] == [name for name, _ in model.blocks.named_children()]
    assert all(model.get_submodule(site.name).kernel_size == (1, 1) for site in found.sites)
    assert all(len(names) in (10, 11) for names in INCEPTIONS)


@pytest.mark.parametrize(
    ("blocks", "fusion", "sites"),
    [
        ((3, 4, 23, 3), "tsm", 18),  # ResNet-101
        ((3, 4, 6, 3), "tsm", 16),
        ((3, 4, 23, 3), "gsf", 33),
        ((2, 2, 2, 2), "gsf", 8),
    ],
)
def test_resnets(blocks: tuple[int, ...], fusion: str, sites: int) -> None:
    model = resnet(*blocks)
    found = plan(model, fusion=fusion, sites="published", input_size=(3, 32, 48))
    assert len(found.sites) == sites
    assert {site.name.rpartition(".")[2] for site in found.sites} == {"conv1" if fusion == "tsm" else "conv2"}
    if fusion == "tsm":
        step = 2 if sites == 18 else 1
        wanted = [f"layer{n}.{i}" for n, count in enumerate(blocks, 1) for i in range(0, count, step)]
        assert [site.block for site in found.sites] == wanted
    else:
        assert found.sites == plan(model, fusion=fusion, input_size=(3, 32, 48)).sites


@pytest.mark.parametrize(
    ("fusion", "model"),
    [("gsm", resnet(1, 1, 1, 1)), ("tsm", "bn_inception"), ("gsf", "test_vit"), ("gsf", "test_efficientnet")],
)
def test_what_no_published_network_has_is_refused(fusion: str, model: nn.Module | str) -> None:
    network = timm.create_model(model, num_classes=2) if isinstance(model, str) else model
    with pytest.raises(InputError, match="sites='published' knows gsf in ResNets, BN-Inception and Inception-v3, and"):
        plan(network, fusion=fusion, sites="published", input_size=None if model == "test_vit" else (3, 64, 64))


def test_a_wrapper_takes_them() -> None:
    model = VideoWrap(resnet(1, 1, 23, 1), "tsm", T=2, sites="published", input_size=(3, 32, 32))
    assert len(model.plan.sites) == 1 + 1 + 12 + 1
    assert model.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3)

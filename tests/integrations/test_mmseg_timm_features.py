"""timm's feature extractors as backbones of mmsegmentation."""

from __future__ import annotations

import copy
import doctest
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

pytest.importorskip("mmseg")

from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg_cases import SIZE, build, largest_difference, predictions, samples, tiny_config, total_loss

from image2video.errors import InputError, MissingError
from image2video.functional import plan
from image2video.integrations.openmmlab import TimmFeatures, timm_features


def images(height: int = 64, width: int = 96, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_the_docstring_is_right() -> None:
    failed, tried = doctest.testmod(timm_features)
    assert tried
    assert not failed


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet", "test_mambaout", "test_byobnet"])
def test_channels_and_strides_are_those_of_the_maps(name: str) -> None:
    backbone = MODELS.build({"type": "TimmFeatures", "model_name": name})
    backbone.init_weights()
    maps = backbone.eval()(images())
    assert isinstance(maps, tuple)
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    assert [tuple(one.shape) for one in maps] == expected


def test_channels_last_maps_come_channels_first() -> None:
    backbone = TimmFeatures("test_mambaout").eval()
    with torch.no_grad():
        theirs = backbone.timm_model(images())
        ours = backbone(images())
    assert [one.shape[3] for one in theirs] == list(backbone.channels), "timm gives them channels-last"
    assert all(torch.equal(mine, one.movedim(3, 1)) for mine, one in zip(ours, theirs, strict=True))
    assert all(one.is_contiguous() for one in ours)


@pytest.mark.parametrize("stride", [8, 16])
def test_xception65_under_deeplabv3(stride: int) -> None:
    config = tiny_config(auxiliary=False)
    config.backbone = ConfigDict(
        type="TimmFeatures", model_name="xception65", out_indices=(1, 2, 3, 4), output_stride=stride
    )
    config.decode_head |= {"type": "ASPPHead", "in_channels": 2048, "dilations": (1, 6, 12, 18)}
    config.decode_head.pop("pool_scales", None)
    with torch.device("meta"):
        model = MODELS.build(config)
        assert model.backbone.channels == (256, 728, 1024, 2048)
        assert model.backbone.strides == (4, 8, min(16, stride), stride)
        features = model.extract_feat(torch.zeros(2, 3, 64, 96))
        assert features[3].shape == (2, 2048, 64 // stride, 96 // stride)
        assert model.decode_head(features).shape == (2, 5, 64 // stride, 96 // stride)
    found = plan(model.backbone, fusion="gsf", input_size=(3, 64, 96))
    assert len(found.sites) == 20
    assert all(site.name.endswith("conv_pw") for site in found.sites)


def test_a_video_segmentor_trains_on_it() -> None:
    video = {"genotype": "translate_x(0.05)", "T": 3, "residual": False}
    config = tiny_config(video=video, auxiliary=False)
    config.backbone = ConfigDict(type="TimmFeatures", model_name="test_resnet", out_indices=(1, 2, 3, 4))
    config.decode_head.in_channels = 96
    model = build(config)
    assert model.video_fusion.plan.sites
    model.train()
    inputs, found = samples(2)
    total_loss(model, inputs, found).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    twin = copy.deepcopy(model)
    x, found = samples(2, test=True)
    assert largest_difference(predictions(model, x, found), predictions(twin, x, found)) == 0


@pytest.mark.parametrize("headless", [False, True])
def test_a_file_of_the_whole_model_loads(headless: bool, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        whole = timm.create_model("test_resnet", num_classes=7)
    state = {k: v for k, v in whole.state_dict().items() if not (headless and k.startswith("fc."))}
    torch.save(state, tmp_path / "weights.pth")
    backbone = TimmFeatures("test_resnet", checkpoint_path=str(tmp_path / "weights.pth"))
    backbone.init_weights()  # must not draw them anew
    whole.eval()
    backbone.eval()
    with torch.no_grad():
        assert torch.equal(backbone(images())[-1], whole.forward_features(images()))
    fresh = TimmFeatures("test_resnet").eval()
    assert not torch.equal(next(fresh.parameters()), next(backbone.parameters()))


def test_loaded_weights_are_adapted_to_the_channels(tmp_path: Path) -> None:
    whole = timm.create_model("test_resnet")
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    backbone = TimmFeatures("test_resnet", checkpoint_path=str(tmp_path / "weights.pth"), in_channels=1)
    first = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    theirs = next(m for m in whole.modules() if isinstance(m, nn.Conv2d))
    assert torch.allclose(first.weight, theirs.weight.sum(1, keepdim=True))
    assert backbone.eval()(images(channels=1))[0].shape[0] == 2


def test_checkpoints_are_those_of_mmsegmentations_own_wrapper() -> None:
    theirs = MODELS.build({"type": "TIMMBackbone", "model_name": "test_resnet", "pretrained": False})
    ours = TimmFeatures("test_resnet")
    assert not any(ours.load_state_dict(theirs.state_dict()))
    ours.eval()
    theirs.eval()
    assert all(torch.equal(a, b) for a, b in zip(ours(images(*SIZE)), theirs(images(*SIZE)), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "no_such_net50"}, r"model\.backbone\.model_name: timm .* has no model 'no_such_net50'"),
        ({"out_indices": (1, 9)}, r"'test_resnet' with out_indices=\(1, 9\) \(.*feature_info says"),
        ({"output_stride": 7}, r"model\.backbone\.output_stride must be one of \(8, 16, 32\), got 7"),
        ({"model_name": "test_vit", "output_stride": 8}, r"'test_vit' with output_stride=8 \(TypeError"),
        ({"wings": 2}, r"with wings=2 \(TypeError.*wings"),
        ({"pretrained": "open-mmlab://resnet50_v1c"}, r"set model\.pretrained=None, and model\.backbone\.pretrained"),
        ({"pretrained": True, "checkpoint_path": "a.pth"}, "both pretrained=True and checkpoint_path"),
        ({"checkpoint_path": __file__, "pretrained_cfg_overlay": {"url": ""}}, "both say where weights are"),
    ],
)
def test_errors_name_the_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TimmFeatures(**{"model_name": "test_resnet", **options})


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingError, match=r"model\.backbone\.checkpoint_path='no/such\.pth'"):
        TimmFeatures("test_resnet", checkpoint_path="no/such.pth")


def test_the_checkpoint_that_a_segmentor_hands_over_is_refused() -> None:
    config = tiny_config(auxiliary=False, pretrained="open-mmlab://resnet50_v1c")
    config.backbone = ConfigDict(type="TimmFeatures", model_name="test_resnet")
    with pytest.raises(InputError, match="'open-mmlab://resnet50_v1c' came to TimmFeatures"):
        MODELS.build(config)

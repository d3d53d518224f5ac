"""Wrapping works alike in every family: timm's own test models, and small ones with token and NHWC layouts."""

import copy

import pytest
import timm
import torch
from wrap_helpers import enliven, same_state, state_of, stir

from image2video.wrap.video_wrap import VideoWrap

SMALL = {  # further families, made small by their own arguments
    "beit_base_patch16_224": {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2},
    "cait_xxs24_224": {"img_size": 64, "depth": 2},
    "deit_tiny_patch16_224": {"img_size": 64, "depth": 2},
    "densenet121": {"growth_rate": 8, "block_config": (2, 2)},
    "edgenext_xx_small": {},
    "mixer_s32_224": {"img_size": 64},
    "mobilenetv3_small_050": {},
    "mobilevit_xxs": {},
    "starnet_s050": {},
    "swin_tiny_patch4_window7_224": {"img_size": 56, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 2)},
    "swinv2_tiny_window8_256": {
        "img_size": 64,
        "embed_dim": 16,
        "depths": (1, 1),
        "num_heads": (2, 2),
        "window_size": 4,
    },
    "tnt_s_patch16_224": {"img_size": 64, "depth": 2},
}
FAMILIES = [*timm.list_models("test_*"), *SMALL]
NHWC = {"swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "test_mambaout"}
CHAIN = "translate_x(0.1) > rotate(8)"


def make(name, seed=0, **kwargs):
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=4, **SMALL.get(name, {}), **kwargs).eval()
    enliven(model)
    return model


def batch_for(model, b=2, seed=2):
    config = timm.models.get_model_input_config(model)
    size = config["input_size"] if config["fixed_input_size"] else (3, 64, 64)
    return torch.randn(b, *size, generator=torch.Generator().manual_seed(seed))


def test_there_are_enough_families():
    assert len(FAMILIES) >= 30
    assert len(timm.list_models("test_*")) >= 18
    assert {name for name in FAMILIES if getattr(make(name), "output_fmt", None) == "NHWC"} == NHWC


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_can_be_wrapped(name, trace_once):
    bare = make(name)
    batch = batch_for(bare)
    with torch.no_grad():
        expected = bare(batch)
    before, hooks = state_of(bare), hooks_of(bare)
    for fusion in ("tsm", "gsf"):
        model = VideoWrap(bare, fusion, genotype=CHAIN, T=2, input_size=tuple(batch.shape[1:]))
        assert len(model.plan.sites) >= 1
        assert {site.rule for site in model.plan.sites} <= {"residual", "fallback"}
        check_training(model, batch, expected.shape)
        assert model.unwrap() is bare
        assert same_state(state_of(bare), before)
        assert hooks_of(bare) == hooks
        bare.zero_grad()
    check_no_fusion(bare, batch)
    assert same_state(state_of(bare), before)


def check_training(model, batch, shape):
    """Images do not mix, and the fusions learn."""
    stir(model.fusion)
    out = model(batch)
    assert out.shape == shape
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.fusion.parameters())
    with torch.no_grad():
        other = batch.clone()
        other[1] += 1
        torch.testing.assert_close(model(other)[0], out[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def check_no_fusion(bare, batch):
    """Without fusion the model is the mean of the bare one over the frames, and loads its checkpoint."""
    other = copy.deepcopy(bare)
    for value in bare.parameters():
        value.zero_()
    model = VideoWrap(bare, "none", genotype=CHAIN, T=2, input_size=tuple(batch.shape[1:]))
    expected = other(model.to_video(batch).flatten(0, 1)).unflatten(0, (2, 2)).mean(1)
    assert not torch.allclose(model(batch), expected, atol=1e-3)
    model.load_state_dict(other.state_dict())  # a bare checkpoint, without a warning: there is nothing to miss
    torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)
    model.unwrap()


def hooks_of(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", *sorted(NHWC)])
@torch.no_grad()
def test_feature_maps_are_unwarped_in_their_layout(name):
    bare = make(name, features_only=True)
    batch = batch_for(bare)
    model = VideoWrap(make(name, features_only=True), "none", genotype=CHAIN, T=2, input_size=tuple(batch.shape[1:]))
    frames = bare(model.to_video(batch).flatten(0, 1))
    maps = model(batch)
    assert [m.shape for m in maps] == [m.shape for m in bare(batch)]
    last = name in NHWC and str(bare.output_fmt.value) == "NHWC"
    for out, frame in zip(maps, frames, strict=True):
        first = frame.permute(0, 3, 1, 2) if last else frame
        expected = model.to_video.unwarped_mean(first, batch.shape[-2:])
        torch.testing.assert_close(out, expected.permute(0, 2, 3, 1) if last else expected)

"""`VideoWrap`: identities first, then T, features, aggregation and the state dict."""

import pytest
import torch
from torch import nn
from wrap_helpers import ALL_FUSIONS, CHAIN, backbone, bare_mean, images, same_state, state_of, wrapped

from image2video.errors import InputError, UnsupportedError
from image2video.wrap.video_wrap import VideoWrap


@pytest.mark.parametrize("fusion", ["none", "gsf", "gsm", "conv3d"])
@torch.no_grad()
def test_a_fresh_wrapper_is_the_mean_of_the_bare_model_over_the_frames(fusion):
    model = wrapped(fusion)
    expected = bare_mean(backbone(), model.to_video, images())
    torch.testing.assert_close(model(images()), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
@torch.no_grad()
def test_one_frame_of_the_identity_is_the_bare_model(fusion):
    model = wrapped(fusion, stirred=True, genotype="identity", T=1)
    assert torch.equal(model(images()), backbone()(images()))


@pytest.mark.parametrize("fusion", ALL_FUSIONS)
def test_unwrap_gives_the_same_object_bit_for_bit(fusion):
    bare = backbone()
    before, out = state_of(bare), bare(images())
    modules = list(bare.modules())
    model = VideoWrap(bare, fusion, T=3)
    assert model.unwrap() is bare
    assert same_state(state_of(bare), before)
    assert all(a is b for a, b in zip(bare.modules(), modules, strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules())
    assert torch.equal(bare(images()), out)
    VideoWrap(bare, fusion, T=3)  # and it can be wrapped again


@pytest.mark.parametrize("fusion", ["gsf", "gsm", "tsm", "conv3d"])
@torch.no_grad()
def test_fusion_mixes_frames_and_never_images(fusion):
    model = wrapped(fusion, stirred=True, residual=False)
    mean = bare_mean(backbone(), model.to_video, images())
    assert not torch.allclose(model(images()), mean, atol=1e-3)
    other = images()
    other[1] += 1
    assert torch.equal(model(images())[0], model(other)[0])


@torch.no_grad()
def test_t_changes_per_call_and_for_good():
    model = wrapped(stirred=True)
    three, five = model(images()), model(images(), T=5)
    assert not torch.allclose(three, five)
    assert model.T == 3
    model.set_frames(5)
    assert model.T == 5
    assert torch.equal(model(images()), five)
    assert torch.equal(model(images(), T=3), three)


@pytest.mark.parametrize("name", ["cifar_resnet8", "test_vit", "test_convnext", "test_efficientnet"])
@torch.no_grad()
def test_forward_is_features_then_head(name):
    size = (3, 32, 40) if name == "cifar_resnet8" else (3, 160, 160)
    model = wrapped(stirred=True, name=name)
    batch = images(size=size)
    features = model.forward_features(batch)
    assert features.shape[0] == 6
    torch.testing.assert_close(model.forward_head(features), model(batch))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    features = model.forward_features(batch, T=2)
    torch.testing.assert_close(model.forward_head(features, T=2), model(batch, T=2))


def test_features_need_a_backbone_that_has_them():
    model = VideoWrap(nn.Conv2d(3, 4, 3), "none", T=2)
    with pytest.raises(UnsupportedError, match=r"Conv2d has no forward_features\(\)"):
        model.forward_features(images())


@torch.no_grad()
def test_aggregations():
    logits = wrapped("none", aggregate="none")(images())
    assert logits.shape == (2, 3, 10)
    torch.testing.assert_close(wrapped("none")(images()), logits.mean(1))
    model = wrapped("none", aggregate=lambda out, T: out.unflatten(0, (-1, T)).amax(1))
    torch.testing.assert_close(model(images()), logits.amax(1))
    with pytest.raises(InputError, match='"unwarp" needs a map'):
        wrapped("none", aggregate="unwarp")(images())


@pytest.mark.parametrize("name", ["cifar_resnet8", "test_vit", "test_convnext"])
@torch.no_grad()
def test_features_only_models_give_unwarped_maps(name):
    size = (3, 32, 40) if name == "cifar_resnet8" else (3, 160, 160)
    bare = backbone(name, features_only=True)
    model = VideoWrap(backbone(name, features_only=True), "none", genotype=CHAIN, T=3)
    batch = images(size=size)
    out, plain = model(batch), bare(batch)
    assert isinstance(out, list)
    assert [o.shape for o in out] == [o.shape for o in plain]
    frames = bare(model.to_video(batch).flatten(0, 1))
    for o, f in zip(out, frames, strict=True):
        torch.testing.assert_close(o, model.to_video.unwarped_mean(f, size[1:]))
    assert model.feature_info.channels() == bare.feature_info.channels()


@torch.no_grad()
def test_a_model_without_a_head_gives_maps_of_the_image():
    model = VideoWrap(backbone(num_classes=0, global_pool=""), "none", genotype=CHAIN, T=3)
    assert model(images()).shape == (2, 64, 8, 10)
    features = model.forward_features(images())
    head = model.forward_head(features, image_size=(32, 40))
    torch.testing.assert_close(head, model(images()))


@torch.no_grad()
def test_tokens_are_unwarped_on_the_grid_of_the_plan():
    bare = backbone("test_vit", num_classes=0, global_pool="")
    model = VideoWrap(backbone("test_vit", num_classes=0, global_pool=""), "tsm", genotype=CHAIN, T=2)
    out = model(images(size=(3, 160, 160)))
    assert out.shape == bare(images(size=(3, 160, 160))).shape


def test_only_backbone_fusion_and_clip_stand_in_the_state_dict():
    model = wrapped()
    keys = model.state_dict().keys()
    assert {key.split(".")[0] for key in keys} == {"backbone", "fusion", "_extra_state"}
    bare = backbone().state_dict().keys()
    assert [key.removeprefix("backbone.") for key in keys if key.startswith("backbone.")] == list(bare)
    assert "fusion.layer1.0.conv2.gsf.conv3D.weight" in keys


def test_an_empty_batch():
    assert wrapped()(images(b=0)).shape == (0, 10)

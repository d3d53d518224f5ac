"""Checkpoints of the bare backbone, of DDP and of torch.compile load into the wrapper."""

import warnings

import pytest
import torch
from torch import nn
from wrap_helpers import backbone, images, same_state, state_of, stir

from image2video.wrap.checkpoint import FreshFusionWarning
from image2video.wrap.clip_record import ClipWarning
from image2video.wrap.video_wrap import VideoWrap


def wrapped(fusion="gsf", seed=1):
    return VideoWrap(backbone(seed=seed), fusion, T=3)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("shell", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_bare_checkpoint_loads_with_one_warning(shell):
    bare, model = backbone(seed=7), wrapped()
    fusions = state_of(model.fusion)
    with pytest.warns(FreshFusionWarning, match=f"none of the {len(fusions)} fusion parameters") as record:
        result = model.load_state_dict(prefixed(bare.state_dict(), shell))
    assert len(record) == 1
    assert result.missing_keys == result.unexpected_keys == []
    assert same_state(state_of(model.backbone), state_of(bare))
    assert same_state(state_of(model.fusion), fusions)
    with torch.no_grad():
        torch.testing.assert_close(model(images()), VideoWrap(bare, T=3)(images()))


@pytest.mark.parametrize("fusion", ["tsm", "none"])
def test_no_warning_where_fusions_have_no_parameters(fusion):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped(fusion).load_state_dict(backbone(seed=7).state_dict())


@pytest.mark.parametrize("shell", ["", "module.", "_orig_mod.module."])
def test_a_wrapped_checkpoint_loads_without_a_warning(shell):
    source, model = wrapped(seed=7), wrapped()
    stir(source.fusion)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load_state_dict(prefixed(source.state_dict(), shell))
    assert same_state(state_of(model), state_of(source))


def test_the_wrapper_may_be_a_child_of_another_module():
    bare = backbone(seed=7)
    parent = nn.ModuleDict({"net": wrapped(), "other": nn.Linear(2, 2)})
    state = prefixed(bare.state_dict(), "net.") | prefixed(parent["other"].state_dict(), "other.")
    with pytest.warns(FreshFusionWarning):
        parent.load_state_dict(state)
    assert same_state(state_of(parent["net"].backbone), state_of(bare))


def test_a_backbone_with_a_child_called_backbone():
    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = backbone(features_only=True)
            self.head = nn.Conv2d(64, 4, 1)

        def forward(self, x):
            return self.head(self.backbone(x)[-1])

    model = VideoWrap(Segmenter(), "gsf", T=2, input_size=(3, 32, 32))
    bare = Segmenter()
    assert "backbone.conv1.weight" in bare.state_dict()
    with pytest.warns(FreshFusionWarning):
        model.load_state_dict(bare.state_dict())
    assert same_state(state_of(model.backbone), state_of(bare))
    twin = VideoWrap(Segmenter(), "gsf", T=2, input_size=(3, 32, 32))
    twin.load_state_dict(model.state_dict())
    assert same_state(state_of(twin), state_of(model))


def test_some_missing_fusion_keys_are_not_forgiven():
    model = wrapped()
    state = model.state_dict()
    del state["fusion.layer1.0.conv2.gsf.conv3D.weight"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"fusion.layer1.0.conv2.gsf.conv3D.weight"'):
        model.load_state_dict(state)


def test_missing_and_unknown_backbone_keys_are_not_forgiven():
    state = backbone().state_dict()
    state["conv9.weight"] = state.pop("conv1.weight")
    model = wrapped()
    with pytest.raises(RuntimeError, match=r'"backbone.conv1.weight"') as error, pytest.warns(FreshFusionWarning):
        model.load_state_dict(state)
    assert '"backbone.conv9.weight"' in str(error.value)
    with pytest.warns(FreshFusionWarning):
        result = model.load_state_dict(state, strict=False)
    assert result.missing_keys == ["backbone.conv1.weight"]
    assert result.unexpected_keys == ["backbone.conv9.weight"]


def test_the_given_state_dict_is_not_changed():
    state = backbone(seed=7).state_dict()
    keys = list(state)
    with pytest.warns(FreshFusionWarning):
        wrapped().load_state_dict(state)
    assert list(state) == keys


def test_an_empty_state_dict_is_an_error():
    with pytest.raises(RuntimeError, match="Missing key"):
        wrapped().load_state_dict({})


def test_assign_keeps_fusion_parameters_trainable():
    model = wrapped()
    with pytest.warns(FreshFusionWarning):
        model.load_state_dict(backbone(seed=7).state_dict(), assign=True)
    assert all(p.requires_grad for p in model.parameters())
    assert len(list(model.fusion.parameters())) > 0


def test_the_residual_form_refuses_published_weights():
    published = VideoWrap(backbone(), "gsf", T=3, residual=False)
    with (
        pytest.raises(RuntimeError, match="residual"),
        pytest.warns(ClipWarning, match="residual=True, the .*has False"),
    ):
        wrapped().load_state_dict(published.state_dict())

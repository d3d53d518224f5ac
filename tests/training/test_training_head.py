"""The classifier of weights: kept, or left out where the classes are others."""

import pytest
import timm
import torch
from torch import nn

from image2video import VideoWrap
from image2video.errors import InputError
from image2video.integrations.timm_backbones import build
from image2video.training import load_weights, save_weights
from image2video.training.head import head_classes, head_names


def net(classes, seed=0):
    torch.manual_seed(seed)
    return build("cifar_resnet8", num_classes=classes)


def saved(path, model):
    save_weights(path, {name: value.clone() for name, value in model.state_dict().items()})
    return path


def equal(a, b, names):
    a, b = a.state_dict(), b.state_dict()
    return [torch.equal(a[name], b[name]) for name in names]


@pytest.mark.parametrize("classes", [7, 3])
def test_a_dropped_head_is_the_models_own_and_all_else_is_the_files(tmp_path, classes):
    source, model = net(classes), net(3, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_weights(model, saved(tmp_path / "a.safetensors", source), head="drop")
    for name, value in model.state_dict().items():
        kept = before if name.startswith("fc.") else source.state_dict()
        assert torch.equal(value, kept[name]), name
    with pytest.raises(InputError, match="head must be keep or drop, got 'none'"):
        load_weights(model, tmp_path / "a.safetensors", head="none")


def test_a_kept_head_must_fit_and_the_error_names_the_way_out(tmp_path):
    path = saved(tmp_path / "a.safetensors", net(7))
    with pytest.raises(InputError, match=r"fc\.\w+ is \(7,.*, the model needs \(3,.*head='drop'"):
        load_weights(net(3), path)


@pytest.mark.parametrize("wrapped", [True, False])
def test_wrapped_models_too_whether_the_weights_are_wrapped_or_bare(tmp_path, wrapped):
    options = {"T": 2, "input_size": (3, 16, 16)}
    source = VideoWrap(net(7), "gsf", **options) if wrapped else net(7)
    model = VideoWrap(net(3, seed=1), "gsf", **options)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.01)
    head = model.state_dict()["backbone.fc.weight"].clone()
    path = saved(tmp_path / "a.safetensors", source)
    if wrapped:
        load_weights(model, path, head="drop")
        assert all(equal(model, source, [name for name in source.state_dict() if name.startswith("fusion.")]))
    else:
        with pytest.warns(UserWarning, match="holds none of the"):
            load_weights(model, path, head="drop")
    start = "backbone." if wrapped else ""
    assert torch.equal(model.state_dict()["backbone.conv1.weight"], source.state_dict()[f"{start}conv1.weight"])
    assert torch.equal(model.state_dict()["backbone.fc.weight"], head)


def test_the_head_of_every_kind_of_model_is_found():
    for name in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "cifar_resnet8", "small_fcn"):
        model = build(name, num_classes=5)
        names = head_names(model)
        assert names, name
        assert head_classes(names, model.state_dict()) == 5, name
        wrapped = VideoWrap(model, "none", T=2, input_size=(3, 160, 160))
        assert head_names(wrapped) == tuple(f"backbone.{name}" for name in names)
    deit = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5)  # two classifiers
    assert head_names(deit) == ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")


def test_a_model_that_names_no_head_cannot_drop_it(tmp_path):
    path = saved(tmp_path / "a.safetensors", nn.Linear(2, 3))
    with pytest.raises(InputError, match="Linear does not say which of its modules is the classifier"):
        load_weights(nn.Linear(2, 3), path, head="drop")


def test_a_model_without_a_config_is_asked_for_its_classifier(tmp_path):
    class Own(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.body, self.top = nn.Linear(2, 4), nn.Linear(4, classes)

        def get_classifier(self):
            return self.top

    source, model = Own(7), Own(3)
    load_weights(model, saved(tmp_path / "a.safetensors", source), head="drop")
    assert all(equal(model, source, ("body.weight", "body.bias")))

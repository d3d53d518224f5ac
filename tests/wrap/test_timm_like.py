"""What timm's scripts look for on a model, and parameter groups."""

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import nn
from wrap_helpers import CHAIN, backbone, images, stir

from image2video.errors import InputError, UnsupportedError
from image2video.wrap.param_groups import NoFusionParametersWarning, param_groups
from image2video.wrap.video_wrap import VideoWrap

NAMES = ["cifar_resnet8", "test_vit", "test_convnext", "test_efficientnet", "test_vit_relpos", "test_mambaout"]


def wrapped(name="cifar_resnet8", fusion="gsf", **kwargs):
    return VideoWrap(backbone(name, **kwargs), fusion, genotype=CHAIN, T=3)


@pytest.mark.parametrize("name", NAMES)
def test_attributes_are_those_of_the_backbone(name):
    model = wrapped(name)
    for attribute in ("num_classes", "num_features", "head_hidden_size", "pretrained_cfg", "default_cfg"):
        assert getattr(model, attribute) is getattr(model.backbone, attribute)
    assert model.get_classifier() is model.backbone.get_classifier()
    config = timm.data.resolve_data_config({}, model=model)
    assert config["input_size"] == model.backbone.pretrained_cfg["input_size"]
    assert timm.data.resolve_model_data_config(model) == timm.data.resolve_model_data_config(model.backbone)


def test_attributes_that_the_backbone_lacks_are_missing():
    model = VideoWrap(nn.Conv2d(3, 4, 3), "none")
    for attribute in ("num_classes", "pretrained_cfg", "feature_info", "nothing"):
        assert not hasattr(model, attribute)
    for method in ("get_classifier", "set_grad_checkpointing"):
        with pytest.raises(UnsupportedError, match=f"Conv2d has no {method}"):
            getattr(model, method)()


def test_reset_classifier():
    model = wrapped()
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert model(images()).shape == (2, 7)
    model.reset_classifier(0, "")
    assert model(images()).shape == (2, 64, 8, 10)


@pytest.mark.parametrize("fusion", ["gsf", "tsm", "gsm", "conv3d"])
@pytest.mark.parametrize("name", NAMES)
def test_layer_decay_finds_the_layers_of_the_bare_model(name, fusion):
    model = wrapped(name, fusion)
    bare = model.backbone
    for coarse in (False, True):
        expected = group_parameters(bare, bare.group_matcher(coarse=coarse), reverse=True)
        found = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert {k.removeprefix("backbone."): v for k, v in found.items() if k.startswith("backbone.")} == expected
        assert len(set(found.values())) == len(set(expected.values()))
        names = [n for n, _ in bare.named_parameters()]
        fusion_names = [n for n in found if n.startswith("fusion.")]
        assert len(fusion_names) == len(list(model.fusion.parameters()))
        for site in model.plan.sites:
            own = [n for n in fusion_names if n.startswith(f"fusion.{site.name}.{fusion}.")]
            host = next((n for n in names if n.startswith(site.name + ".")), None)
            assert host is not None
            assert {found[n] for n in own} <= {expected[host]}


@pytest.mark.parametrize("name", NAMES)
def test_timm_optimizers(name):
    model = wrapped(name)
    bare = backbone(name)
    for options in ({"layer_decay": 0.7, "weight_decay": 0.05}, {"weight_decay": 0.05}):
        groups = create_optimizer_v2(model, "adamw", lr=1e-3, **options).param_groups
        expected = create_optimizer_v2(bare, "adamw", lr=1e-3, **options).param_groups
        assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
        assert len(groups) == len(expected)
    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    for parameter_name, parameter in model.fusion.named_parameters():
        plain = parameter.ndim <= 1
        assert (id(parameter) in decayed) is not plain, parameter_name


def test_no_weight_decay_names_are_prefixed():
    model = wrapped("test_vit")
    names = model.no_weight_decay()
    assert {"backbone." + n for n in model.backbone.no_weight_decay()} <= names
    known = {n for n, _ in model.named_parameters()}
    fusions = {n for n in names if n.startswith("fusion.")}
    assert fusions <= known
    one_dimensional = {n for n, p in model.fusion.named_parameters() if p.ndim <= 1}
    assert fusions == {"fusion." + n for n in one_dimensional}
    assert any(n.endswith("gsf.scale") for n in fusions)
    for groups in (
        param_groups_weight_decay(model, 0.1, weight_decay_exclude_1d=False, no_weight_decay_list=names),
        param_groups_layer_decay(model, 0.1, weight_decay_exclude_1d=False, no_weight_decay_list=names),
    ):
        free = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
        assert all(id(p) in free for n, p in model.named_parameters() if n in names)
        assert id(model.backbone.pos_embed) in free


def test_a_backbone_without_layer_names_is_grouped_in_order():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(*[nn.Conv2d(4 if i else 3, 4, 3, padding=1) for i in range(8)])
            self.head = nn.Linear(4, 2)
            self.pretrained_cfg = {"classifier": "head", "input_size": (3, 16, 16)}

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3)))

    model = VideoWrap(Plain(), "gsf", T=2)
    bare = Plain()
    wide = create_optimizer_v2(model, "sgd", lr=0.1, layer_decay=0.5, weight_decay=0.1).param_groups
    plain = create_optimizer_v2(bare, "sgd", lr=0.1, layer_decay=0.5, weight_decay=0.1).param_groups
    assert {g["lr_scale"] for g in wide} == {g["lr_scale"] for g in plain} == {1.0, 0.5, 0.25}


@torch.no_grad()
def test_ema_forward_uses_its_own_fusions():
    model = wrapped()
    stir(model.fusion)
    ema = ModelEmaV3(model, decay=0.5)
    assert torch.equal(ema(images()), model(images()))
    before = ema(images())
    stir(model.fusion, seed=8)
    assert torch.equal(ema(images()), before)
    ema.update(model)
    after = ema(images())
    assert not torch.allclose(after, before)
    assert not torch.allclose(after, model(images()))


def test_param_groups():
    model = wrapped("test_vit")
    groups = {g["name"]: g for g in param_groups(model, 0.1, fusion_lr_mult=5.0, weight_decay=0.01)}
    assert set(groups) == {"backbone", "backbone_no_decay", "fusion", "fusion_no_decay"}
    assert [groups[n]["lr"] for n in ("backbone", "fusion")] == [0.1, 0.5]
    assert [groups[n]["weight_decay"] for n in ("fusion", "fusion_no_decay")] == [0.01, 0.0]
    ids = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {id(p) for n in ("fusion", "fusion_no_decay") for p in groups[n]["params"]} == {
        id(p) for p in model.fusion.parameters()
    }
    free = {id(p) for p in groups["backbone_no_decay"]["params"]}
    assert id(model.backbone.pos_embed) in free
    assert id(model.backbone.norm.weight) in free
    torch.optim.SGD(list(groups.values())).step()


def test_param_groups_find_fusions_below_other_modules():
    groups = param_groups(nn.Sequential(wrapped()), 0.1, fusion_lr_mult=2.0)
    assert [g["name"] for g in groups if g["lr"] == 0.2] == ["fusion_no_decay", "fusion"]


def test_param_groups_leave_out_frozen_parameters():
    model = wrapped()
    model.backbone.requires_grad_(False)
    assert {g["name"] for g in param_groups(model, 0.1)} == {"fusion", "fusion_no_decay"}
    model.requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameter"):
        param_groups(model, 0.1)


def test_param_groups_say_what_has_no_effect():
    with pytest.warns(NoFusionParametersWarning, match=r"fusion_lr_mult=3.0 has no effect"):
        groups = param_groups(wrapped(fusion="tsm"), 0.1, fusion_lr_mult=3.0)
    assert {g["name"] for g in groups} == {"backbone", "backbone_no_decay"}
    for bad in (float("nan"), -1.0, float("inf")):
        with pytest.raises(InputError, match="finite number"):
            param_groups(wrapped(), bad)

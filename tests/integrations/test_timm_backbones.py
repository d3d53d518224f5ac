"""Bare backbones by name: timm's own, and the ResNets for small images."""

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

from image2video.errors import InputError, InputTypeError, MissingError
from image2video.integrations.timm_backbones import NAMES, build
from image2video.wrap.builders import Builder

PARAMETERS = {
    "cifar_resnet8": 78_042,
    "cifar_resnet14": 175_258,
    "cifar_resnet18": 11_173_962,
    "cifar_resnet34": 21_282_122,
    "cifar_resnet50": 23_520_842,
    "cifar_resnet101": 42_512_970,
    "cifar_resnet152": 58_156_618,
}


def without_values(name, *size, **options):
    """A network and images whose sizes are all that is asked for: the deep ones take seconds with values."""
    with torch.device("meta"):
        return timm.create_model(name, **options), torch.rand(*size)


@pytest.mark.parametrize("name", NAMES)
def test_small_image_resnets(name):
    model, images = without_values(name, 2, 3, 32, 40)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert model(images).shape == (2, 10)
    assert model.forward_features(images[..., :32]).shape[-1] in (4, 8)
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, torch.nn.Identity)
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_their_feature_info_is_true(name):
    model, images = without_values(name, 1, 3, 32, 64, features_only=True)
    maps = model(images)
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert [64 // m.shape[-1] for m in maps] == model.feature_info.reduction()


def test_they_take_timm_options():
    model = timm.create_model("cifar_resnet8", num_classes=7, in_chans=1, drop_path_rate=0.1, act_layer="silu")
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7)
    assert isinstance(model.layer1[0].act1, torch.nn.SiLU)
    model.set_grad_checkpointing()
    model(torch.rand(2, 1, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    # Stem, three blocks and head, each with and without decay.
    assert len(create_optimizer_v2(model, "sgd", lr=0.1, layer_decay=0.7).param_groups) == 10


def test_last_norms_start_at_zero_in_every_block():
    model = timm.create_model("cifar_resnet8")
    for stage in (model.layer1, model.layer2, model.layer3):
        assert torch.count_nonzero(stage[0].bn2.weight) == 0


def test_build_takes_any_timm_name():
    assert build("test_resnet", num_classes=4).num_classes == 4
    assert build("test_resnet.r160_in1k", in_chans=1).pretrained_cfg["tag"] == "r160_in1k"
    assert build("cifar_resnet8").num_classes == 10


def test_build_names_similar_models():
    with pytest.raises(InputError, match=r"no model 'resnet_18'; similar names: .*resnet18"):
        build("resnet_18")
    with pytest.raises(InputError, match=r"timm.list_models\(\) lists all"):
        build("nothing_like_any_name_at_all")


def test_builder_finds_timm_by_its_entry_point():
    builder = Builder("timm:cifar_resnet8", {"num_classes": 3})
    assert builder.build().num_classes == 3
    assert Builder.from_dict(builder.to_dict()) == builder
    assert builder.with_kwargs(num_classes=5, in_chans=1).kwargs == {"num_classes": 5, "in_chans": 1}
    assert builder.with_kwargs(num_classes=None).kwargs == {}


def test_builder_records_are_checked():
    for name in ("timm", ":resnet18", "timm:", ""):
        with pytest.raises(InputError, match="<builder>:<model>"):
            Builder(name)
    with pytest.raises(InputTypeError, match="must be JSON values"):
        Builder("timm:resnet18", {"act_layer": torch.nn.ReLU})
    with pytest.raises(MissingError, match=r"no installed package builds 'nowhere:x'.*\['timm'"):
        Builder("nowhere:x").build()
    for record in (None, {"name": "timm:x"}, {"name": 3, "kwargs": {}}, {"name": "timm:x", "kwargs": []}):
        with pytest.raises(InputError):
            Builder.from_dict(record)

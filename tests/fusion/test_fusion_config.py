"""Configurations build what they say, go through JSON, and refuse what they do not know."""

import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from image2video.errors import InputError, InputTypeError, StateError
from image2video.fusion import (
    GSF,
    GSM,
    TSM,
    Conv3d,
    Conv3dConfig,
    Fusion,
    GSFConfig,
    GSMConfig,
    NoFusionConfig,
    TSMConfig,
    config_from_dict,
    fusion_names,
    register_fusion,
    registry,
    resolve_fusion,
)

SITE = SimpleNamespace(channels=16)
CONFIGS = [
    GSFConfig(ratio=0.5, padding="circular"),
    TSMConfig(fold_div=4, padding="replicate"),
    GSMConfig(padding="circular"),
    Conv3dConfig(inflate="mean"),
    NoFusionConfig(),
]


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})


@pytest.mark.parametrize("config", CONFIGS)
def test_json_and_pickle_round_trip(config):
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert resolve_fusion(config.to_dict()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert resolve_fusion(config) is config


def test_names_resolve_to_defaults():
    assert [resolve_fusion(name) for name in ("gsf", "tsm", "gsm", "conv3d", "none")] == [
        GSFConfig(),
        TSMConfig(),
        GSMConfig(),
        Conv3dConfig(),
        NoFusionConfig(),
    ]
    assert {"gsf", "tsm", "gsm", "conv3d", "none"} <= set(fusion_names())


def test_build():
    gsf = GSFConfig(ratio=0.5, padding="circular").build(SITE, True)
    assert isinstance(gsf, GSF)
    assert (gsf.fused_channels, gsf.padding, gsf.residual) == (8, "circular", True)
    tsm = TSMConfig(fold_div=4, padding="replicate").build(SITE, True)
    assert isinstance(tsm, TSM)
    assert (tsm.fold_div, tsm.padding) == (4, "replicate")
    assert isinstance(GSMConfig().build(SITE, False), GSM)
    conv3d = Conv3dConfig(inflate="mean").build(SITE, False, nn.Conv2d(16, 8, 3))
    assert isinstance(conv3d, Conv3d)
    assert (conv3d.out_channels, conv3d.inflate) == (8, "mean")


def test_build_of_a_convolution_needs_its_host():
    with pytest.raises(InputError, match="host=convolution"):
        Conv3dConfig().build(SITE, True)
    with pytest.raises(InputError, match="channels of its convolution, 4, got 16"):
        Conv3dConfig().build(SITE, True, nn.Conv2d(4, 8, 3))


def test_none_builds_nothing():
    config = NoFusionConfig()
    assert not config.active
    assert config.refusal(1) is None
    with pytest.raises(StateError, match="'none' has no module"):
        config.build(SITE, True)


def test_capabilities():
    assert [config.placement for config in CONFIGS[:4]] == ["after", "before", "after", "beside"]
    assert [config.every_conv for config in CONFIGS] == [False, False, False, True, False]
    assert TSMConfig().refusal(8) is None
    assert "7 // 8" in TSMConfig().refusal(7)
    assert "too few to split" in GSFConfig().refusal(3)
    assert "multiple of 4" in GSMConfig().refusal(18)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"name": "gsv"}, "fusion 'gsv' is unknown; choose one of gsf, tsm"),
        ({}, "a fusion's name must be one of gsf, tsm, .*, got None"),
        ({"name": ["gsf"]}, "a fusion's name must be"),
        ({"name": "gsf", "ration": 0.5}, r"no option 'ration'; its options are ratio, padding"),
        ({"name": "none", "ratio": 0.5}, "it has no options"),
        ({"name": "gsf", "ratio": 0}, "ratio must be .*, got 0$"),
        ({"name": "gsf", "ratio": "0.5"}, "ratio must be .*, got '0.5'"),
        ({"name": "gsf", "ratio": float("nan")}, "ratio must be .*, got nan"),
        ({"name": "tsm", "fold_div": 8.0}, "fold_div must be .*, got 8.0"),
        ({"name": "tsm", "fold_div": True}, "fold_div must be .*, got True"),
        ({"name": "gsm", "padding": "mirror"}, "padding must be .*, got 'mirror'"),
        ({"name": "gsm", "padding": ["zeros"]}, "padding must be"),
        ({"name": "conv3d", "inflate": "max"}, "inflate must be .*, got 'max'"),
    ],
)
def test_wrong_dictionaries(values, match):
    with pytest.raises(InputError, match=match):
        config_from_dict(values)


def test_wrong_types():
    with pytest.raises(InputTypeError, match=r"fusion must be a name \(gsf, .*, got 3$"):
        resolve_fusion(3)
    with pytest.raises(InputTypeError, match="with options"):
        resolve_fusion(GSFConfig(), ratio=0.5)


@pytest.mark.usefixtures("clean_registry")
def test_register_fusion():
    @register_fusion("scaled")
    class Scaled(Fusion):
        placement = "after"

        def __init__(self, channels, *, factor=2.0, residual=False):
            super().__init__(channels, residual=residual)
            self.factor = factor

        def fuse(self, frames, T, parts):
            return frames * self.factor

    assert fusion_names()[-1] == "scaled"
    config = resolve_fusion("scaled", factor=3.0)
    assert config.to_dict() == {"name": "scaled", "factor": 3.0}
    assert resolve_fusion("scaled").to_dict() == {"name": "scaled", "factor": 2.0}
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert (config.placement, config.every_conv, config.active) == ("after", False, True)
    module = config.build(SITE, True)
    assert module.residual
    assert (module(torch.ones(4, 16, 2, 3), 2) == 3).all()
    with pytest.raises(InputError, match="no option 'ratio'; its options are factor"):
        resolve_fusion("scaled", ratio=1)
    with pytest.raises(InputError, match="'scaled' is registered already"):
        register_fusion("scaled")


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_name_that_is_gone_says_so():
    with pytest.raises(InputError, match=r"'gone' is unknown; .*import the module that registers"):
        _ = registry.RegisteredConfig("gone").placement


@pytest.mark.usefixtures("clean_registry")
def test_register_refuses():
    class NeedsMore(TSM):
        def __init__(self, channels, more, *, residual=False):
            super().__init__(channels, residual=residual)

    class NoResidual(TSM):
        def __init__(self, channels):
            super().__init__(channels)

    class NoPlacement(Fusion):
        def fuse(self, frames, T, parts):
            return frames

    class Abstract(Fusion):
        placement = "after"

    cases = [
        (nn.Identity, InputTypeError, "must be a subclass of image2video.fusion.Fusion, got"),
        (TSM(8), InputTypeError, "must be a subclass"),
        (NeedsMore, InputError, "'more'; every option needs a name and a default"),
        (NoResidual, InputError, "must take 'residual'"),
        (NoPlacement, InputTypeError, "NoPlacement.placement must be"),
        (Abstract, InputTypeError, "needs fuse; Abstract does not write it"),
    ]
    for cls, error, match in cases:
        with pytest.raises(error, match=match):
            register_fusion("mine")(cls)
    for name in ("gsf", "two words", 3):
        with pytest.raises(InputError, match=r"registered already|must be an identifier"):
            register_fusion(name)
    assert "mine" not in fusion_names()

"""Quantised layers: before wrapping they are weights like others, and after it the error names the order that works."""

import warnings

import pytest
import timm
import torch
from inject_cases import randomise
from torch import nn

from image2video import VideoWrap
from image2video.errors import StateError
from image2video.inject import plan

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def vit():
    torch.manual_seed(0)
    options = {"embed_dim": 64, "depth": 1, "num_heads": 2, "img_size": (32, 48), "patch_size": 8, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


def quantised(model):
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def wrapped(net, fusion):
    model = VideoWrap(net, fusion, genotype="translate_x(0.1)", T=3, residual=False, input_size=(3, 32, 48)).eval()
    randomise(model.fusion, 3)
    return model


def sites(net, fusion):
    return [(s.name, s.channels, s.layout, s.grids) for s in plan(net, fusion=fusion, input_size=(3, 32, 48)).sites]


@pytest.mark.parametrize("fusion", ["tsm", "gsf"])
def test_dynamically_quantised_layers_have_the_sites_of_the_float_ones(fusion):
    net = quantised(vit())
    assert sites(net, fusion) == sites(vit(), fusion)
    model = wrapped(net, fusion)
    with torch.no_grad():
        out, bare, still = (m(IMAGES) for m in (model, wrapped(vit(), fusion), wrapped(quantised(vit()), "none")))
    assert (out - bare).abs().max() < 0.05 * bare.abs().max()
    assert (out - still).abs().max() > 1e-4, "frames must mix"


def test_quantising_a_wrapper_is_refused_with_the_order_that_works():
    model = quantised(wrapped(vit(), "gsf"))
    with pytest.raises(StateError, match=r"quantisation, adapters\): do that first, then wrap"):
        model(IMAGES)


@pytest.mark.parametrize("config", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao_before_and_after_wrapping(config):
    torchao = pytest.importorskip("torchao.quantization")
    for fusion in ("tsm", "gsf"):
        net = vit()
        torchao.quantize_(net, getattr(torchao, config)())
        assert sites(net, fusion) == sites(vit(), fusion)
        later = wrapped(vit(), fusion)
        torchao.quantize_(later, getattr(torchao, config)())
        with torch.no_grad():
            torch.testing.assert_close(later(IMAGES), wrapped(net, fusion)(IMAGES))

"""Token sequences of other image sizes than the planned one: fused and unwarped on their own grid, or refused."""

import copy

import pytest
import timm
import torch
from inject_cases import randomise
from plan_cases import SIZE, Transformer, Windows
from torch import nn

from image2video import VideoWrap
from image2video.errors import InputError
from image2video.inject import inject_, plan

VIT = {"embed_dim": 16, "depth": 1, "num_heads": 2, "dynamic_img_size": True, "num_classes": 0}
SWIN = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4, "num_classes": 0}


def fused(net, planned, size, fusion="gsf"):
    """What a backbone with a fusion planned at one size gives for frames of another."""
    made = plan(net, fusion=fusion, input_size=(3, *planned))
    net = copy.deepcopy(net).eval()
    injection = inject_(net, made, residual=False)
    randomise(injection, 3)
    injection.eval()
    frames = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), injection.frames(3):
        return net(frames)


@pytest.mark.parametrize("fusion", ["gsf", "gsm"])
@pytest.mark.parametrize("size", [(40, 24), (12, 80), (48, 20), (24, 40), (32, 64), (26, 43)])
def test_tokens_are_fused_on_the_grid_of_their_image(fusion, size, trace_once):
    net = Transformer(prefix=1)
    randomise(net, 0)
    out = fused(net, SIZE[1:], size, fusion)
    assert torch.equal(out, fused(net, size, size, fusion))


NETS = {
    "vit": (timm.create_model, ("vit_tiny_patch16_224",), {**VIT, "img_size": (32, 48), "patch_size": 8}),
    "registers": (timm.create_model, ("vit_tiny_patch16_224",), {**VIT, "img_size": (32, 48), "patch_size": 8,
                                                                 "reg_tokens": 3}),
    "pvt": (timm.create_model, ("pvt_v2_b0",), {"embed_dims": (8,) * 4, "depths": (1,) * 4, "num_heads": (1,) * 4}),
    "hybrid": (timm.create_model, ("vit_tiny_r_s16_p8_224",), {**VIT, "img_size": (64, 96)}),
    "swin": (timm.create_model, ("swin_tiny_patch4_window7_224",), {**SWIN, "img_size": (32, 48),
                                                                    "strict_img_size": False}),
    "swinv2": (timm.create_model, ("swinv2_tiny_window8_256",), {**SWIN, "img_size": (32, 48),
                                                                  "strict_img_size": False}),
    "twins": (timm.create_model, ("twins_svt_small",), {"embed_dims": (8,) * 4, "depths": (1,) * 4,
                                                        "num_heads": (1,) * 4, "num_classes": 0}),
    "xcit": (timm.create_model, ("xcit_nano_12_p16_224",), {"embed_dim": 16, "depth": 1, "num_heads": 2,
                                                            "num_classes": 0, "img_size": (64, 96)}),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_token_layouts_of_timm_are_fused_on_the_grid_of_their_image(name, trace_once):
    make, args, options = NETS[name]
    net = make(*args, **options)
    randomise(net, 0, scale=0.1)
    height, width = (64, 96) if name in ("pvt", "hybrid", "twins", "xcit") else (32, 48)
    # As many tokens as planned on another grid, and of one network of each kind more of them. Turned images are the
    # test's above.
    more = [(height * 2, width * 2)] if name in ("vit", "swin", "pvt", "xcit") else []
    for size in [(height * 2, width // 2), *more]:
        torch.testing.assert_close(fused(net, (height, width), size), fused(net, size, size))


def test_windows_stay_windows_at_other_sizes(trace_once):
    net = Windows()
    for size in [(40, 24 * 5), (48, 80), (24, 40)]:
        torch.testing.assert_close(fused(net, SIZE[1:], size), fused(net, size, size))


def test_the_backbone_may_be_set_to_another_input_size():
    net = timm.create_model("vit_tiny_patch16_224", **{**VIT, "dynamic_img_size": False, "img_size": (32, 48)})
    randomise(net, 0, scale=0.1)
    model = VideoWrap(net, genotype="translate_x(0.1)", T=3, residual=False, input_size=(3, 32, 48)).eval()
    randomise(model.fusion, 3)
    model.backbone.set_input_size((96, 16))
    images = torch.randn(1, 3, 96, 16)
    other = copy.deepcopy(model).unwrap()
    fresh = VideoWrap(other, genotype="translate_x(0.1)", T=3, residual=False, input_size=(3, 96, 16)).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(images), fresh(images))


@pytest.mark.parametrize("size", [(40, 24), (12, 80), (48, 80)])
@pytest.mark.parametrize("fusion", ["none", "gsf", "tsm"])
def test_tokens_that_come_out_are_unwarped_on_the_grid_of_their_image(size, fusion):
    net = Transformer(prefix=2).eval()
    clip = {"genotype": "translate_x(0.2) > rotate(20)", "T": 3}
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = VideoWrap(copy.deepcopy(net), fusion, input_size=SIZE, **clip)(images)
        expected = VideoWrap(copy.deepcopy(net), fusion, input_size=(3, *size), **clip)(images)
    torch.testing.assert_close(out, expected)


class Pooled(nn.Module):
    """A branch on 24 tokens, whatever the image."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Conv2d(3, 8, 1), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(self.stem(x), (4, 6)).flatten(2).transpose(1, 2)
        return x + self.fc2(self.fc1(x).relu())


def test_a_grid_that_the_plan_cannot_tell_is_refused_by_fusions_that_need_one():
    model = VideoWrap(Pooled(), T=3, aggregate="mean", input_size=(3, 32, 48)).eval()
    assert model(torch.randn(1, 3, 32, 48)).shape == (1, 24, 8)
    with pytest.raises(InputError, match=r"site 'fc2': 24 tokens of images of 48×32 .* input_size=\(C, 48, 32\)"):
        model(torch.randn(1, 3, 48, 32))
    shift = VideoWrap(Pooled(), "tsm", T=3, aggregate="mean", input_size=(3, 32, 48))
    assert shift(torch.randn(1, 3, 48, 32)).shape == (1, 24, 8)


def test_other_doors_tell_the_size_of_the_images():
    net = timm.create_model("vit_tiny_patch16_224", **{**VIT, "img_size": (32, 48), "patch_size": 8})
    model = VideoWrap(net, T=3, residual=False).eval()
    randomise(model.fusion, 3)
    images = torch.randn(1, 3, 96, 16)
    with torch.no_grad():
        features = model.forward_features(images)
        torch.testing.assert_close(model.forward_head(features, image_size=(96, 16)), model(images))
        frames = torch.randn(3, 3, 96, 16)
        with model.fusion.frames(3), pytest.raises(InputError, match=r"not known here .* size=\(height, width\)"):
            net.forward_features(frames)
        with model.fusion.frames(3, size=(96, 16)):
            outside = net.forward_features(frames)
        with model.fusion.frames(3):
            torch.testing.assert_close(net.forward_head(outside), net(frames))


def test_another_size_compiles():
    net = Transformer(prefix=1)
    model = VideoWrap(net, T=2, residual=False, input_size=SIZE).eval()
    randomise(model, 3)
    images = torch.randn(1, 3, 40, 24)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))

"""What a wrapper answers to a wrong call: one sentence that says what to do."""

import copy
import pickle
import traceback

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import Mlp
from torch import nn
from wrap_helpers import CHAIN, backbone, images, stir, wrapped

from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError, InputTypeError, StateError
from image2video.inject.planning import plan
from image2video.wrap.param_groups import param_groups
from image2video.wrap.video_wrap import VideoWrap


class HuggingFaceLike(nn.Module):
    """A network that is not timm's: a config, a device, a dtype and a classifier of its own."""

    def __init__(self):
        super().__init__()
        self.config = {"hidden": 8}
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.classifier = nn.Linear(8, 4)

    @property
    def dtype(self):
        return self.classifier.weight.dtype

    @property
    def device(self):
        return self.classifier.weight.device

    @property
    def broken(self):
        raise ValueError("the reason of the backbone itself")

    def forward(self, images):
        return self.classifier(self.body(images).mean((2, 3)))


def not_timm(**options):
    return VideoWrap(HuggingFaceLike(), **{"T": 2, "input_size": (3, 16, 20)} | options)


def test_the_number_of_frames_by_other_names():
    with pytest.raises(InputTypeError, match=r"frames must be a FrameSource .* got int; .* write T=5"):
        VideoWrap(backbone(), frames=5)
    with pytest.raises(InputTypeError, match=r"VideoWrap got an unknown argument num_frames=5; write T=; it knows"):
        VideoWrap(backbone(), num_frames=5)
    with pytest.raises(InputTypeError, match=r"Image2Video got an unknown argument n_frames=5; write T=; it knows"):
        Image2Video(CHAIN, n_frames=5)
    with pytest.raises(InputTypeError, match=r"unknown argument fussion='gsf'; write fusion="):
        VideoWrap(backbone(), fussion="gsf")
    with pytest.raises(InputTypeError, match=r"unknown argument zzz=1; it knows backbone, fusion"):
        VideoWrap(backbone(), zzz=1)


def test_images_that_are_no_tensors():
    model, photo = wrapped(), Image.new("RGB", (40, 32))
    for given in (photo, [photo, photo]):
        with pytest.raises(InputTypeError, match=r"must be a tensor .* got .*; apply the transform .* torch.stack"):
            model(given)
    with pytest.raises(InputTypeError, match=r"got numpy's ndarray; make it one with torch.from_numpy"):
        model(np.zeros((2, 3, 32, 40), dtype=np.float32))
    with pytest.raises(InputTypeError, match=r"got list; torch.stack normalised images"):
        model([images()[0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["cifar_resnet8", "test_vit"])
def test_images_of_another_dtype_than_the_weights(name, dtype):
    size = (3, 32, 40) if name == "cifar_resnet8" else (3, 160, 160)
    model = VideoWrap(backbone(name), "tsm", T=2)
    for call in (model, model.forward_features):
        with pytest.raises(
            InputTypeError, match=rf"images are {dtype}, .* needs torch.float32, .*images.to\(torch.flo"
        ):
            call(images(size=size).to(dtype))


def test_a_backbone_that_converts_its_images_is_left_alone():
    class Converts(HuggingFaceLike):
        def forward(self, images):
            return super().forward(images.to(self.dtype))

    model = VideoWrap(Converts(), "none", T=2)
    assert model(images().to(torch.bfloat16)).dtype == torch.float32

    class Fails(HuggingFaceLike):
        def forward(self, images):
            raise RuntimeError("some other type of failure")

    with pytest.raises(RuntimeError, match="some other type") as caught:
        VideoWrap(Fails(), "none", T=2)(images())
    assert not isinstance(caught.value, InputTypeError)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(99, 4)

    def forward(self, images):
        return self.head(self.conv(images).flatten(1))  # the line that is to be seen


def test_a_failed_trace_shows_the_line_of_the_model_and_one_sentence(capfd, caplog):
    with pytest.raises(InputError, match=r"the forward of Failing failed on images of size \(3, 16, 20\)") as caught:
        plan(Failing(), input_size=(3, 16, 20))
    assert not caplog.records  # torch logs a traceback of its own for every operation that fails on fake tensors
    assert capfd.readouterr().err == ""
    text = "".join(traceback.format_exception(caught.value.__cause__))
    assert "the line that is to be seen" in text
    assert "fake" not in text.lower()
    assert "Failing" in str(caught.value)
    assert len(text.splitlines()) < 12


def test_attributes_of_a_backbone_that_is_not_timms():
    model = not_timm()
    bare = model.backbone
    assert model.classifier is bare.classifier
    assert model.config is bare.config
    assert (model.device, model.dtype) == (bare.device, torch.float32)
    assert model.double().dtype == torch.float64
    with pytest.raises(ValueError, match="the reason of the backbone itself"):
        _ = model.broken
    for missing in ("nothing", "_private", "num_classes"):
        assert not hasattr(model, missing)
    assert set(dict(model.named_children())) == {"to_video", "fusion", "backbone"}
    assert all(name.startswith(("backbone.", "fusion.", "_extra_state")) for name in model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.classifier is other.backbone.classifier is not bare.classifier
    model.unwrap()
    assert not hasattr(model, "classifier")


def test_parts_of_the_backbone_are_set_on_the_backbone():
    model = not_timm()
    with pytest.raises(StateError, match=r"write model.backbone.classifier = "):
        model.classifier = nn.Linear(8, 7)
    model.backbone.classifier = nn.Linear(8, 7)
    assert model(images(size=(3, 16, 20))).shape == (2, 7)
    model.probe = nn.Identity()  # the wrapper may get parts of its own
    assert model.probe is model._modules["probe"]


@pytest.mark.parametrize("make", [not_timm, wrapped, HuggingFaceLike, lambda: nn.Sequential(wrapped())])
def test_a_learning_rate_for_the_head(make):
    model = make()
    groups = {group["name"]: group for group in param_groups(model, 0.1, head_lr_mult=10.0, weight_decay=0.01)}
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    assert [id(p) for p in groups["head"]["params"]] == [id(head.weight)]
    assert [id(p) for p in groups["head_no_decay"]["params"]] == [id(head.bias)]
    assert groups["head"]["lr"] == groups["head_no_decay"]["lr"] == 1.0
    assert groups["backbone"]["lr"] == 0.1
    ids = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_a_head_that_is_not_known():
    with pytest.raises(InputError, match=r"head_lr_mult needs a classifier, and none is known in Mlp"):
        param_groups(Mlp(4), 0.1, head_lr_mult=2.0)


INTERMEDIATES = {"cifar_resnet8": (3, 32, 40), "test_vit": (3, 160, 160), "test_convnext": (3, 64, 96)}


@pytest.mark.parametrize("name", INTERMEDIATES)
@torch.no_grad()
def test_intermediates_are_those_of_the_frames_brought_back(name):
    size = INTERMEDIATES[name]
    model = VideoWrap(backbone(name), "tsm", genotype=CHAIN, T=3)
    bare, batch = backbone(name), images(size=size)
    still = VideoWrap(backbone(name), "none", genotype="identity", T=3)
    final, maps = still.forward_intermediates(batch)
    expected_final, expected = bare.forward_intermediates(batch)
    torch.testing.assert_close(final, expected_final, atol=1e-4, rtol=1e-4)
    assert len(maps) == len(expected) > 1
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    frames = model.to_video(batch).flatten(0, 1)
    with model.fusion.frames(3):
        of_frames = model.backbone.forward_intermediates(frames, indices=[0], intermediates_only=True)
    found = model.forward_intermediates(batch, [0], intermediates_only=True)
    expected = [model.to_video.unwarped_mean(value, size[1:]) for value in of_frames]
    torch.testing.assert_close(found, expected)
    tokens = model.forward_intermediates(batch, [0], intermediates_only=True, output_fmt="NLC")
    torch.testing.assert_close(tokens[0], expected[0].flatten(2).transpose(1, 2))
    with pytest.raises(InputError, match="output_fmt must be one of NCHW, NHWC, NLC, got 'CHW'"):
        model.forward_intermediates(batch, output_fmt="CHW")


@torch.no_grad()
def test_prefix_tokens_of_intermediates_are_averaged():
    model = VideoWrap(backbone("test_vit"), "none", genotype=CHAIN, T=3)
    batch = images(size=(3, 160, 160))
    (body, prefix), *_ = model.forward_intermediates(batch, [0], intermediates_only=True, return_prefix_tokens=True)
    frames = model.to_video(batch).flatten(0, 1)
    ((of_frames, tokens),) = model.backbone.forward_intermediates(
        frames, indices=[0], intermediates_only=True, return_prefix_tokens=True
    )
    torch.testing.assert_close(prefix, tokens.unflatten(0, (2, 3)).mean(1))
    torch.testing.assert_close(body, model.to_video.unwarped_mean(of_frames, (160, 160)))


@torch.no_grad()
def test_the_input_size_of_a_wrapped_backbone():
    model = VideoWrap(backbone("test_vit", num_classes=0, global_pool=""), "gsf", genotype=CHAIN, T=3)
    expected = VideoWrap(backbone("test_vit", num_classes=0, global_pool=""), "gsf", genotype=CHAIN, T=3)
    stir(model.fusion)
    expected.load_state_dict(model.state_dict())
    bare = expected.unwrap()
    bare.set_input_size(img_size=(96, 64))
    again = VideoWrap(bare, "gsf", genotype=CHAIN, T=3, input_size=(3, 96, 64))
    again.fusion.load_state_dict(model.fusion.state_dict())
    model.set_input_size((96, 64))
    assert model.plan.input_size == (3, 96, 64)
    assert [s.layout.grid for s in model.plan.sites] == [s.layout.grid for s in again.plan.sites] == [(6, 4)] * 12
    batch = images(size=(3, 96, 64))
    torch.testing.assert_close(model(batch), again(batch))
    with pytest.raises(InputError, match=r"the plan must be for .* at the 12 sites that are injected"):
        model.fusion.replan_(plan(backbone("test_vit"), fusion="gsf", sites=[model.plan.names[0]]))

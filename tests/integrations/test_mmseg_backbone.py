"""`type="VideoWrap"`: any backbone over frames, under heads, from other scopes, with the checkpoints of bare ones."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmseg")

from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope, Registry
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint, save_checkpoint
from mmseg.registry import MODELS
from mmseg_cases import SIZE, build, largest_difference, predictions, samples, tiny_config, total_loss
from torch.nn.modules.batchnorm import _BatchNorm

from image2video import clip_to_frames
from image2video.errors import InputError, StateError
from image2video.integrations.openmmlab import VideoBackbone
from image2video.wrap.checkpoint import FreshFusionWarning
from image2video.wrap.clip_record import decode

REAL = "translate_x(0.06) > rotate(5)"
TOY = Registry("toy models", parent=ROOT_MODELS, scope="toy")


@TOY.register_module()
class Pooled(BaseModule):
    """Vectors of images, by a residual network of its own library."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.branch = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.stem(x).relu()
        return ((x + self.branch(x)).mean((2, 3)),)


def wrapped_config(decode: str = "psp", *, inner: Mapping[str, Any] | None = None, **video: Any) -> ConfigDict:
    """A tiny segmentor whose backbone is wrapped; `inner` adds to the backbone's own config."""
    config = tiny_config(decode)
    backbone = {**config.backbone, **(inner or {})}
    config.backbone = ConfigDict(
        type="VideoWrap", backbone=backbone, video={"genotype": REAL, "T": 3, "input_size": SIZE, **video}
    )
    return config


def wrapped_backbone(**options: Any) -> VideoBackbone:
    """The backbone of `wrapped_config` with weights in which every branch counts."""
    return build(wrapped_config(**options)).backbone


def bare_twin(model: VideoBackbone) -> nn.Module:
    """A backbone without hooks that has the weights of the wrapped one."""
    bare = MODELS.build(wrapped_config().backbone.backbone)
    bare.load_state_dict(model.backbone.state_dict())
    bare.eval()  # not chained: mmsegmentation's backbones return nothing from it
    return bare


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a bare checkpoint, which leaves the fusions as they are, with a warning."""
    with pytest.warns(FreshFusionWarning, match="fusion parameters"):
        missing, unexpected = model.load_state_dict(dict(state))
    assert not missing
    assert not unexpected


@pytest.mark.parametrize("fusion", ["gsf", "gsm", "conv3d", "none"])
def test_the_identity_genotype_is_the_bare_backbone(fusion: str) -> None:
    model = wrapped_backbone(genotype="identity", fusion=fusion)
    bare = bare_twin(model)
    with torch.no_grad():
        ours, theirs = model(images()), bare(images())
    assert type(ours) is type(theirs)
    assert len(ours) == 4
    assert largest_difference(ours, theirs) < 1e-4


def test_maps_are_the_unwarped_average_of_the_frames() -> None:
    model = wrapped_backbone(fusion="none")
    x, T = images(), 3
    frames = clip_to_frames(model.to_video(x))
    bare = bare_twin(model)
    with torch.no_grad():
        ours, theirs = model(x), bare(frames)
    for mine, maps in zip(ours, theirs, strict=True):
        size = (maps.shape[2], maps.shape[3])
        total = model.to_video.unwarp(maps, SIZE).sum(1)
        expected = total / model.to_video.valid_mask(size, SIZE).sum(0)
        plain = maps.unflatten(0, (-1, T)).mean(1)
        assert (mine - expected).abs().max() < 1e-5
        assert (mine - plain).abs().max() > 0.05


@pytest.mark.parametrize("fusion", ["gsf", "tsm"])
def test_frames_mix_where_there_is_a_fusion(fusion: str) -> None:
    model = wrapped_backbone(fusion=fusion, residual=False)
    unmixed = wrapped_backbone(fusion="none")
    unmixed.backbone.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        assert largest_difference(model(images()), unmixed(images())) > 1e-3


SWIN = {
    "type": "SwinTransformer",
    "embed_dims": 8,
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 1, 2, 2),
    "window_size": 4,
    "out_indices": (0, 1, 2, 3),
}
MIT = {
    "type": "MixVisionTransformer",
    "embed_dims": 8,
    "num_layers": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "sr_ratios": [8, 4, 2, 1],
    "mlp_ratio": 2,
}
SHARED = {"num_classes": 5, "channels": 8, "dropout_ratio": 0.0, "align_corners": False}
WIDTHS = {"SwinTransformer": [8, 16, 32, 64], "MixVisionTransformer": [8, 8, 16, 16]}


def head_case(name: str) -> ConfigDict:
    if name == "psp":
        return wrapped_config()
    inner, head = {
        "swin": (SWIN, {"type": "UPerHead", "pool_scales": (1, 2)}),
        "segformer": (MIT, {"type": "SegformerHead"}),
    }[name]
    config = tiny_config(auxiliary=False)
    config.backbone = ConfigDict(type="VideoWrap", backbone=inner, video={"genotype": REAL, "T": 3, "input_size": SIZE})
    norm = {"type": "BN", "requires_grad": True}
    config.decode_head = ConfigDict(
        **head, **SHARED, norm_cfg=norm, in_channels=WIDTHS[inner["type"]], in_index=[0, 1, 2, 3]
    )
    return config


@pytest.mark.parametrize("name", ["psp", "swin", "segformer"])
def test_heads_train_and_predict(name: str) -> None:
    model = build(head_case(name))
    assert model.backbone.fusion.plan.sites
    inputs, found = samples(2, sizes=(SIZE, (32, 48)))
    model.train()
    loss = total_loss(model, inputs, found)
    loss.backward()
    assert loss.isfinite()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)
    model.eval()
    logits = predictions(model, *samples(2, test=True))
    assert [tuple(one.shape) for one in logits] == [(5, *SIZE)] * 2


def test_training_mode_is_the_inner_backbones_own_matter() -> None:
    model = wrapped_backbone(inner={"norm_eval": True, "frozen_stages": 1})
    assert model.backbone.train() is None, "mmsegmentation's backbones return nothing from train()"
    assert model.train() is model
    inside = [m for m in model.backbone.modules() if isinstance(m, _BatchNorm)]
    beside = [m for m in model.fusion.modules() if isinstance(m, _BatchNorm)]
    assert inside
    assert not any(norm.training for norm in inside)
    assert beside
    assert all(norm.training for norm in beside)
    assert not any(p.requires_grad for p in model.backbone.layer1.parameters())
    assert all(p.requires_grad for p in model.backbone.layer2.parameters())
    assert all(p.requires_grad for p in model.fusion.parameters())
    assert not any(module.training for module in model.eval().modules())


def test_the_checkpoint_of_a_plain_segmentor_loads(tmp_path: Path) -> None:
    plain = build(tiny_config())
    model = build(wrapped_config(genotype="identity"), seed=1)
    keys = set(plain.state_dict())
    assert "backbone.layer1.0.conv1.weight" in keys
    assert "backbone.backbone.layer1.0.conv1.weight" in set(model.state_dict()) - keys
    load(model, plain.state_dict())
    x, found = samples(2, test=True)
    assert largest_difference(predictions(model, x, found), predictions(plain, x, found)) < 1e-4
    other = build(wrapped_config(genotype="identity"), seed=2)
    save_checkpoint({"state_dict": plain.state_dict()}, str(tmp_path / "plain.pth"))
    with pytest.warns(FreshFusionWarning):
        load_checkpoint(other, str(tmp_path / "plain.pth"), map_location="cpu", strict=True)
    assert largest_difference(predictions(other, x, found), predictions(plain, x, found)) < 1e-4


@pytest.mark.parametrize("way", ["wrapper", "prefix", "inner", "segmentor", "pretrained"])
@pytest.mark.filterwarnings("ignore::image2video.wrap.checkpoint.FreshFusionWarning")
@pytest.mark.filterwarnings("ignore:DeprecationWarning. pretrained:UserWarning")
def test_init_weights_reads_bare_checkpoints(way: str, tmp_path: Path) -> None:
    plain = build(tiny_config())
    whole, bare = str(tmp_path / "segmentor.pth"), str(tmp_path / "backbone.pth")
    save_checkpoint({"state_dict": plain.state_dict()}, whole)
    save_checkpoint({"state_dict": plain.backbone.state_dict()}, bare)
    config = wrapped_config()
    if way == "wrapper":
        config.backbone.init_cfg = {"type": "Pretrained", "checkpoint": bare}
    elif way == "prefix":
        config.backbone.init_cfg = {"type": "Pretrained", "checkpoint": whole, "prefix": "backbone."}
    elif way == "inner":
        config.backbone.backbone.init_cfg = {"type": "Pretrained", "checkpoint": bare}
    elif way == "segmentor":
        config.init_cfg = {"type": "Pretrained", "checkpoint": whole}
    else:
        config.pretrained = bare
    model = MODELS.build(config)
    model.init_weights()
    got, expected = model.backbone.backbone.state_dict(), plain.backbone.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_its_own_checkpoint_brings_the_fusions_and_says_what_the_clip_was(tmp_path: Path) -> None:
    model = build(wrapped_config())
    with torch.no_grad():
        for parameter in model.backbone.fusion.parameters():
            parameter.add_(0.1)
    state = get_state_dict(model)
    assert decode(state["backbone._extra_state"])["T"] == 3
    assert decode(state["backbone._extra_state"])["genotype"] == REAL
    path = str(tmp_path / "wrapped.pth")
    save_checkpoint({"state_dict": state}, path)
    same = build(wrapped_config(), seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FreshFusionWarning)
        load_checkpoint(same, path, map_location="cpu", strict=True)
    x, found = samples(2, test=True)
    assert largest_difference(predictions(same, x, found), predictions(model, x, found)) == 0
    other = build(wrapped_config(T=2))
    with pytest.raises(InputError, match=r"model\.backbone\.video\.T=2, the checkpoint has 3"):
        load_checkpoint(other, path, map_location="cpu")
    # Version 0.1 wrote the clip into the metadata.
    state._metadata["backbone"]["image2video"] = decode(state.pop("backbone._extra_state"))
    with pytest.raises(InputError, match=r"model\.backbone\.video\.T=2, the checkpoint has 3"):
        other.load_state_dict(state)
    lenient = build(wrapped_config(T=2, allow_mismatch=True))
    with pytest.warns(UserWarning, match=r"trained with another video: model\.backbone\.video\.T=2"):
        load_checkpoint(lenient, path, map_location="cpu", strict=True)


def test_a_checkpoint_that_lacks_some_fusions_is_not_whole() -> None:
    model = build(wrapped_config())
    state = model.state_dict()
    del state["backbone.fusion.layer1.0.conv2.gsf.conv3D.weight"]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_whole(again: Any) -> None:
    model = wrapped_backbone(residual=False)
    twin = again(model)
    with torch.no_grad():
        assert largest_difference(model(images()), twin(images())) == 0
        before = model(images())
        for parameter in twin.parameters():
            parameter.zero_()
        assert largest_difference(model(images()), before) == 0


@pytest.mark.parametrize("kind", ["VideoWrap", "mmseg.VideoWrap", "mmengine.VideoWrap"])
def test_another_library_finds_it_and_keeps_its_own_backbones(kind: str) -> None:
    config = {"type": kind, "backbone": {"type": "Pooled"}, "video": {"T": 3, "genotype": REAL, "input_size": SIZE}}
    with DefaultScope.overwrite_default_scope("toy"):
        model = TOY.build(config)
    assert type(model) is VideoBackbone
    assert type(model.backbone) is Pooled
    model.eval()
    with torch.no_grad():
        (vectors,) = model(images())
        with model.fusion.frames(3):
            (frames,) = model.backbone(clip_to_frames(model.to_video(images())))
    assert (vectors - frames.unflatten(0, (2, 3)).mean(1)).abs().max() < 1e-6


def test_the_inner_type_may_be_of_another_library() -> None:
    model = MODELS.build({"type": "VideoWrap", "backbone": {"type": "toy.Pooled"}, "video": {"input_size": SIZE}})
    assert type(model.backbone) is Pooled


def test_the_example_of_the_docstring_replaces_an_inherited_backbone(tmp_path: Path) -> None:
    text = inspect.getdoc(VideoBackbone) or ""
    block = re.search(r"in its own file:\n\n((?:    .*\n|\n)+)", text)
    assert block is not None
    path = tmp_path / "config.py"
    path.write_text(textwrap.dedent(block[1]))
    config = Config.fromfile(path)
    backbone = config.model.backbone
    assert backbone.type == "VideoWrap"
    assert backbone.video.T == 3
    assert backbone.backbone.type == "ResNetV1c"
    assert backbone.backbone.depth == 50
    assert "depth" not in backbone
    assert config.model.pretrained == "open-mmlab://resnet50_v1c"
    again = Config.fromstring(config.pretty_text, ".py")
    assert again.model.backbone == backbone


def test_photometric_ops_take_the_preprocessors_colours() -> None:
    config = wrapped_config(genotype="solarize(0.3)").backbone
    config |= {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    model = MODELS.build(config)
    assert model.to_video.colours.mean == pytest.approx((0.485, 0.456, 0.406))
    assert model.to_video.colours.std == pytest.approx((0.229, 0.224, 0.225))


def refused(change: Mapping[str, Any], *, video: Mapping[str, Any] | None = None) -> None:
    config = wrapped_config(**(video or {})).backbone
    for key, value in change.items():
        config[key] = copy.deepcopy(value)
    MODELS.build(config)


@pytest.mark.parametrize(
    ("change", "video", "message"),
    [
        ({}, {"frames": 3}, r"model\.backbone\.video\.frames is no option"),
        ({}, {"T": 0}, r"model\.backbone\.video \(.*T=0.*at least 1"),
        ({}, {"fusion": "gsx"}, r"model\.backbone\.video\.fusion='gsx'"),
        ({}, {"unwarp": "head"}, r"model\.backbone\.video\.unwarp is of VideoEncoderDecoder"),
        ({}, {"sites": "nothing"}, r"model\.backbone\.backbone \(ResNetV1c\), traced at 40 × 56"),
        ({}, {"genotype": "solarize(0.3)"}, r"model\.backbone\.video \(.*mean"),
        ({"init_cfg": {"type": "Kaiming", "layer": "Conv2d"}}, {}, "'Kaiming', which would initialise the fusions"),
        ({"backbone": "ResNet"}, {}, "must be the config of a backbone, a dict with a type, got 'ResNet'"),
        ({"backbone": {"type": "toy.Pooled"}, "pretrained": "a.pth"}, {}, "toy.Pooled takes no pretrained"),
        (
            {"backbone": {"type": "ResNet", "depth": 18, "pretrained": "b.pth"}, "pretrained": "a.pth"},
            {},
            r"model\.pretrained='a\.pth' and model\.backbone\.backbone\.pretrained='b\.pth'",
        ),
    ],
)
def test_errors_name_the_key(change: Mapping[str, Any], video: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refused(change, video=video)


def test_a_wrapped_backbone_is_not_wrapped_again() -> None:
    twice = {"type": "VideoWrap", "backbone": wrapped_config().backbone, "video": {"fusion": "none"}}
    with pytest.raises(StateError, match="holds a VideoWrap"):
        MODELS.build(ConfigDict(twice))


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"takes images \(B, 3, H, W\), got \(2, 4, 40, 56\)"):
        wrapped_backbone()(torch.zeros(2, 4, *SIZE))


def test_in_channels_of_the_inner_backbone_count() -> None:
    model = wrapped_backbone(inner={"in_channels": 4})
    with torch.no_grad():
        assert model(torch.zeros(1, 4, *SIZE))[3].shape[:2] == (1, 64)

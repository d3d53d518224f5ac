"""`VideoWrap`: its options, and what it refuses."""

import copy

import pytest
import torch
from timm.utils import reparameterize_model
from torch import nn
from wrap_helpers import COLOURFUL, backbone, bare_mean, images, same_state, state_of, wrapped

from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.options import WRAP_CLIP, ClipOptions
from image2video.errors import InputError, InputTypeError, StateError
from image2video.fusion import GSFConfig
from image2video.wrap.video_wrap import VideoWrap


def test_an_unwrapped_wrapper_refuses_use(tmp_path):
    model = wrapped()
    model.unwrap()
    for use in (lambda: model(images()), model.unwrap, lambda: model.save_pretrained(tmp_path)):
        with pytest.raises(StateError, match=r"was unwrapped.*wrap the backbone again"):
            use()


def test_t_is_read_only():
    model = wrapped()
    with pytest.raises(AttributeError, match=r"T is read-only; use model.set_frames\(8\)"):
        model.T = 8
    for bad in (0, -1, 1.5, True, "3", None):
        with pytest.raises((InputError, InputTypeError)):
            model.set_frames(bad)
    assert model.T == 3


def test_input_checks():
    """Of the channels; what images must be at all stands with the tests of clips."""
    model = wrapped()
    with pytest.raises(InputError, match=r"images have 1 channels.*planned for 3"):
        model(torch.zeros(2, 1, 32, 32))
    with pytest.raises(InputTypeError, match="uint8; convert them to float and normalise"):
        model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    for bad in (0, 1.5):
        with pytest.raises((InputError, InputTypeError)):
            model(images(), T=bad)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"T": 0}, "T"),
        ({"schedule": "sideways"}, "schedule"),
        ({"padding": "mirror"}, "padding"),
        ({"interpolation": "lanczos"}, "interpolation"),
        ({"aggregate": "median"}, "unknown aggregate 'median'"),
        ({"genotype": "jump(3)"}, "jump"),
        ({"fusion": "lstm"}, "lstm"),
        ({"sites": "no_such_layer"}, "no_such_layer"),
        ({"sites": ["layer9"]}, "layer9"),
    ],
)
def test_a_refused_wrap_leaves_the_backbone_as_it_was(options, match):
    bare = backbone()
    with pytest.raises(InputError, match=match):
        VideoWrap(bare, **options)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules())
    VideoWrap(bare)


def test_what_cannot_be_wrapped():
    with pytest.raises(InputTypeError, match="str"):
        VideoWrap("resnet18")
    model = wrapped()
    with pytest.raises(StateError, match="injected fusions already"):
        VideoWrap(model)
    with pytest.raises(StateError):
        VideoWrap(model.backbone)
    with pytest.raises(StateError, match="compiled"):
        VideoWrap(torch.compile(backbone()))


def test_the_bare_backbone_is_refused_outside_of_its_wrapper():
    model = wrapped()
    for entrance in (model.backbone, model.backbone.forward_features):
        with pytest.raises(StateError, match="outside of its wrapper"):
            entrance(images())
    model.backbone = copy.deepcopy(model.backbone)  # as a tool does that works on a copy
    with pytest.raises(StateError, match=r"copied or saved without its wrapper.*copy or save the whole wrapper"):
        model(images())


def test_sites_without_a_fusion_are_refused():
    for net, sites in ((backbone(), r"layer1\..*"), (nn.Sequential(nn.Conv2d(3, 8, 3)), ["0"])):
        with pytest.raises(InputError, match="has no effect"):
            VideoWrap(net, "none", sites=sites)


def test_no_fusion_needs_no_input_size():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert VideoWrap(net, "none", T=2)(images()).shape == (2, 8)
    with pytest.raises(InputError, match="input_size"):
        VideoWrap(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), "tsm")


def test_sites_by_pattern_list_predicate_and_plan():
    every = wrapped().plan
    assert len(every.sites) == 3
    chosen = [site.name for site in every.sites if site.name.startswith("layer2")]
    for sites in (r"layer2\..*", chosen, lambda site: site.name.startswith("layer2")):
        assert list(wrapped(sites=sites).plan.names) == chosen
    assert wrapped(sites=every).plan is every
    with pytest.raises(InputError, match=r"the plan is for GSF.*got fusion=TSM"):
        wrapped("tsm", sites=every)


def test_a_config_chooses_the_options_of_a_fusion():
    model = wrapped(GSFConfig(ratio=0.5))
    assert model.plan.fusion.ratio == 0.5
    assert "ratio=0.5" in repr(model)


def test_it_says_what_it_is():
    text = repr(wrapped())
    for part in (
        "fusion=GSFConfig(ratio=0.25, padding='zeros') at 3 sites",
        "aggregate=auto",
        "T=3",
        "translate_x(0.1)",
    ):
        assert part in text


def test_the_default_genotype_is_the_gentle_one():
    model = VideoWrap(backbone())
    assert model.genotype == Genotype.parse("translate_x(0.03)")
    assert (model.T, model.plan.fusion.name, model.residual) == (3, "gsf", True)
    assert model.to_video.options.with_colours(None) == WRAP_CLIP == ClipOptions(3, "centred", "reflection")


def test_colours_are_those_of_the_backbone_unless_others_are_given():
    bare = backbone()
    config = bare.pretrained_cfg
    expected = Colours(config["mean"], config["std"])
    assert wrapped(genotype=COLOURFUL).to_video.colours == wrapped().to_video.colours == expected
    model = wrapped(genotype=COLOURFUL, mean=0.5, std=(0.1, 0.2, 0.3))
    assert model.to_video.colours == Colours((0.5,), (0.1, 0.2, 0.3))
    assert not [name for name in model.state_dict() if not name.startswith(("backbone.", "fusion.", "_extra_state"))]
    assert list(model.unwrap().state_dict()) == list(bare.state_dict())
    with pytest.raises(InputError, match="mean and std go together"):
        wrapped(mean=0.5)


def test_photometric_ops_on_unknown_colours_are_refused_before_anything_changes():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    with pytest.raises(
        InputError, match=r"changes colours \(contrast\).*say how the images are normalised: mean=…, std=…"
    ):
        VideoWrap(net, "tsm", genotype=COLOURFUL, input_size=(3, 32, 32))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    VideoWrap(net, "tsm", genotype=COLOURFUL, input_size=(3, 32, 32), mean=0, std=1)
    grey = backbone(in_chans=1)  # its config speaks of colour images
    with pytest.raises(InputError, match="say how the images are normalised"):
        VideoWrap(grey, genotype=COLOURFUL)
    assert VideoWrap(grey, genotype=COLOURFUL, mean=0.1, std=0.3)(images(size=(1, 32, 32))).shape == (2, 10)


@torch.no_grad()
def test_frames_that_change_colours_are_averaged():
    bare, model = backbone(), wrapped(genotype=COLOURFUL)
    torch.testing.assert_close(model(images()), bare_mean(bare, model.to_video, images()), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(images()), wrapped(genotype=model.genotype.geometric)(images()), atol=1e-2)
    assert torch.equal(model(images(), T=1), wrapped()(images(), T=1))


def test_the_channels_and_size_of_the_model_come_before_its_pretrained_config():
    assert VideoWrap(backbone(in_chans=1)).plan.input_size == (1, 32, 32)
    assert VideoWrap(backbone("test_vit", img_size=(64, 96))).plan.input_size == (3, 64, 96)
    assert VideoWrap(backbone(), input_size=(3, 16, 24)).plan.input_size == (3, 16, 24)
    assert VideoWrap(backbone(), example_input=images(size=(3, 48, 32))).plan.input_size == (3, 48, 32)


def test_reparameterize_model_is_refused_before_it_changes_anything():
    model = VideoWrap(backbone("repvgg_a0"), "tsm", T=2, input_size=(3, 64, 64))
    before = state_of(model)
    for inplace in (False, True):
        with pytest.raises(StateError, match=r"unwrap the backbone, reparameterise it, and wrap it again"):
            reparameterize_model(model, inplace=inplace)
    assert same_state(state_of(model), before)
    merged = reparameterize_model(model.unwrap())
    assert len(VideoWrap(merged, "tsm", T=2, input_size=(3, 64, 64)).plan.sites) > 0

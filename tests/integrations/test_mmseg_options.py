"""`model.video` of a config: what it accepts, and errors that name the key and the value."""

import re
import warnings

import pytest

pytest.importorskip("mmseg")

from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder
from mmseg_cases import build, tiny_config

from image2video import DEFAULT_GENOTYPE
from image2video.clip.genotype import Genotype
from image2video.clip.options import WRAP_CLIP
from image2video.errors import Image2VideoError, InputError, InputTypeError
from image2video.fusion import GSFConfig
from image2video.integrations.openmmlab import VideoOptions


def test_every_key_has_a_default():
    assert VideoOptions.from_config(None) == VideoOptions.from_config({}) == VideoOptions()
    assert VideoOptions().genotype == str(DEFAULT_GENOTYPE)
    assert build(tiny_config(video={})).to_video.options.with_colours(None) == WRAP_CLIP


def test_config_dicts_and_lists_become_plain_values():
    options = VideoOptions.from_config(
        ConfigDict(fusion={"name": "gsf", "ratio": 0.5}, sites=["a", "b"], input_size=[32, 48], T=3)
    )
    assert options.sites == ("a", "b")
    assert options.input_size == (32, 48)
    assert options.fusion_config() == GSFConfig(ratio=0.5)
    # mmengine's registries spell a name `type`.
    assert VideoOptions.from_config({"fusion": {"type": "gsf", "ratio": 0.5}}).fusion_config() == GSFConfig(ratio=0.5)


def test_a_genotype_is_a_text_a_file_or_a_preset(tmp_path):
    chain = "translate_x(0.02) > scale(1.05)"
    path = tmp_path / "genotype.json"
    Genotype.coerce(chain).save(path)
    for source in (chain, str(path)):
        assert str(VideoOptions(genotype=source).clip_maker().genotype) == chain


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ({"genotyp": "identity"}, "model.video.genotyp is no option; the options are genotype, T, "),
        ({"genotype": "wobble(3)"}, r"model.video (genotype='wobble(3)'"),
        ({"genotype": "scale(9)"}, "model.video (genotype='scale(9)'"),
        ({"genotype": "scale(0)"}, "model.video (genotype='scale(0)'"),
        ({"genotype": "scale(4)", "T": 600}, "model.video (genotype='scale(4)', T=600"),
        ({"genotype": 3}, "model.video (genotype=3"),
        ({"genotype": "no/such/file.json"}, "model.video (genotype='no/such/file.json'"),
        ({"T": 0}, "T=0"),
        ({"T": 2.5}, "T=2.5"),
        ({"schedule": "backwards"}, "schedule='backwards'"),
        ({"padding": "wrap"}, "padding='wrap'"),
        ({"interpolation": "cubic"}, "interpolation='cubic'"),
        ({"fusion": "gfs"}, "model.video.fusion='gfs'"),
        ({"fusion": {"name": "gsf", "rate": 1}}, "model.video.fusion={'name': 'gsf', 'rate': 1}"),
        ({"fusion": {"ratio": 0.5}}, "model.video.fusion={'ratio': 0.5}"),
        ({"fusion": 3}, "model.video.fusion=3"),
        ({"residual": 1}, "model.video.residual must be True or False, got 1"),
        ({"allow_mismatch": "yes"}, "model.video.allow_mismatch must be True or False, got 'yes'"),
        ({"unwarp": "feature"}, "model.video.unwarp='feature' is unknown; choose one of label, head"),
        ({"input_size": 512}, "model.video.input_size must be (height, width) in pixels, got 512"),
        ({"input_size": (64, 0)}, "model.video.input_size must be (height, width) in pixels, got (64, 0)"),
        ({"sites": [3]}, "model.video.sites must be a regular expression or a list of names, got (3,)"),
        ({"sites": "layer9.*"}, "model.backbone (ResNetV1c)"),
        ({"sites": ["layer1.0.conv2", "layer1.0.conv7"]}, "model.backbone (ResNetV1c)"),
        ({"fusion": {"name": "gsf", "ratio": 7}}, "model.video.fusion={'name': 'gsf', 'ratio': 7}"),
    ],
    ids=str,
)
def test_errors_name_the_key_and_the_value(video, words):
    # mmengine's registry puts its own words before the error and keeps its type.
    with pytest.raises(Image2VideoError, match=re.escape(words)):
        build(tiny_config(video=video))


@pytest.mark.parametrize("video", ["gsf", 3, ["T", 5]])
def test_video_must_be_a_dict(video):
    config = tiny_config(video={})
    config["video"] = video
    with pytest.raises(InputError, match=r"model\.video must be a dict of options, got "):
        build(config)


def test_a_backbone_without_sites_is_refused():
    """Channels that the fusion cannot split: no site, which must not pass in silence."""
    config = tiny_config(video={"fusion": "gsf"}, backbone={"base_channels": 2, "stem_channels": 2})
    for head in (config["decode_head"], config["auxiliary_head"]):
        head["in_channels"] //= 4
    found = build(config).video_fusion.plan
    assert not any(name.startswith("layer1") for name in found.names)
    config["video"]["sites"] = "layer1.*"
    with pytest.raises(InputError, match=r"model\.backbone \(ResNetV1c\)"):
        build(config)


def test_the_plain_type_refuses_a_cascade_and_the_other_way_round():
    cascade, single = tiny_config("ocr", video={}), tiny_config(video={})
    with pytest.raises(InputError, match=r"model\.num_stages is of a cascade: set model\.type to 'VideoCascade"):
        build({**cascade, "type": "VideoEncoderDecoder"})
    without = {key: value for key, value in cascade.items() if key != "num_stages"}
    with pytest.raises(InputError, match=r"model\.decode_head of 2 stages is of a cascade"):
        build({**without, "type": "VideoEncoderDecoder"})
    for options in ({}, {"num_stages": 1}):
        with pytest.raises(InputError, match=r"model\.decode_head is one head \(PSPHead\).*'VideoEncoderDecoder'"):
            build({**single, "type": "VideoCascadeEncoderDecoder", **options})
    with pytest.raises(InputError, match=r"model\.num_stages=3 and model\.decode_head has 2 heads"):
        build({**cascade, "num_stages": 3})
    with pytest.raises(InputError, match=r"model\.num_stages=None and model\.decode_head has 2 heads"):
        build({**without, "type": "VideoCascadeEncoderDecoder"})


def test_a_file_that_was_found_for_another_clip_warns(tmp_path):
    path = tmp_path / "genotype.json"
    Genotype.parse("rotate(3)").with_provenance({"T": 3, "schedule": "centred"}).save(path)
    other = {"genotype": str(path), "T": 5, "schedule": "from_zero"}
    with pytest.warns(
        UserWarning, match=r"model\.video\.T=5, found with 3, model\.video\.schedule='from_zero', found with"
    ):
        VideoOptions.from_config(other).clip_maker()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoOptions.from_config({"genotype": str(path), "T": 3, "schedule": "centred"}).clip_maker()
        clip = VideoOptions.from_config({"genotype": str(path)}).clip_maker()
    assert (clip.T, clip.schedule) == (3, "centred")


def test_frames_that_show_little_warn_with_the_shares():
    with pytest.warns(UserWarning, match=r"frame 2 of 3 shows 40% of an image of 40 × 56 pixels, all frames .* 70%"):
        build(tiny_config(video={"genotype": "translate_x(0.3)", "T": 3, "schedule": "from_zero"}))
    with pytest.warns(UserWarning, match="frame 2 of 3 shows 0% of an image"):
        build(tiny_config(video={"genotype": "translate_y(0.6)", "T": 3, "schedule": "from_zero"}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build(tiny_config(video={"genotype": "translate_x(0.2)", "T": 3}))
    assert not [w for w in caught if "shows" in str(w.message)]


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, (40, 56)), ({"input_size": (64, 96)}, (64, 96)), ({"size": None}, (512, 512))],
    ids=str,
)
def test_sites_are_traced_at_the_crop_size(options, size):
    shared = {"size": options.pop("size")} if "size" in options else {}
    model = build(tiny_config(video=options, **shared))
    assert model.video_fusion.plan.input_size == (3, *size)


def test_a_photometric_genotype_needs_to_know_the_colours():
    config = tiny_config(video={"genotype": "brightness(1.2)"})
    assert build(config).to_video.colours.mean == pytest.approx([v / 255 for v in (123.675, 116.28, 103.53)])
    config["data_preprocessor"] |= {"mean": None, "std": None}
    colours = build(config).to_video.colours
    assert (colours.mean, colours.std) == ((0.0,), (1 / 255,))


def test_the_segmentor_is_one_of_mmsegmentation():
    assert isinstance(build(tiny_config(video={})), EncoderDecoder)
    assert issubclass(InputTypeError, TypeError)

"""The options of a clip: checked once, equal however they were given, and the arguments of whoever makes clips."""

import dataclasses
import inspect
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from image2video import Genotype, Image2Video, RandomClips, VideoWrap
from image2video.clip import ClipOptions
from image2video.clip.options import WRAP_CLIP
from image2video.errors import InputError, InputTypeError


def test_the_defaults_are_those_of_whoever_makes_clips() -> None:
    assert Image2Video("identity").options == ClipOptions()
    assert ClipOptions().colours is None
    parameters = inspect.signature(RandomClips).parameters
    for name, value in ClipOptions().arguments().items():
        # Random clips take the schedule of their space.
        assert parameters[name].default == value or name == "schedule"


def test_a_genotype_comes_with_the_clip_that_it_was_found_for() -> None:
    found = {"T": 4, "schedule": "ramp", "padding": "border", "interpolation": "nearest"}
    genotype = Genotype.parse("rotate(5)").with_provenance({**found, "seed": 0})
    wrapper = VideoWrap(nn.Conv2d(3, 4, 1), "none", genotype=genotype, input_size=(3, 8, 8))
    assert wrapper.to_video.options == Image2Video(genotype).options == ClipOptions(**found)
    assert Image2Video(genotype, T=2, padding="zeros").options == ClipOptions(**{**found, "T": 2, "padding": "zeros"})
    # Searches of earlier versions wrote no padding, and padded with zeros.
    assert ClipOptions.found_with({"T": 4, "schedule": "ramp"}, WRAP_CLIP) == ClipOptions(4, "ramp", "zeros")
    # A provenance is free text: what is no option is none.
    odd = {"T": True, "schedule": 3, "padding": None, "interpolation": True}
    assert ClipOptions.found_with(odd, WRAP_CLIP) == WRAP_CLIP


def test_what_neither_says_is_as_the_wrapper_has_it() -> None:
    model = VideoWrap(nn.Conv2d(3, 4, 1), "none", input_size=(3, 8, 8))
    assert model.to_video.options == WRAP_CLIP
    explicit = VideoWrap(nn.Conv2d(3, 4, 1), "none", T=5, padding="zeros", input_size=(3, 8, 8))
    assert explicit.to_video.options == WRAP_CLIP.replace(T=5, padding="zeros")


@pytest.mark.parametrize("mean", [0.5, (0.5,), [0.5], torch.tensor([0.5])])
def test_equal_options_are_equal_however_they_were_given(mean: object) -> None:
    options = ClipOptions(mean=mean, std=(0.25,))
    assert options == ClipOptions(mean=(0.5,), std=[0.25])
    assert hash(options) == hash(ClipOptions(mean=(0.5,), std=0.25))
    assert options.colours.mean == (0.5,)


def test_they_are_arguments_of_image2video() -> None:
    options = ClipOptions(T=3, schedule="centred", padding="border", interpolation="nearest", mean=0.5, std=0.25)
    for made in (Image2Video("rotate(10)", **options.arguments()), Image2Video.of("rotate(10)", options)):
        assert made.options == options
        assert (made.T, made.schedule, made.padding, made.interpolation) == (3, "centred", "border", "nearest")
        assert made.colours == options.colours
        made.set_frames(4)
        assert made.options == options.replace(T=4)
    assert options.steps == (-1.0, 0.0, 1.0)


def test_they_are_json_values() -> None:
    options = ClipOptions(T=3, mean=(0.5, 0.4, 0.3), std=0.25)
    record = json.loads(json.dumps(options.to_dict()))
    assert record == options.to_dict()
    assert ClipOptions(**record) == options


def test_mean_and_std_may_come_from_the_backbone() -> None:
    backbone = SimpleNamespace(pretrained_cfg={"mean": (0.5,), "std": (0.25,)})
    assert ClipOptions(T=3).with_colours_of(backbone) == ClipOptions(T=3, mean=0.5, std=0.25)
    given = ClipOptions(mean=0.0, std=1.0)
    assert given.with_colours_of(backbone) is given
    assert given.with_colours(None) == ClipOptions()


def test_a_change_is_checked() -> None:
    options = ClipOptions(T=3)
    assert options.replace(T=4) == ClipOptions(T=4)
    with pytest.raises(InputError, match="T, the number of frames"):
        options.replace(T=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.T = 4


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"T": 0}, InputError, "at least 1"),
        ({"T": 2.0}, InputTypeError, "must be an integer"),
        ({"schedule": "back"}, InputError, "unknown schedule 'back'; choose one of from_zero, ramp, centred, mirror"),
        ({"padding": "wrap"}, InputError, "unknown padding 'wrap'; choose one of zeros, border, reflection"),
        (
            {"interpolation": "cubic"},
            InputError,
            "unknown interpolation 'cubic'; choose one of bilinear, nearest, bicubic",
        ),
        ({"mean": 0.5}, InputError, "mean and std go together"),
        ({"mean": "red", "std": 1.0}, InputTypeError, "mean must be"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ClipOptions(**arguments)

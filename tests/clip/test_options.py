"""The options of a clip: checked once, equal however they were given, and the arguments of whoever makes clips."""

import dataclasses

import pytest
import torch

from image2video import Image2Video
from image2video.clip import ClipOptions
from image2video.errors import InputError, InputTypeError


def test_the_defaults_are_those_of_image2video() -> None:
    assert Image2Video("identity").options == ClipOptions()


@pytest.mark.parametrize("mean", [0.5, (0.5,), [0.5], torch.tensor([0.5])])
def test_equal_options_are_equal_however_they_were_given(mean: object) -> None:
    options = ClipOptions(mean=mean, std=(0.25,))
    assert options == ClipOptions(mean=(0.5,), std=[0.25])
    assert hash(options) == hash(ClipOptions(mean=(0.5,), std=0.25))
    assert options.colours.mean == (0.5,)


def test_they_are_arguments_of_image2video() -> None:
    options = ClipOptions(T=3, schedule="centred", padding="border", interpolation="nearest", mean=0.5, std=0.25)
    made = Image2Video("rotate(10)", **options.arguments())
    assert made.options == options
    assert made.colours == options.colours
    assert options.steps == (-1.0, 0.0, 1.0)


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
        ({"T": True}, InputTypeError, "must be an integer"),
        ({"schedule": "back"}, InputError, "unknown schedule 'back'; choose one of from_zero, ramp, centred, mirror"),
        ({"padding": "same"}, InputError, "unknown padding 'same'; choose one of zeros, border, reflection"),
        ({"interpolation": "linear"}, InputError, "unknown interpolation 'linear'; choose one of bilinear, nearest"),
        ({"mean": 0.5}, InputError, "mean and std go together"),
        ({"mean": "red", "std": 1.0}, InputTypeError, "mean must be"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ClipOptions(**arguments)

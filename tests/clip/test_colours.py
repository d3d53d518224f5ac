"""How images are normalised: the way to 0 … 1 and back, what backbones say, and what is refused."""

import copy
import dataclasses
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import nn

from image2video.clip.colours import Colours
from image2video.errors import InputError, InputTypeError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def test_to_unit_and_back() -> None:
    images = torch.rand(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    colours = Colours(MEAN, STD)
    normalised = colours.to_normalised(images)
    for channel in range(3):
        expected = (images[:, :, channel] - MEAN[channel]) / STD[channel]
        assert torch.allclose(normalised[:, :, channel], expected)
    assert torch.allclose(colours.to_unit(normalised), images, atol=1e-6)
    assert torch.equal(Colours().to_unit(images), images)
    assert colours.to_unit(normalised.double()).dtype == torch.float64


def test_one_value_serves_all_channels() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert torch.equal(Colours((0.5,), (0.2,)).to_unit(images), Colours((0.5,) * 3, (0.2,) * 3).to_unit(images))
    assert torch.equal(Colours(MEAN, (0.2,)).to_normalised(images), Colours(MEAN, (0.2,) * 3).to_normalised(images))


def test_as_users_give_them() -> None:
    expected = Colours(MEAN, STD)
    assert Colours.coerce(list(MEAN), torch.tensor(STD, dtype=torch.float64)) == expected
    assert Colours.coerce(np.array(MEAN), np.array(STD)) == expected
    assert Colours.coerce(0.5, 1) == Colours((0.5,), (1.0,))
    assert Colours.coerce(torch.tensor(0.5), np.float32(2)) == Colours((0.5,), (2.0,))
    assert Colours.coerce(None, None) is None
    assert len({expected, Colours(list(MEAN), STD)}) == 1


@pytest.mark.parametrize(
    ("mean", "std", "error", "message"),
    [
        (MEAN, None, InputError, "mean and std go together, got only mean; images in 0 … 1 have mean=0, std=1"),
        (None, 1.0, InputError, "got only std"),
        (MEAN, (0.2, 0.0, 0.3), InputError, r"every std must be above 0, got \(0.2, 0.0, 0.3\)"),
        (MEAN, (0.2, 0.2), InputError, "mean has 3 values and std 2"),
        ((0.5, math.nan), 1.0, InputError, "mean must hold finite numbers"),
        ((), 1.0, InputError, "mean must hold finite numbers"),
        (0.0, math.inf, InputError, "std must hold finite numbers"),
        ("0.5", 1.0, InputTypeError, "mean must be a sequence of numbers"),
        (("0.5",), 1.0, InputTypeError, "mean must hold numbers, got '0.5'"),
        (True, 1.0, InputTypeError, "mean must hold numbers, got True"),
    ],
)
def test_bad_values_are_refused(mean: object, std: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Colours.coerce(mean, std)


def test_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"mean has 3 values and std 3, but the images are \(2, 1, 4, 5\)"):
        Colours(MEAN, STD).to_unit(torch.rand(2, 1, 4, 5))
    with pytest.raises(InputError, match=r"the images are \(4, 5\)"):
        Colours().to_normalised(torch.rand(4, 5))


def test_frozen_and_copied() -> None:
    colours = Colours(MEAN, STD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        colours.mean = (0.0,)
    assert pickle.loads(pickle.dumps(colours)) == copy.deepcopy(colours) == colours


def test_what_a_backbone_says() -> None:
    model = timm.create_model("test_resnet")
    config = model.pretrained_cfg
    assert Colours.of(model) == Colours(config["mean"], config["std"])
    assert Colours.of(nn.Linear(2, 2)) is None
    assert Colours.of(SimpleNamespace(default_cfg={"mean": MEAN, "std": STD})) == Colours(MEAN, STD)
    assert Colours.of(SimpleNamespace(pretrained_cfg=None, default_cfg={"mean": (0.5,), "std": (0.1,)})) == Colours(
        (0.5,), (0.1,)
    )
    as_object = SimpleNamespace(pretrained_cfg=SimpleNamespace(mean=MEAN, std=STD))
    assert Colours.of(as_object) == Colours(MEAN, STD)
    for silent in ({}, {"mean": MEAN}, {"mean": "bright", "std": STD}, {"mean": MEAN, "std": (0.0, 1.0, 1.0)}, 3):
        assert Colours.of(SimpleNamespace(pretrained_cfg=silent)) is None
    grey = SimpleNamespace(pretrained_cfg={"mean": MEAN, "std": STD}, in_chans=1)
    assert Colours.of(grey) is None  # the config speaks of colour images

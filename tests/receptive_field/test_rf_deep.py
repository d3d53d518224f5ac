"""Receptive fields of clips at several places of a network: support and theory against perturbed pixels."""

import pytest
import torch
from rf_cases import TinyNet, facts, noise, same_facts
from test_rf_inside import SIZE, UNIT, by_perturbing, chain
from torch import nn

from image2video import VideoWrap
from image2video.errors import InputError
from image2video.integrations.timm_backbones import build
from image2video.receptive_field import Unit, clip_field, effective, support
from image2video.receptive_field.survey import default_layer

CASES = [
    {"image": "translate_x(0.2)", "2": "rotate(25)"},
    {"2": "translate_x(1 cell)", "4": "scale(0.6)"},
    {"image": "identity | scale(0.7)", "2": "identity | flip_x", "4": "identity | translate_y(1 cell)"},
]
pytestmark = pytest.mark.filterwarnings("ignore:the map at")


def video(net: nn.Module, sites: dict[str, str], channels: int = 2, **options: object) -> VideoWrap:
    schedule = {} if any("|" in clip for clip in sites.values()) else {"schedule": "from_zero"}
    how = {"T": 2, **schedule, "padding": "reflection", "aggregate": "none", "input_size": (channels, *SIZE)}
    return VideoWrap(net, genotype=sites, **{**how, "fusion": "none", "residual": False, **options}).eval()


@pytest.mark.parametrize("sites", CASES)
def test_theory_and_support_are_what_perturbed_pixels_show(sites: dict[str, str]) -> None:
    model = video(chain(), sites)
    before, shared = facts(model), model.plan.shared
    theory = clip_field(model, SIZE, Unit(position=UNIT))
    for frame in (0, 1):
        shown = by_perturbing(model, frame)
        found = support(model, SIZE, Unit(position=UNIT, frame=frame, channel="all"), tolerance=1e-9)
        assert torch.equal(found.mask, shown)
        assert torch.equal(theory.frames[frame], shown)
        assert [bool(one.any()) for one in found.frames] == [frame == 0, frame == 1]
    assert theory.passed == tuple(sites)
    assert theory.place == (None if "image" in sites else "2")
    assert len(theory.between) == len(sites) - 1
    assert same_facts(facts(model), before)
    assert model.plan.shared == shared


@pytest.mark.parametrize("sites", CASES[:2])
def test_the_support_of_averaged_maps_goes_back_by_the_product(sites: dict[str, str]) -> None:
    model = video(chain(), sites, aggregate="auto")
    found = support(model, SIZE, Unit(position=UNIT, channel="all"), tolerance=1e-9)
    assert torch.equal(found.mask, by_perturbing(model, None))
    assert found.frames.flatten(1).any(1).all()


def test_a_layer_between_the_places_is_moved_by_those_before_it_alone() -> None:
    sites = {"image": "identity | flip_x", "2": "identity | flip_y", "4": "identity | rotate(30)"}
    model = video(chain(), sites, aggregate="auto")
    fewer = video(chain(), {place: sites[place] for place in ("image", "2")}, aggregate="auto")
    for unit in (Unit("3", position=UNIT), Unit("3", position=UNIT, frame=1)):
        assert torch.equal(support(model, SIZE, unit).mask, support(fewer, SIZE, unit).mask)
        images = torch.randn(2, 2, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        assert torch.equal(effective(model, images, unit).map, effective(fewer, images, unit).map)
    found = clip_field(model, SIZE, Unit("3", position=UNIT))
    assert found.passed == ("image", "2")
    assert torch.equal(found.frames, clip_field(fewer, SIZE, Unit("3", position=UNIT)).frames)
    # Mirrored along both axes: the field of a frame is the image's, mirrored.
    assert clip_field(model, SIZE, Unit("1", position=UNIT)).passed == ("image",)


def test_frames_that_are_the_same_up_to_a_place_have_shares_of_their_own() -> None:
    sites = {"2": "identity | identity | flip_x", "4": "identity | flip_y | identity"}
    model = video(chain(), sites, aggregate="auto", T=3)
    assert model.plan.shared
    images = torch.randn(2, 2, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for frame in range(3):
        assert effective(model, images, Unit("3", frame=frame)).frame_shares == tuple(
            float(t == frame) for t in range(3)
        )
    assert min(effective(model, images).frame_shares) > 0.1


def test_units_before_the_first_place_see_the_image() -> None:
    sites = {"layer2": "identity | flip_x", "head": "identity | flip_y"}
    model = video(TinyNet("map"), sites, channels=3, aggregate="auto")
    images = noise(2, SIZE)
    early = Unit("layer1", position=UNIT)
    assert torch.equal(effective(model, images, early).map, effective(TinyNet("map"), images, early).map)
    with pytest.raises(InputError, match=r"layer 'layer1' lies before the place where the clip begins, 'layer2'"):
        effective(model, images, Unit("layer1", frame=1))
    with pytest.raises(InputError, match="lies before the place where the clip begins, 'layer2'"):
        clip_field(model, SIZE, early)


def test_a_fusion_sees_no_more_than_the_frames_together() -> None:
    torch.manual_seed(0)
    sites = {"image": "translate_x(0.1)", "layer2": "rotate(30)"}
    model = video(TinyNet("map").double(), sites, channels=3, fusion="tsm", aggregate="auto")
    alone = video(TinyNet("map").double(), sites, channels=3, aggregate="auto")
    unit = Unit("layer2", position=UNIT, frame=1)
    found, theory = support(model, SIZE, unit), clip_field(model, SIZE, unit)
    apart = support(alone, SIZE, unit)
    assert not (apart.mask & ~theory.frames[1]).any()
    assert (found.mask & ~apart.mask).any()
    assert not (found.mask & ~theory.mask).any()


def test_the_layer_that_is_shown_lies_behind_the_last_place() -> None:
    net, size = build("cifar_resnet8", num_classes=4), (3, 16, 16)
    sites = {"image": "identity | flip_x", "layer3": "identity | flip_y"}
    assert default_layer(VideoWrap(net, "none", genotype=sites, input_size=size), size) == "layer3"

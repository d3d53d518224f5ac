"""Receptive fields of frame sets: theory, the union of single frames, and the panels that show them."""

import copy

import pytest
import shapely
import torch
from frame_set_cases import frame_sets
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import overlapping
from torch import nn

from image2video import FrameSet, InputError, VideoWrap
from image2video.receptive_field import Unit, effective, reshaped
from image2video.receptive_field.expected import expected
from image2video.receptive_field.survey import survey, survey_units
from image2video.report import fields_figure

SIZE = (24, 36)
FIELD = shapely.box(14, 8, 20, 14)
SET = "identity | flip_x | scale(1.2) > translate_x(0.03)"


@settings(deadline=None)
@given(some=frame_sets(most=4), data=st.data())
def test_the_field_of_a_set_is_the_union_of_its_frames(some, data) -> None:
    T, clip = data.draw(st.integers(1, some.T)), data.draw(st.booleans())
    found = reshaped(FIELD, some, T, image_size=SIZE, clip=clip)
    single = [reshaped(FIELD, FrameSet((frame,)), 1, image_size=SIZE, clip=clip).polygon for frame in some.frames[:T]]
    alike = [reshaped(FIELD, frame, 1, "ramp", image_size=SIZE, clip=clip).polygon for frame in some.frames[:T]]
    for frame, one, other in zip(found.frames, single, alike, strict=True):
        assert frame.symmetric_difference(one).area == pytest.approx(0, abs=1e-6)
        assert frame.symmetric_difference(other).area == pytest.approx(0, abs=1e-6)
    assert found.polygon.symmetric_difference(shapely.union_all(single)).area == pytest.approx(0, abs=1e-6)
    assert sum(count * area for count, area in found.overlap_areas.items()) == pytest.approx(
        sum(p.area for p in single)
    )
    assert found.genotype == some


def test_a_set_of_mirror_images_sees_two_places() -> None:
    found = reshaped(shapely.box(0, 0, 4, 3), "identity | flip_x | flip_x > flip_y | flip_x", 4, image_size=SIZE)
    assert found.bounds == (0, 0, 36, 24)
    assert found.overlap_areas == pytest.approx({1: 24, 2: 12})
    assert reshaped(FIELD, "identity | flip_x", 3, [0, 1, 1], image_size=SIZE).steps == (0, 1, 1)


@pytest.mark.parametrize(
    ("T", "schedule", "message"),
    [
        (4, "from_zero", "the frame set has 3 frames"),
        (3, "centred", "no schedule but 'from_zero'"),
        (2, [0, 3], "none of number 3"),
        (2, [0, 0.5], "none of number 0.5"),
    ],
)
def test_frames_that_a_set_lacks_are_refused(T, schedule, message) -> None:
    with pytest.raises(InputError, match=message):
        reshaped(FIELD, SET, T, schedule, image_size=SIZE)


def test_theory_expects_the_measured_field_of_every_frame() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 5, padding=2)).double()
    some = f"flip_x | identity | translate_x({2 / 36}) > translate_y({-3 / 24})"
    images = torch.randn(4, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bare = effective(net, images, Unit("1"), weights="random")
    video = VideoWrap(copy.deepcopy(net), "none", genotype=some, padding="zeros", input_size=(3, *SIZE))
    for frame in range(3):
        found = effective(video, images, Unit("1", frame=frame), weights="random")
        theory, measured = expected(bare, some, "from_zero", [float(t == frame) for t in range(3)])
        torch.testing.assert_close(theory, found.map / found.map.sum(), atol=3e-3, rtol=0.05)
        assert found.measures.centre == pytest.approx(measured.centre, abs=0.1)
    with pytest.raises(InputError, match="no schedule but 'from_zero'"):
        expected(bare, some, "ramp", [1.0, 0.0, 0.0])


def test_the_frame_that_is_the_image_is_measured_once() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    video = VideoWrap(
        copy.deepcopy(net), "none", genotype="flip_x | identity | brightness(1.2)", mean=0, std=1, input_size=(3, *SIZE)
    )
    images = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    for frame in range(3):
        units = survey_units(video, (3, *SIZE), layer="1", frame=frame)
        line = next(iter(survey({"bare": net, "video": video}, images, units, weights="random").values()))
        assert (line["video"] is line["bare"]) == (frame == 1)


def test_panels_are_labelled_by_the_chains() -> None:
    clips = {"shift": "translate_x(0.1)", "set": SET}
    figure = fields_figure(FIELD, clips, image_size=SIZE)
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes[:8]]
    assert titles[:4] == ["frame f$_{0}$,  s = 0", "frame f$_{1}$,  s = 1", "frame f$_{2}$,  s = 2", "in the image"]
    assert titles[4:] == ["identity", "flip_x", "scale(1.2) > translate_x(0.03)", ""]
    assert overlapping(figure) == []
    other = fields_figure(FIELD, dict(reversed(clips.items())), image_size=SIZE)
    titles = [axis.get_title().replace("\n", " ") for axis in other.axes[:8]]
    assert titles[:3] == [
        "frame f$_{0}$ identity",
        "frame f$_{1}$ flip_x",
        "frame f$_{2}$ scale(1.2) > translate_x(0.03)",
    ]
    assert titles[4:] == ["s = 0", "s = 1", "s = 2", ""]
    assert overlapping(other) == []
    with pytest.raises(InputError, match="the frame set has 2 frames"):
        fields_figure(FIELD, {"set": "identity | flip_x"}, image_size=SIZE)

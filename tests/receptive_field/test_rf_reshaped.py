"""The reshaped field: unions of polygons in the reference image."""

import itertools
import math

import hypothesis.strategies as st
import pytest
import shapely
import torch
from hypothesis import given, settings

from image2video import Genotype
from image2video.errors import InputError, InputTypeError
from image2video.receptive_field import Layer, reshaped, theoretical

SIZE = (40, 60)


def square(cx: float, cy: float, side: float = 3) -> shapely.Polygon:
    return shapely.box(cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2)


CENTRE = square(30, 20)


def test_the_example_of_the_paper() -> None:
    one_pixel = f"translate_x({1 / 60}) > translate_y({1 / 40})"
    assert reshaped(CENTRE, one_pixel, 3, image_size=SIZE).area == pytest.approx(19)
    assert reshaped(CENTRE, "scale(0.5)", 3, image_size=SIZE).area == pytest.approx(144)
    assert reshaped(CENTRE, "scale(2)", 3, image_size=SIZE).area == pytest.approx(9)


def test_rotations_are_unions_and_not_what_the_paper_writes() -> None:
    about_centre = reshaped(CENTRE, "rotate(30)", 3, image_size=SIZE).area
    about_corner = reshaped(square(31.5, 18.5), "rotate(30)", 3, image_size=SIZE).area
    assert round(about_centre, 2) == 11.41
    assert round(about_corner, 2) == 16.61
    assert 9 + 3 * math.sqrt(3) == pytest.approx(14.196, abs=1e-3)  # the paper's number, which neither is


def test_overlaps_count_the_frames() -> None:
    got = reshaped(CENTRE, f"translate_x({1 / 60}) > translate_y({1 / 40})", 3, image_size=SIZE)
    assert got.overlap_areas == pytest.approx({1: 12, 2: 6, 3: 1})
    assert got.bounds == pytest.approx((26.5, 16.5, 31.5, 21.5))  # content moves right and down, so frames look back
    assert got.steps == (0, 1, 2)
    nested = reshaped(CENTRE, "scale(0.5)", 3, image_size=SIZE)
    assert nested.overlap_areas == pytest.approx({1: 108, 2: 27, 3: 9})


@pytest.mark.parametrize("schedule", ["from_zero", "ramp", "centred", "mirror"])
def test_frames_hold_what_the_matrices_bring_into_the_field(schedule: str) -> None:
    genotype, T = Genotype.parse("translate_x(0.08) > rotate(25) > scale(0.8) > shear_y(9)"), 4
    got = reshaped(square(37, 14, 8), genotype, T, schedule, image_size=SIZE)
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 60
    hits = 0
    for frame, matrix in zip(got.frames, genotype.matrices(schedule, T, *SIZE), strict=True):
        centred = torch.cat([points - torch.tensor([30.0, 20.0]), torch.ones(500, 1)], 1).double()
        there = (centred @ matrix.T)[:, :2] + torch.tensor([30.0, 20.0])
        inside = (there - torch.tensor([37.0, 14.0])).abs().amax(1) < 4
        assert shapely.contains_xy(frame, points[:, 0].numpy(), points[:, 1].numpy()).tolist() == inside.tolist()
        hits += int(inside.sum())
    assert hits > 20


boxes = st.builds(square, st.integers(5, 55).map(float), st.integers(5, 35).map(float), st.integers(2, 12).map(float))
chains = st.lists(
    st.sampled_from(["rotate(30)", "rotate(-17)", "scale(1.3)", "scale(0.7)", "translate_x(0.1)", "shear_x(12)"]),
    min_size=1,
    max_size=3,
).map(" > ".join)


@given(boxes, st.integers(1, 6), st.sampled_from(["from_zero", "centred"]))
@settings(max_examples=25, deadline=None)
def test_the_identity_keeps_the_field(field: shapely.Polygon, T: int, schedule: str) -> None:
    got = reshaped(field, "identity", T, schedule, image_size=SIZE)
    assert got.area == pytest.approx(field.area)
    assert set(got.overlaps) == {T}


@given(boxes, chains, st.permutations(range(4)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_frames_does_not_matter(field: shapely.Polygon, chain: str, order: list[int]) -> None:
    straight = reshaped(field, chain, 4, range(4), image_size=SIZE)
    shuffled = reshaped(field, chain, 4, order, image_size=SIZE)
    assert shuffled.area == pytest.approx(straight.area, rel=1e-6)
    for count in (1, 2, 3, 4):
        a, b = straight.overlap_areas.get(count, 0), shuffled.overlap_areas.get(count, 0)
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)


@given(boxes, chains)
@settings(max_examples=25, deadline=None)
def test_overlaps_make_up_the_union_and_the_frames(field: shapely.Polygon, chain: str) -> None:
    got = reshaped(field, chain, 4, image_size=SIZE)
    areas = got.overlap_areas
    assert sum(areas.values()) == pytest.approx(got.area, rel=1e-6)
    assert sum(count * area for count, area in areas.items()) == pytest.approx(
        sum(f.area for f in got.frames), rel=1e-6
    )
    assert max(f.area for f in got.frames) <= got.area * (1 + 1e-9)


@given(boxes, st.integers(-4, 4), st.integers(-4, 4), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_translations_follow_inclusion_and_exclusion(field: shapely.Polygon, dx: int, dy: int, T: int) -> None:
    side = field.bounds[2] - field.bounds[0]
    expected = 0.0
    for k in range(1, T + 1):
        for some in itertools.combinations(range(T), k):
            apart = max(some) - min(some)
            both = max(0.0, side - apart * abs(dx)) * max(0.0, side - apart * abs(dy))
            expected += (-1) ** (k + 1) * both
    got = reshaped(field, f"translate_x({dx / 60}) > translate_y({dy / 40})", T, image_size=SIZE)
    assert got.area == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_clipping_leaves_out_what_frames_do_not_show() -> None:
    field = theoretical([Layer(9)]).polygon((16, 0))  # the left border
    free = reshaped(field, "translate_x(0.1)", 3, image_size=SIZE)
    cut = reshaped(field, "translate_x(0.1)", 3, image_size=SIZE, clip=True)
    assert free.bounds[0] == pytest.approx(-12)
    assert cut.bounds[0] == 0
    assert [frame.area for frame in cut.frames] == pytest.approx([81, 27, 0])
    assert cut.area == pytest.approx(81)
    assert free.area == pytest.approx(9 * 21)


def test_bad_input() -> None:
    with pytest.raises(InputTypeError, match="shapely polygon"):
        reshaped((0, 0, 3, 3), "identity", 3, image_size=SIZE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="with an area"):
        reshaped(shapely.Polygon(), "identity", 3, image_size=SIZE)
    with pytest.raises(InputError, match="unknown schedule"):
        reshaped(CENTRE, "identity", 3, "backwards", image_size=SIZE)
    with pytest.raises(InputError, match="for each of T = 3 frames; got 2 powers"):
        reshaped(CENTRE, "identity", 3, (0, 1), image_size=SIZE)
    with pytest.raises(InputError, match="image_size"):
        reshaped(CENTRE, "identity", 3, image_size=(0, 5))

"""Figures of receptive fields: what they show, on which scale, and what they say beside it."""

from __future__ import annotations

import copy
import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from matplotlib.patches import Ellipse
from PIL import Image
from report_cases import check_stands_alone, overlapping, result_record

from image2video import VideoWrap
from image2video.errors import InputError
from image2video.receptive_field import Measures, Unit, compare, effective, measures
from image2video.receptive_field.expected import averaged_shares, expected
from image2video.report import (
    ComparisonResult,
    ErfGrid,
    ErfPanel,
    FieldReport,
    comparison_figure,
    depth_figure,
    erf_caption,
    erf_figure,
    field_tables,
    fields_figure,
    save_figure,
    variance_square,
    write_field_page,
)
from image2video.report.depth import depth_of
from image2video.report.receptive_field import bar_length

SIZE = (24, 36)


def blob(long: float, short: float, angle: float, centre: tuple[float, float] = (11.0, 18.0)) -> np.ndarray:
    """A Gaussian map whose long axis stands at `angle` degrees, counter-clockwise on the screen."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    turn = math.radians(angle)
    right, up = x - centre[1], -(y - centre[0])
    u, v = right * math.cos(turn) + up * math.sin(turn), -right * math.sin(turn) + up * math.cos(turn)
    return np.exp(-(u**2) / (2 * long**2) - v**2 / (2 * short**2))


def panel(name: str, long: float = 4.0, short: float = 3.0, angle: float = 0.0, error: float | None = 0.02) -> ErfPanel:
    values = blob(long, short, angle)
    found = measures(torch.from_numpy(values))
    if error is None:
        return ErfPanel(name, values, found)
    area = {share: error * value for share, value in found.area.items()}
    return ErfPanel(name, values, found, Measures(area, error * found.spread, error, 2.0, (0.1, 0.1)))


def grid() -> ErfGrid:
    rows = {
        "layer3, frame 0": [panel("bare", 3, 3), panel("none", 3, 3), panel("GSF", 5, 3, 30)],
        "layer3, averaged": [panel("bare", 3, 3), panel("none", 3.05, 3), panel("GSF", 5.2, 3, 150)],
    }
    return ErfGrid(rows, "a caption")


def test_all_maps_have_one_scale_in_colour_and_in_pixels() -> None:
    figure = erf_figure(grid().rows, caption="a caption")
    images = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(images) == 6
    assert len({id(image.norm) for image in images}) == 1
    assert {tuple(image.get_extent()) for image in images} == {(0, 36, 24, 0)}
    widths = {axis.patches[1].get_width() for axis in figure.axes if axis.images}
    assert widths == {10}
    bars = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert bars == ["10 px"] * 6


def test_the_ellipse_lies_along_the_map() -> None:
    for angle in (30.0, 150.0):
        figure = erf_figure({"": [panel("GSF", 5, 2, angle)]})
        axis = figure.axes[0]
        (ellipse,) = [patch for patch in axis.patches if isinstance(patch, Ellipse)]
        assert ellipse.width / ellipse.height == pytest.approx(2.5, rel=0.03)
        turn = math.radians(ellipse.angle)
        along, across = (
            axis.images[0].get_array()[
                int(ellipse.center[1] + 5 * math.sin(towards)), int(ellipse.center[0] + 5 * math.cos(towards))
            ]
            for towards in (turn, turn + math.pi / 2)
        )
        assert along > 4 * across
        # counter-clockwise on the screen: at 30° the right end is above the centre
        assert (math.sin(turn) * math.cos(turn) < 0) == (angle == 30.0)


def test_density_is_relative_to_an_even_spread() -> None:
    assert panel("x").density.sum() == pytest.approx(24 * 36)
    even = ErfPanel("x", np.full(SIZE, 7.0), panel("x").measures)
    np.testing.assert_allclose(even.density, 1.0)
    for values in (np.zeros(SIZE), np.full(SIZE, np.nan), np.ones(5)):
        with pytest.raises(InputError, match="map of 'x' has shape"):
            _ = ErfPanel("x", values, panel("x").measures).density


def test_a_figure_needs_maps_of_one_size() -> None:
    with pytest.raises(InputError, match="no field to draw"):
        erf_figure({"": []})
    other = ErfPanel("y", np.ones((8, 8)), panel("y").measures)
    with pytest.raises(InputError, match=r"sizes \[\(8, 8\), \(24, 36\)\]"):
        erf_figure({"": [panel("x"), other]})


def test_long_rows_break_and_the_rest_stays_empty() -> None:
    figure = erf_figure({"": [panel(f"p{i}") for i in range(5)]}, columns=3)
    panels = figure.axes[:6]
    assert [axis.get_title() for axis in panels] == ["p0", "p1", "p2", "p3", "p4", ""]
    assert [axis.get_visible() for axis in panels] == [True] * 5 + [False]


@pytest.mark.parametrize("width", [6.0, 9.0])
def test_labels_do_not_overlap(width: float) -> None:
    caption = "cifar_resnet18 at 24×36 pixels, random weights, 16 images of white noise. " * 3
    assert overlapping(erf_figure(grid().rows, caption=caption, width=width)) == []
    names = ["bare", "translate_x(0.06) > rotate(10) > scale(1.1)", "preset:cifar10", "rotate(10)"]
    assert overlapping(erf_figure({"": [panel(n) for n in names]}, caption=caption, columns=4, width=9)) == []
    box = shapely.box(14, 8, 20, 14)
    clips = {"shift": "translate_x(0.1)", "turn": "rotate(20)", "zoom": "scale(0.8)"}
    assert overlapping(fields_figure(box, clips, image_size=SIZE, T=3, width=width)) == []


def test_axes_are_given_with_an_angle_only_where_they_are_decided() -> None:
    assert panel("x", 5, 3, 30, error=0.02).axes == "1.66 : 1 at 30°"
    assert panel("x", 5, 3, -30, error=0.02).axes == "1.66 : 1 at 150°"
    assert panel("x", 5, 3, 30, error=0.4).axes == "1.66 : 1"
    assert panel("x", 3.02, 3, 0, error=None).axes == "1.01 : 1"


def test_growth_is_of_the_area_of_half_with_an_error() -> None:
    ratio, error = panel("a", 6, 3).growth(panel("b", 3, 3))
    assert ratio == pytest.approx(2, rel=0.02)
    assert error == pytest.approx(ratio * 0.02 * math.sqrt(2))
    assert math.isnan(panel("a", error=None).growth(panel("b"))[1])


def test_sentences_and_tables_say_what_is_decided() -> None:
    first, second = grid().sentences()
    assert first.startswith("Layer3, frame 0: against “bare”, “none” has the very same field; “GSF” holds half of its")
    assert "axes 1.66 : 1 at 30°" in first
    assert "“none” holds half of its gradient in 1.02 ± 0.03 times the area (growth not decided);" in second
    tables = field_tables(grid())
    assert [table.title for table in tables] == ["layer3, frame 0", "layer3, averaged"]
    assert [column.header for column in tables[0].columns] == ["network", "half in, px", "× bare", "σ, px", "axes"]
    lines = list(grid().lines())
    assert [line[3] for line in lines[:2]] == ["1", "1"]
    assert "±" in lines[2][3]


def test_records_keep_what_is_drawn() -> None:
    start = grid()
    again = ErfGrid.from_record(json.loads(json.dumps(start.record())))
    assert again.caption == "a caption"
    assert list(again.lines()) == list(start.lines())
    for row, line in start.rows.items():
        for ours, theirs in zip(line, again.rows[row], strict=True):
            np.testing.assert_allclose(ours.density, theirs.density, rtol=2e-3)
    alone = ErfPanel.from_record(panel("x", error=None).record())
    assert alone.errors is None
    damaged = start.record()
    del damaged["rows"]["layer3, averaged"][1]["measures"]["spread"]
    with pytest.raises(InputError, match="spread"):
        ErfGrid.from_record(damaged)
    with pytest.raises(InputError, match="has no rows"):
        ErfGrid.from_record({"caption": "x"})


def linear() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5, padding=2), torch.nn.Conv2d(4, 4, 5, padding=2)).double().eval()


def test_the_caption_states_what_was_measured() -> None:
    images = torch.randn(3, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = effective(linear(), images, Unit("1"), weights="random")
    caption = erf_caption([field, field], model="two layers", images="images of noise", clip="rotate(10), T = 3")
    for part in ("two layers at 24×36 pixels", "random weights", "3 images of noise", "Clip: rotate(10), T = 3."):
        assert part in caption
    assert caption.count("all channels of the centre unit of 1") == 1
    trained = effective(linear(), images, Unit("1"), weights="trained on digits")
    assert ", weights trained on digits, 3 images" in erf_caption([trained], model="two layers")
    square = variance_square(field)
    assert square.area == pytest.approx(12 * field.measures.spread**2)
    assert square.centroid.x == pytest.approx(field.measures.centre[1])


def test_a_comparison_has_one_figure() -> None:
    images = torch.randn(2, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = compare({"one": linear(), "two": linear()[0]}, images, {"one": Unit("1"), "two": Unit()}, weights="random")
    figure = comparison_figure(found, model="layers", images="images of noise")
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["one", "two"]
    assert len({id(axis.images[0].norm) for axis in shown}) == 1
    caption = figure._supxlabel.get_text().replace("\n", " ")
    assert "layers at 24×36 pixels, random weights, 2 images of noise" in caption
    assert "all channels of the centre unit of 1; the largest channel of the centre unit of the output" in caption


def test_theory_expects_the_field_of_a_frame_where_it_is() -> None:
    # Two pixels to the right per step and three up: frame 2 sees, at its centre, what lies 4 left and 6 below of it.
    genotype = f"translate_x({2 / 36}) > translate_y({-3 / 24})"
    images = torch.randn(4, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bare = linear()
    start = effective(bare, images, Unit("1"), weights="random")
    clip = {"genotype": genotype, "T": 3, "schedule": "from_zero", "padding": "zeros"}
    video = VideoWrap(copy.deepcopy(bare), "none", input_size=(3, *SIZE), **clip)
    found = effective(video, images, Unit("1", frame=2), weights="random")
    theory, m = expected(start, genotype, "from_zero", (0.0, 0.0, 1.0))
    share = found.map / found.map.sum()
    torch.testing.assert_close(theory, share, atol=3e-3, rtol=0.05)
    assert m.centre[0] == pytest.approx(start.measures.centre[0] + 6, abs=0.05)
    assert m.centre[1] == pytest.approx(start.measures.centre[1] - 4, abs=0.05)
    # Averaged maps are unwarped, so the shifts cancel.
    _, alone = expected(start, genotype, "from_zero", torch.diag(torch.tensor([0.2, 0.5, 0.3])))
    assert alone.spread == pytest.approx(start.measures.spread, rel=1e-3)
    assert alone.centre == pytest.approx(start.measures.centre, abs=1e-3)
    # By way of frame 1, frame 0 shows what lies 2 further right and 3 further up, frame 2 the contrary.
    _, mixed = expected(start, genotype, "from_zero", [[0.0] * 3, [0.5, 0.0, 0.5], [0.0] * 3])
    assert mixed.centre == pytest.approx(start.measures.centre, abs=1e-2)
    assert mixed.spread**2 == pytest.approx(start.measures.spread**2 + (2**2 + 3**2) / 2, rel=1e-2)
    assert mixed.angle == pytest.approx(math.degrees(math.atan2(3, 2)), abs=8)


def test_shares_of_averaged_maps_follow_the_distance_of_frames() -> None:
    rows = averaged_shares((0.6, 0.3, 0.1), 0)
    torch.testing.assert_close(rows.sum(1), torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(rows[1] * 3, torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64))
    torch.testing.assert_close(averaged_shares((0.2, 0.5, 0.3), 1)[0] * 3, torch.tensor([2 / 3, 1 / 3, 0.0]).double())


def test_theory_turns_with_the_sign_of_the_rotation() -> None:
    field = effective(linear(), torch.randn(2, 3, *SIZE, dtype=torch.float64), Unit("1"), weights="random")
    values = torch.from_numpy(blob(5, 2, 0, (12.0, 18.0)))
    bar = copy.copy(field)
    object.__setattr__(bar, "map", values)
    object.__setattr__(bar, "measures", measures(values))
    for angle in (30.0, -30.0):
        _, m = expected(bar, f"rotate({angle})", "from_zero", (0.0, 1.0))
        assert m.angle == pytest.approx(-angle, abs=1.0)  # the content turns one way, so its field the other
    with pytest.raises(InputError, match=r"shares must be .* not all 0; got shape"):
        expected(bar, "rotate(10)", "from_zero", (0.0, 0.0))
    with pytest.raises(InputError, match="outside the image in frame 1"):
        expected(bar, "translate_x(1)", "from_zero", (0.5, 0.5))


def test_fields_of_the_papers_example_with_their_areas() -> None:
    clips = {"shift": "translate_x(0.05) > translate_y(0.05)", "grow": "scale(0.5)", "shrink": "scale(2)"}
    figure = fields_figure(shapely.box(8.5, 8.5, 11.5, 11.5), clips, image_size=(20, 20))
    panels = [axis for axis in figure.axes if axis.get_subplotspec() is not None]
    assert len(panels) == 3 * 4
    labels = [axis.get_xlabel() for axis in panels[3::4]]
    assert labels == ["19 px²\n(one frame: 9)", "144 px²\n(one frame: 9)", "9 px²\n(one frame: 9)"]
    assert len({tuple(axis.get_xlim() + axis.get_ylim()) for axis in panels}) == 1
    letters = [axis.patches[0].get_xy() for axis in panels[:3]]
    for t, letter in enumerate(letters):  # one pixel right and down per step
        np.testing.assert_allclose(letter - letters[0], t, atol=1e-9)
    with pytest.raises(InputError, match="no genotype to draw"):
        fields_figure(shapely.box(0, 0, 3, 3), {}, image_size=(20, 20))


def test_the_letter_of_every_frame_is_within_the_panels() -> None:
    figure = fields_figure(shapely.box(14, 8, 20, 14), {"shift": "translate_x(0.1)"}, image_size=SIZE, T=4)
    for axis in [axis for axis in figure.axes if axis.get_subplotspec() is not None][:4]:
        (low, high), corners = axis.get_xlim(), axis.patches[0].get_xy()
        assert low < corners[:, 0].min()
        assert corners[:, 0].max() < high
    # A letter that would make the panels far larger is cut.
    far = fields_figure(shapely.box(14, 8, 20, 14), {"zoom": "scale(4)"}, image_size=SIZE, T=3)
    low, high = far.axes[0].get_xlim()
    assert high - low < 12


def test_the_shade_grows_with_the_number_of_frames() -> None:
    figure = fields_figure(
        shapely.box(8, 8, 11, 11), {"shift": "translate_x(0.05) > translate_y(0.05)"}, image_size=(20, 20)
    )
    union = [axis for axis in figure.axes if axis.get_subplotspec() is not None][3]
    shades = [patch.get_facecolor()[0] for patch in union.patches if patch.get_fill()]
    assert len(shades) == 3
    assert shades == sorted(shades, reverse=True)


def depth_results(accuracies: dict[str, float]) -> list[ComparisonResult]:
    results = []
    for model, accuracy in accuracies.items():
        record = result_record()
        record["model"] = model
        for index, arm in enumerate(record["arms"]):
            for run in arm["runs"]:
                run["accuracy"] = accuracy + index + 0.1 * run["seed"]
        results.append(ComparisonResult.from_dict(record))
    return results


def test_accuracy_against_depth() -> None:
    results = depth_results({"resnet50": 74.0, "timm:cifar_resnet18.x1": 70.0, "resnet101": 76.0})
    figure = depth_figure(results, ["bare", "searched"])
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert [[round(x) for x in line.get_xdata()] for line in lines] == [[18, 50, 101]] * 2
    assert [float(y) for y in lines[0].get_ydata()] == pytest.approx([70.1, 74.1, 76.1])
    assert [float(y) for y in lines[1].get_ydata()] == pytest.approx([72.1, 76.1, 78.1])
    assert "3 seeds" in figure._supxlabel.get_text()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bare", "searched + GSF"]
    every = depth_figure(results)
    assert len(every.axes[0].containers) == 4
    every.draw_without_rendering()
    legend = every.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= every.bbox.width
    assert depth_of("wide_resnet50_2") == 50


@pytest.mark.parametrize(
    ("models", "arms", "message"),
    [
        ({"resnet50": 1.0}, None, "two depths or more"),
        ({"resnet50": 1.0, "wide_resnet50_2": 1.0}, None, "both have depth 50"),
        ({"resnet18": 1.0, "small_fcn": 1.0}, None, "'small_fcn' holds no depth"),
        ({"resnet18": 1.0, "resnet50": 1.0}, ["bear"], "no finished arm 'bear'; it has bare, bare_long"),
    ],
)
def test_depth_refuses(models: dict[str, float], arms: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        depth_figure(depth_results(models), arms)


def test_depth_refuses_other_data() -> None:
    first, second = depth_results({"resnet18": 1.0, "resnet50": 1.0})
    second.data["name"] = "CIFAR-10"
    with pytest.raises(InputError, match="different data"):
        depth_figure([first, second])


def test_accuracy_against_depth_is_drawn_from_result_files(tmp_path, monkeypatch, capsys) -> None:
    files = []
    for model in ("cifar_resnet8", "cifar_resnet18"):
        record = result_record()
        record["model"] = model
        files.append(tmp_path / f"{model}.json")
        files[-1].write_text(json.dumps(record))
    script = Path(__file__).parents[2] / "benchmarks" / "depth.py"
    argv = ["depth.py", *map(str, files), "--arms", "bare", "searched", "--out", str(tmp_path / "depth")]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(script), run_name="__main__")
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["depth.png", "depth.svg"]
    assert (tmp_path / "depth.svg").read_text().count("<svg") == 1


def test_figures_are_written_as_picture_and_as_vectors(tmp_path) -> None:
    paths = save_figure(erf_figure({"": [panel("x")]}, width=4), tmp_path / "erf")
    assert [path.name for path in paths] == ["erf.png", "erf.svg"]
    with Image.open(paths[0]) as picture:
        assert picture.size[0] == pytest.approx(4 * 192, abs=2)
    assert paths[1].read_text().count("<svg") == 1
    again = save_figure(erf_figure({"": [panel("x")]}, width=4), tmp_path / "again")
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(paths, again, strict=True)] == [True, True]


def test_bars_have_round_lengths() -> None:
    assert [bar_length(width) for width in (8, 16, 32, 48, 224, 512)] == [2, 2, 5, 10, 50, 100]


def test_the_page_needs_nothing_else(tmp_path) -> None:
    rows = [("layer3, frame 0", "GSF", "4.1", "4.0", "1.66 : 1 at 30°", "1.6 : 1 at 28°", "60 30 10 %")]
    report = FieldReport("Fields of <x>", grid(), "A unit sees 7×7 pixels.", rows, {"model": "x"})
    fields = fields_figure(shapely.box(14, 8, 20, 14), {"the clip": "rotate(20)"}, image_size=SIZE)
    text = write_field_page(tmp_path / "rf.html", report, fields=fields).read_text()
    assert text.count("<img") == 2
    check_stands_alone(text)
    for part in (
        "Fields of &lt;x&gt;",
        "A unit sees 7×7 pixels.",
        "60 30 10 %",
        "Layer3, averaged: against",
        "a caption",
    ):
        assert part in text

"""The figures and the HTML page: what is drawn, and that the page needs nothing else."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from report_cases import EDGES, arm, check_stands_alone, overlapping, result_record

from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.errors import InputError
from image2video.report import (
    ComparisonResult,
    cell_figure,
    film_figure,
    film_strip,
    learning_figure,
    report_html,
    scores_figure,
    tau_figure,
    write_report,
)
from image2video.report.curves import edge_name
from image2video.report.film import caption_lines, clip_pixels, image_border
from image2video.report.style import svg_text


@pytest.fixture
def result() -> ComparisonResult:
    return ComparisonResult.from_dict(result_record())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_pixels_are_the_clip_denormalised(images: torch.Tensor) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    shape = (1, 3, 1, 1)
    normalised = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    to_video = Image2Video(Genotype.parse("translate_x(0.1)"), T=3)
    pixels, steps, borders = clip_pixels(normalised, to_video, mean=mean, std=std)
    assert pixels.shape == (2, 3, 12, 20, 3)
    assert steps == (0.0, 1.0, 2.0)
    np.testing.assert_allclose(pixels[:, 0], images.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    # translate_x(0.1) of 20 pixels: two pixels to the right per step, the mean colour where nothing is
    np.testing.assert_allclose(pixels[:, 1, :, 2:], images.permute(0, 2, 3, 1).numpy()[:, :, :-2], atol=1e-5)
    np.testing.assert_allclose(pixels[:, 2, :, :4], np.broadcast_to(np.array(mean), (2, 12, 4, 3)), atol=1e-5)
    np.testing.assert_allclose(borders[2][:, 0], [4, 24, 24, 4], atol=1e-9)


def test_border_on_a_wide_image() -> None:
    # Counter-clockwise by 90° on the screen: the upper left corner (0, 0) of 20×12 goes to the lower left.
    corners = image_border(Genotype.parse("rotate(90)"), 1, 12, 20)
    np.testing.assert_allclose(corners[0], [10 - 6, 6 + 10], atol=1e-9)
    np.testing.assert_allclose(corners[1], [10 - 6, 6 - 10], atol=1e-9)


def test_film_figure_has_a_row_per_image_and_a_column_per_frame(images: torch.Tensor) -> None:
    figure = film_figure(images, Image2Video(Genotype.parse("rotate(10)"), T=4, schedule="centred"), labels=["a", "b"])
    assert len(figure.axes) == 8
    assert [axis.get_title() for axis in figure.axes[:4]] == [f"frame {t}\ns = {t - 2}" for t in range(4)]
    assert figure.axes[4].get_ylabel() == "b"
    assert all(len(axis.patches) == 1 for axis in figure.axes)


def test_photometric_ops_are_drawn(images: torch.Tensor, tmp_path) -> None:
    genotype = Genotype.parse("translate_x(0.1) > invert(1) > cutout(0.4)")
    film_strip(images, genotype, 2, "from_zero", tmp_path / "strip.gif")
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    shape = (1, 3, 1, 1)
    normalised = (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    plain = clip_pixels(images, Image2Video(genotype, T=2, padding="border", mean=0, std=1))[0]
    to_video = Image2Video(genotype, T=2, padding="border", mean=mean, std=std)
    assert np.allclose(clip_pixels(normalised, to_video, mean=mean, std=std)[0], plain, atol=1e-5)
    assert np.abs(plain[:, 1] - plain[:, 0]).max() > 0.3


def test_captions_of_a_film_are_never_cut(images: torch.Tensor, tmp_path) -> None:
    lines = caption_lines("translate_x(0.06) > rotate(10) > scale(1.1)", 30, len)
    assert lines == ["translate_x(0.06) >", "rotate(10) > scale(1.1)"]
    assert caption_lines("identity", 3, len) == ["identity"]
    sizes = []
    for text in ("scale(1.3)", "translate_x(0.06789012345) > rotate(10) > scale(1.1)"):
        path = film_strip(images[:1, :, :, :2], Genotype.parse(text), 3, "centred", tmp_path / f"{len(text)}.gif")
        with Image.open(path) as film:
            sizes.append(film.size)
            for frame in range(3):
                film.seek(frame)
                dark = np.argwhere(np.asarray(film.convert("L"))[-20:] < 100)
                assert len(dark) > 0
                assert dark[:, 1].max() < film.size[0] - 4
    assert sizes[1][0] > sizes[0][0]
    assert sizes[1][1] == sizes[0][1] + 18


def test_a_frame_set_is_labelled_by_its_chains(images: torch.Tensor, tmp_path) -> None:
    some = FrameSet.parse("identity | flip_x | rotate(10) > translate_x(0.06789012345) > scale(1.1)")
    figure = film_figure(images[:1], Image2Video(some))
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    assert titles == ["frame 0 identity", "frame 1 flip_x", f"frame 2 {some.frames[2]}"]
    pixels, steps, borders = clip_pixels(images[:1], Image2Video(some))
    assert steps == (0, 1, 2)
    assert np.array_equal(pixels[:, 1], pixels[:, 0, :, ::-1])
    assert np.allclose(borders[1][:, 0], pixels.shape[3] - borders[0][:, 0])
    assert caption_lines(str(some), 24, len)[0] == "identity | flip_x |"
    with Image.open(film_strip(images[:1], some, 3, "from_zero", tmp_path / "set.gif")) as film:
        assert film.n_frames == 3
    with pytest.raises(InputError, match="no schedule but 'from_zero'"):
        film_strip(images[:1], some, 3, "centred", tmp_path / "set.png")


def test_film_strip_png_and_gif(images: torch.Tensor, tmp_path) -> None:
    genotype = Genotype.parse("scale(1.3)")
    png = film_strip(images, genotype, 3, "from_zero", tmp_path / "strip.png")
    with Image.open(png) as picture:
        assert picture.size[0] > picture.size[1] / 2
    gif = film_strip(images[:, :1], genotype, 3, "from_zero", tmp_path / "strip.gif", milliseconds=200)
    with Image.open(gif) as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
        assert film.info["duration"] == 200
    with pytest.raises(InputError, match=r"\.png or \.gif, got 'strip\.mp4'"):
        film_strip(images, genotype, 3, "from_zero", tmp_path / "strip.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["strip.gif", "strip.png"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x: (x * 255).byte(), {}, r"needs float images .* torch\.uint8; convert"),
        (lambda x: x[0], {}, r"\(B, C, H, W\) with 1 or 3 channels; got \(3, 12, 20\)"),
        (lambda x: x * 4, {}, "outside 0 … 1; give the mean and std"),
        (lambda x: x, {"mean": (0.5,) * 3}, "mean and std go together"),
    ],
)
def test_film_refuses(images: torch.Tensor, change, options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        film_figure(change(images), Image2Video(Genotype.identity(), T=2), **options)


def test_cell_names_every_edge_and_blackens_the_path(result: ComparisonResult) -> None:
    search = result.search
    assert search is not None
    figure = cell_figure(search)
    labels = texts(figure)
    assert sum(label.startswith("kept ") for label in labels) == len(EDGES)
    assert sum(label.startswith("τ ") for label in labels) == len(EDGES)
    black = [patch for patch in figure.axes[0].patches if patch.get_edgecolor()[:3] == (0, 0, 0)]
    assert len(black) == len(search.path)
    assert {"in", "1", "2", "3", "4", "clip"} <= set(labels)


@pytest.mark.parametrize(("inputs", "nodes"), [(1, 4), (2, 4), (1, 1), (1, 5)])
def test_cell_labels_do_not_overlap(inputs: int, nodes: int) -> None:
    record = result_record()
    search = record["search"]
    edges = [[i, j] for j in range(inputs, inputs + nodes) for i in range(j)]
    search |= {"inputs": inputs, "nodes": nodes, "edges": edges, "path": [0], "chosen": [0] * len(edges)}
    search["weights"] = [[[0.3, 0.1, 0.2, 0.2, 0.2]] * len(edges)]
    search["drops"] = [[None] * 5] * len(edges)
    parsed = ComparisonResult.from_dict(record).search
    assert parsed is not None
    assert overlapping(cell_figure(parsed)) == []


def test_tau_panels_share_one_scale(result: ComparisonResult) -> None:
    assert result.search is not None
    figure = tau_figure(result.search)
    assert len(figure.axes) == 10
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    weights = result.search.weights
    line = figure.axes[3].lines[1 + 2]  # the first line of a panel marks equal weights
    np.testing.assert_allclose(line.get_ydata(), [epoch[3][2] for epoch in weights])


def test_scores_show_every_drop_and_frame_the_kept_op(result: ComparisonResult) -> None:
    assert result.search is not None
    figure = scores_figure(result.search)
    assert len([t for t in texts(figure) if t]) == 50
    frames = [(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in figure.axes[0].patches]
    assert frames == [(op, edge) for edge, op in enumerate(result.search.chosen)]
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high


def test_learning_curves_are_means_over_seeds_and_fine_tuning_stands_apart(result: ComparisonResult) -> None:
    figure = learning_figure(result)
    left, middle, right = figure.axes  # over epochs, over frames, fine-tuning
    assert left.get_ylim() == middle.get_ylim() == right.get_ylim()
    mean = next(line for line in left.lines if line.get_label() == "searched + GSF")
    np.testing.assert_allclose(mean.get_ydata()[-1], 94.5 * 0.9)
    tuned = next(line for line in right.lines if line.get_label() == "bare, wrapped and fine-tuned")
    np.testing.assert_allclose(tuned.get_xdata(), [1, 2, 3])
    longer = next(line for line in middle.lines if line.get_label() == "bare, 3 × the epochs")
    np.testing.assert_allclose(longer.get_xdata(), [3, 6, 9])
    assert tuned not in [*left.lines, *middle.lines]


def test_edge_names() -> None:
    assert edge_name((0, 2), 1) == "in → 2"
    assert edge_name((1, 3), 2) == "in 2 → 2"


def test_html_is_one_file_without_outside_references(result: ComparisonResult, images: torch.Tensor, tmp_path) -> None:
    film = film_figure(images, Image2Video(Genotype.parse("rotate(10)"), T=2))
    path = write_report(tmp_path / "report.html", result, film=film)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    html = path.read_text(encoding="utf-8")
    assert html.count("<img") == 5
    check_stands_alone(html)


def test_html_says_the_numbers_the_sentence_and_the_genotype(result: ComparisonResult) -> None:
    html = report_html(result)
    for piece in (
        "94.5 ± 1.4",
        "At equal epochs, “searched + GSF” is ahead of “bare”",
        "translate_x(0.06) &gt; rotate(10)",
    ):
        assert piece in html
    assert "MACs" in html
    assert "Perturbation scores" in html
    assert "From image to clip" not in html


def test_html_without_search_or_curves() -> None:
    arms = [arm("bare", [90.0]), arm("searched", [91.0])]
    for entry in arms:
        for run in entry["runs"]:
            run["curve"] = []
    html = report_html(ComparisonResult.from_dict(result_record(arms) | {"search": None}))
    assert "<img" not in html
    assert "90.0 ±" not in html


def test_figures_are_reproducible_and_leave_no_global_state(result: ComparisonResult) -> None:
    assert result.search is not None
    before = dict(matplotlib.rcParams)
    first, second = (svg_text(tau_figure(result.search)) for _ in range(2))
    assert first == second
    assert dict(matplotlib.rcParams) == before

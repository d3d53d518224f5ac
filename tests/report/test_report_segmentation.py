"""The figure of segmentations: where the zoom goes, what is drawn, what is refused."""

import numpy as np
import pytest

from image2video.errors import InputError
from image2video.report import SegmentedImage, most_different, segmentation_figure
from image2video.report.style import png_bytes, svg_text

CLASSES = {"road": (128, 64, 128), "car": (64, 0, 128), "sky": (128, 128, 128)}
SIZE = (12, 20)


def row(**changes) -> SegmentedImage:
    label = np.zeros(SIZE, np.int64)
    label[:3] = 2
    label[0, 0] = 255
    other = label.copy()
    other[label == 255] = 1
    other[8:10, 13:17] = 1
    image = np.full((*SIZE, 3), 90, np.uint8)
    plain = np.where(label == 255, 2, label)
    return SegmentedImage(
        **{"image": image, "label": label, "predictions": {"plain": plain, "video": other}, **changes}
    )


def test_the_window_holds_what_differs() -> None:
    assert most_different(row(), 2, 4) == (8, 13, 2, 4)
    top, left, height, width = most_different(row(), 4, 6)
    assert top <= 8
    assert left <= 13
    assert top + height >= 10
    assert left + width >= 17


def test_pixels_without_a_label_do_not_draw_the_window() -> None:
    one = row()
    predictions = dict(one.predictions)
    predictions["video"] = np.where(one.label == 255, 1, predictions["plain"])
    predictions["video"][11, 19] = 1
    assert most_different(row(predictions=predictions), 1, 1) == (11, 19, 1, 1)


def test_equal_predictions_give_the_first_window() -> None:
    one = row()
    same = {"plain": one.predictions["plain"], "video": one.predictions["plain"]}
    assert most_different(row(predictions=same), 3, 5) == (0, 0, 3, 5)


def test_every_image_has_two_lines_of_panels_in_the_colours_of_its_classes() -> None:
    figure = segmentation_figure([row(), row()], CLASSES, zoom=(0.25, 0.25))
    assert len(figure.axes) == 2 * 2 * 4
    assert [axis.get_title() for axis in figure.axes[:4]] == ["image", "label", "plain", "video"]
    video = figure.axes[3].images[0].get_array()
    assert video.shape == (*SIZE, 3)
    assert tuple(video[8, 13]) == CLASSES["car"]
    assert tuple(video[11, 0]) == CLASSES["road"]
    assert tuple(figure.axes[1].images[0].get_array()[0, 0]) == (255, 255, 255), "no label"
    zoomed = figure.axes[4 + 3].images[0].get_array()
    assert zoomed.shape == (3, 5, 3)
    assert (zoomed == CLASSES["car"]).all(-1).sum() == 8
    outline = figure.axes[0].patches[0]
    assert (outline.get_width(), outline.get_height()) == (5, 3)


def test_the_shares_are_of_labelled_pixels() -> None:
    figure = segmentation_figure([row()], CLASSES, zoom=(1, 1))
    labelled = SIZE[0] * SIZE[1] - 1
    assert figure.axes[2].get_xlabel() == "100.0 % right"
    assert figure.axes[3].get_xlabel() == f"{100 * (labelled - 8) / labelled:.1f} % right"


def test_the_legend_names_every_class() -> None:
    (legend,) = segmentation_figure([row()], CLASSES).legends
    assert [text.get_text() for text in legend.get_texts()] == [*CLASSES, "unlabelled"]


def test_the_same_figure_gives_the_same_files() -> None:
    figures = [segmentation_figure([row()], CLASSES, width=4) for _ in range(2)]
    assert png_bytes(figures[0]) == png_bytes(figures[1])
    assert svg_text(figures[0]) == svg_text(figures[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": {"plain": np.zeros(SIZE, int)}}, r"two predictions or more, got \['plain'\]"),
        ({"image": np.zeros((3, *SIZE), np.uint8)}, r"\(H, W, 3\) uint8, got \(3, 12, 20\)"),
        ({"image": np.zeros((*SIZE, 3))}, "uint8, got .* float64"),
        ({"label": np.zeros((4, 4), int)}, r"'label' has shape \(4, 4\), the image \(12, 20\)"),
    ],
)
def test_what_is_not_alike_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        row(**changes)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="no images to draw"):
        segmentation_figure([], CLASSES)
    with pytest.raises(InputError, match="zoom must be shares"):
        segmentation_figure([row()], CLASSES, zoom=(0, 0.5))
    with pytest.raises(InputError, match=r"fit into the image of 12 × 20 pixels, got 13 × 2"):
        most_different(row(), 13, 2)
    other = row(predictions={"a": np.zeros(SIZE, int), "b": np.zeros(SIZE, int)})
    with pytest.raises(InputError, match=r"needs the predictions \['plain', 'video'\]"):
        segmentation_figure([row(), other], CLASSES)
    unknown = {"plain": np.full(SIZE, 3), "video": np.zeros(SIZE, int)}
    with pytest.raises(InputError, match="must be a class or ignored, got some among 3 … 3"):
        segmentation_figure([row(predictions=unknown)], CLASSES)

"""Segmentations side by side: image, label, predictions, and below them a zoom to where the predictions differ most."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from image2video.errors import InputError
from image2video.report.style import GREY, drawing, new_figure

Window = tuple[int, int, int, int]
Colour = Sequence[int]

_PAPER, _STRIPE = (255, 255, 255), (190, 190, 190)  # pixels without a label
_STRIPES = 40  # along the shorter side
_LEGEND_COLUMNS = 6
_FRAME = "#ff2d95"  # in neither the scenes nor the usual palettes
_UNKNOWN = "unlabelled"


@dataclass(frozen=True)
class SegmentedImage:
    """An image with its label and what networks predict.

    Attributes:
        image: `(H, W, 3)` uint8.
        label: `(H, W)` class ids.
        predictions: the class ids `(H, W)` by network; the first is what the others are compared with.

    Raises:
        InputError: fewer than two predictions, or arrays of different sizes.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.integer]
    predictions: Mapping[str, NDArray[np.integer]]

    def __post_init__(self) -> None:
        if len(self.predictions) < 2:
            raise InputError(f"a comparison needs two predictions or more, got {list(self.predictions)}")
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise InputError(f"the image must be (H, W, 3) uint8, got {self.image.shape} {self.image.dtype}")
        for name, one in {"label": self.label, **self.predictions}.items():
            if one.shape != self.image.shape[:2]:
                raise InputError(
                    f"{name!r} has shape {one.shape}, the image {self.image.shape[:2]}; they must be alike"
                )


def most_different(one: SegmentedImage, height: int, width: int, *, ignore_index: int = 255) -> Window:
    """The window with most labelled pixels that the predictions disagree on.

    Args:
        one: the image with its predictions.
        height: of the window in pixels.
        width: of the window in pixels.
        ignore_index: the id of pixels without a label.

    Returns:
        (top, left, height, width) in pixels; of windows that are equal in this, the uppermost, then the leftmost.

    Raises:
        InputError: a window that is larger than the image.
    """
    rows, columns = one.label.shape
    if not (1 <= height <= rows and 1 <= width <= columns):
        raise InputError(f"a window must fit into the image of {rows} × {columns} pixels, got {height} × {width}")
    first, *others = one.predictions.values()
    differ = np.any([other != first for other in others], axis=0) & (one.label != ignore_index)
    sums = np.pad(differ.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left), height, width


def segmentation_figure(
    rows: Sequence[SegmentedImage],
    classes: Mapping[str, Colour],
    *,
    ignore_index: int = 255,
    zoom: tuple[float, float] = (0.25, 0.375),
    score: Literal["right", "iou"] = "right",
    width: float = 9.0,
) -> Figure:
    """Image, label and every prediction; below each image the window where the predictions differ most, enlarged.

    A number below a prediction is the share of the labelled pixels that it has right, of the image or of the window;
    with `score="iou"`, that of the image is its mean IoU (`image_iou`). Pixels without a label are striped. (As in
    Casarin et al., CVPR 2024, Fig. 6, with windows that `most_different` chooses.)

    Args:
        rows: the images; all with predictions of the same names.
        classes: the names of the classes with their colours (red, green, blue in 0 … 255), in the order of the ids.
        ignore_index: the id of pixels without a label.
        zoom: height and width of the windows as shares of the image's.
        score: what stands below whole predictions.
        width: of the figure, in inches.

    Returns:
        The figure.

    Raises:
        InputError: no rows, other names of predictions in one of them, ids that are no class, a zoom outside 0 … 1.
    """
    names = _names(rows)
    if not all(0 < share <= 1 for share in zoom):
        raise InputError(f"zoom must be shares of the image above 0, at most 1, got {zoom}")
    cell = width / (2 + len(names))
    heights = []
    for row in rows:
        full = cell * (row.label.shape[0] / row.label.shape[1])
        heights += [full + 0.16, full * zoom[0] / zoom[1] + 0.16]
    lookup = _lookup(classes, ignore_index)
    with drawing():
        shown = _shown(rows, classes)
        titles = [textwrap.fill(name, max(10, int(12 * cell))) for name in ("image", "label", *names)]
        lines = max(title.count("\n") for title in titles)
        legend = 0.2 * math.ceil((len(shown) + 1) / _LEGEND_COLUMNS)
        figure = new_figure(width, sum(heights) + 0.35 + 0.15 * lines + legend)
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.01, wspace=0.01, hspace=0.0)
        axes = figure.subplots(2 * len(rows), 2 + len(names), squeeze=False, height_ratios=heights)
        for index, row in enumerate(rows):
            high, wide = (max(1, round(n * share)) for n, share in zip(row.label.shape, zoom, strict=True))
            window = most_different(row, high, wide, ignore_index=ignore_index)
            _line(axes[2 * index], row, lookup, ignore_index, None)
            _line(axes[2 * index + 1], row, lookup, ignore_index, window)
            if score == "iou":
                for axis, ids in zip(axes[2 * index][2:], row.predictions.values(), strict=True):
                    axis.set_xlabel(f"mIoU {100 * image_iou(ids, row.label, ignore_index=ignore_index):.1f} %")
            for axis in axes[2 * index]:
                axis.add_patch(_outline(window))
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title)
        _legend(figure, shown, unlabelled=any((row.label == ignore_index).any() for row in rows))
    return figure


def image_iou(prediction: NDArray[np.integer], label: NDArray[np.integer], *, ignore_index: int = 255) -> float:
    """The IoU of one image, a mean over the classes in its label or its prediction.

    Args:
        prediction: `(H, W)` class ids.
        label: `(H, W)` class ids.
        ignore_index: the id of pixels without a label, which do not count.

    Returns:
        A share in 0 … 1; NaN without any label.

    >>> image_iou(np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 255]]))
    0.5
    """
    known = label != ignore_index
    there, found = label[known], prediction[known]
    ious = []
    for one in np.union1d(there, found):
        both, either = (there == one) & (found == one), (there == one) | (found == one)
        ious.append(float(both.sum() / either.sum()))
    return sum(ious) / len(ious) if ious else math.nan


def _names(rows: Sequence[SegmentedImage]) -> list[str]:
    """The names of the predictions, which all rows share."""
    if not rows:
        raise InputError("no images to draw; give at least one SegmentedImage")
    names = list(rows[0].predictions)
    if any(list(row.predictions) != names for row in rows):
        raise InputError(f"every row needs the predictions {names}, got {[list(row.predictions) for row in rows]}")
    return names


def _shown(rows: Sequence[SegmentedImage], classes: Mapping[str, Colour]) -> dict[str, Colour]:
    """The classes that any of the pictures holds."""
    ids: set[int] = set()
    for row in rows:
        for picture in (row.label, *row.predictions.values()):
            ids |= set(np.unique(picture).tolist())
    return {name: colour for index, (name, colour) in enumerate(classes.items()) if index in ids}


def _line(
    axes: Sequence[Axes], row: SegmentedImage, lookup: NDArray[np.uint8], ignored: int, window: Window | None
) -> None:
    """One line of panels: the whole images, or the window of each."""
    top, left, height, width = window or (0, 0, *row.label.shape)
    part = slice(top, top + height), slice(left, left + width)
    label = row.label[part]
    labelled = _striped(_coloured(row.label, lookup), row.label == ignored)
    pictures = [row.image[part], labelled[part]]
    pictures += [_coloured(ids[part], lookup) for ids in row.predictions.values()]
    for axis, picture in zip(axes, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(True)
            spine.set_color(GREY if window is None else _FRAME)
    known = label != ignored
    for axis, ids in zip(axes[2:], row.predictions.values(), strict=True):
        share = 100 * (ids[part] == label)[known].mean() if known.any() else float("nan")
        axis.set_xlabel(f"{share:.1f} % right", fontsize=7, labelpad=1.5)


def _outline(window: Window) -> Rectangle:
    """The border of a window in its image."""
    top, left, height, width = window
    return Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=_FRAME, linewidth=1.1)


def _lookup(classes: Mapping[str, Colour], ignored: int) -> NDArray[np.uint8]:
    """`(ids, 4)`: the colour of every id, and 1 where it is a class or ignored."""
    table = np.zeros((max(len(classes), ignored + 1), 4), np.uint8)
    for index, colour in enumerate(classes.values()):
        table[index] = (*colour, 1)
    table[ignored] = (*_PAPER, 1)
    return table


def _coloured(ids: NDArray[np.integer], lookup: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours of class ids."""
    least, most = int(ids.min()), int(ids.max())
    if least < 0 or most >= len(lookup) or not lookup[ids][..., 3].all():
        raise InputError(f"class ids must be a class or ignored, got some among {least} … {most} that are neither")
    return lookup[ids][..., :3]


def _striped(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture with diagonal stripes there, which are no class's colour."""
    rows, columns = np.indices(where.shape)
    broad = max(1, round(min(where.shape) / _STRIPES))
    dark = where & ((rows + columns) // broad % 2 == 1)
    return np.where(dark[..., None], np.array(_STRIPE, np.uint8), picture)


def _legend(figure: Figure, classes: Mapping[str, Colour], *, unlabelled: bool) -> None:
    """The colours of the classes below the panels."""
    patches = [
        Patch(facecolor="#" + bytes(colour).hex(), edgecolor=GREY, linewidth=0.5, label=name)
        for name, colour in classes.items()
    ]
    if unlabelled:
        patches.append(Patch(facecolor="white", edgecolor=GREY, linewidth=0.5, hatch="////////", label=_UNKNOWN))
    figure.legend(
        handles=patches, loc="outside lower center", ncols=_LEGEND_COLUMNS, handlelength=1.4, columnspacing=1.2
    )
